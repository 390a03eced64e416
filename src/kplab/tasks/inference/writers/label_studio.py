"""Predictions of images as tasks that Label Studio imports, with the labelling configuration of their project.

A task has the prediction of one image: a rectangle for each subject, which its key points name as parent. Coordinates are
percent of the image, continuous. Boxes are clipped to the image and keypoints outside it are left out, since Label Studio
refuses what lies outside. The score of a task is the mean score of its subjects, 0 where there is none.

Source: Label Studio, "Import pre-annotated data" and "Label Studio task format".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kplab.data.formats.labelstudio import address, labelling_config, regions_of
from kplab.errors import ConfigError
from kplab.runs.files import replacing_text
from kplab.structures.frames import Frame
from kplab.tasks.inference.writers.about import About
from kplab.tasks.inference.writers.yolo import inside


@contextmanager
def write_label_studio(path: Path, about: About) -> Iterator[Callable[[Frame], None]]:
    """Write a list of tasks, and the configuration beside it (``.xml``); yields the function that adds a frame.

    Raises:
        ConfigError: the source is no images that exist, which Label Studio has to show.
    """
    if about.images is None:
        raise ConfigError(
            f"write=label_studio needs images that exist, and {about.label} is none. Leave label_studio out, or predict the "
            "frames as images."
        )
    with replacing_text(path) as file, replacing_text(path.with_suffix(".xml")) as config:
        config.write(labelling_config(about.skeleton))
        separator = "[\n"

        def add(frame: Frame) -> None:
            nonlocal separator
            file.write(separator + json.dumps(task_of(frame, about)))
            separator = ",\n"

        yield add
        file.write("\n]" if separator == ",\n" else "[]")


def task_of(frame: Frame, about: About) -> dict[str, Any]:
    """The task of an image."""
    poses = inside(frame.poses, frame.size or (1, 1))
    regions = [
        regions_of(poses, n, about.skeleton, frame.size or (1, 1), f"{frame.index + 1}-{n + 1}", scored=True)
        for n in np.flatnonzero(np.isfinite(poses.box).all(1)).tolist()
    ]
    score = float(np.clip(poses.score.mean(), 0, 1)) if len(poses) else 0.0
    prediction = {"model_version": about.run, "score": score, "result": [r for several in regions for r in several]}
    return {"id": frame.index + 1, "data": {"image": address(frame.name, about.images_at)}, "predictions": [prediction]}
