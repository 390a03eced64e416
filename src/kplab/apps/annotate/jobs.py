"""What the worker process computes: the predictions of one image by a run, and how much they can be relied on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kplab.apps.annotate.order import confidence, disagreement
from kplab.data.sources.arrays import ArraySource
from kplab.data.sources.files import FileSource
from kplab.ops import affine
from kplab.runs.run import Run
from kplab.structures.poses import Poses
from kplab.tasks.inference.loading import LoadedRun

#: Factor on the size of the second changed image.
SMALLER = 0.8


@lru_cache(maxsize=1)
def loaded(run: str, checkpoint: str) -> LoadedRun:
    """A run's model. Without the flip test: averaged with its mirror image, a prediction never differs from it."""
    return LoadedRun.load(Run.open(Path(run)), checkpoint, flip_test=False)


def variants(image: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """An image as it is, mirrored, and smaller in a grey frame, each with the 3 x 3 map from its pixels to the image's."""
    height, width = image.shape[:2]
    mirror = np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]])
    x, y = round(width * (1 / SMALLER - 1) / 2), round(height * (1 / SMALLER - 1) / 2)
    framed = cv2.copyMakeBorder(image, y, y, x, x, cv2.BORDER_CONSTANT, value=(114, 114, 114))
    shift = np.array([[1.0, 0, -x], [0, 1, -y], [0, 0, 1]])
    return [(image, np.eye(3)), (np.ascontiguousarray(image[:, ::-1]), mirror), (framed, shift)]


def predictions(run: LoadedRun, image: np.ndarray) -> list[Poses]:
    """The predictions of each variant of an image, in the image's own pixels."""
    changed = variants(image)
    source = ArraySource([pixels for pixels, _ in changed])
    found = run.stream(source, run.new_regions(source), batch_size=len(changed), workers=0)
    out = []
    for (_, poses), (_, back) in zip(found, changed, strict=True):
        poses = replace(poses, xy=affine.apply(back, poses.xy), box=affine.apply_to_boxes(back, poses.box))
        out.append(poses.permute_keypoints(run.skeleton.flip_array) if back[0, 0] < 0 else poses)
    return out


def predict(run: str, checkpoint: str, image: str, keypoints: Sequence[str]) -> dict[str, Any]:
    """The predicted instances of an image file, with the disagreement and the confidence of the predictions.

    Args:
        run: its folder.
        checkpoint: as of ``LoadedRun.load``.
        image: path.
        keypoints: of the project, in its order; those that the run does not know stay unlabelled.
    """
    model = loaded(run, checkpoint)
    found = predictions(model, FileSource.of([Path(image)]).read(0))
    poses = found[0]
    place = [model.skeleton.keypoints.index(name) if name in model.skeleton.keypoints else -1 for name in keypoints]
    xy = np.where((np.array(place) >= 0)[:, None], poses.xy[:, place], np.nan)
    return {
        "xy": [[[float(x), float(y)] if np.isfinite([x, y]).all() else None for x, y in one] for one in xy],
        "score": poses.score.tolist(),
        "disagreement": disagreement(found),
        "confidence": confidence(poses),
    }


JOBS = {"predict": predict}
