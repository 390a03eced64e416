"""Pictures of a run's predictions beside the truth: its typical and its worst images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kplab.data.images import read_image
from kplab.metrics.score import Scores
from kplab.runs.run import Run
from kplab.structures.labels import Labels
from kplab.structures.predictions import Predictions
from kplab.tasks import build
from kplab.tasks.predict import config_of
from kplab.viz import poses as drawing


def ranked(scores: Scores) -> np.ndarray:
    """Image ids from the smallest to the largest mean pixel error; images with nothing to find are left out."""
    table = scores.per_image.dropna(subset=["mean_px"]).sort_values("mean_px", kind="stable")
    return table["image_id"].to_numpy()


def overlays(labels: Labels, predictions: Predictions, image_ids: list[int]) -> list[np.ndarray]:
    """Truth and prediction drawn over each image."""
    row = {int(image_id): i for i, image_id in enumerate(labels.image_id)}
    return [
        drawing.overlay(read_image(labels.path(row[i])), labels.poses_of(row[i]), predictions.poses[i], labels.skeleton)
        for i in image_ids
    ]


def see_predictions(run: Run, split: str, out: Path, count: int = 12) -> list[Path]:
    """Write two contact sheets: images around the median error, and the worst ones."""
    config = config_of(run)
    labels = build.one_split(config.dataset, split)
    name = f"{config.dataset.name}-{split}"
    predictions = Predictions.read(run.folder / "predictions" / f"{name}.json", labels.skeleton)
    order = ranked(Scores.read(run.folder / "scores" / f"{name}.json"))
    middle = max(0, (len(order) - count) // 2)
    errors = Scores.read(run.folder / "scores" / f"{name}.json").per_image.set_index("image_id")["mean_px"]
    paths = []
    for kind, ids in (("typical", order[middle : middle + count]), ("worst", order[::-1][:count])):
        path = out / f"{run.record['experiment']}-{kind}.png"
        captions = [f"{errors[i]:.1f} px" for i in ids]
        drawing.write_png(
            path, drawing.contact_sheet(overlays(labels, predictions, list(ids)), columns=4, labels=captions)
        )
        paths.append(path)
    return paths
