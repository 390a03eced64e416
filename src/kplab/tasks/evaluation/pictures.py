"""Contact sheets of predictions and truth: a run's typical and worst images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from kplab.errors import RunError
from kplab.metrics.score import Scores
from kplab.ops import affine
from kplab.runs.provenance import file_sha256
from kplab.runs.records import safe_name
from kplab.runs.run import Run
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.tasks.evaluation.files import read_predictions, read_scores
from kplab.tasks.wiring.datasets import read_split
from kplab.tasks.wiring.nodes import load_config
from kplab.viz import poses as drawing


def ranked(scores: Scores) -> np.ndarray:
    """Image ids from best to worst: by missed instances, then by mean pixel error; images without instances are left out."""
    table = scores.per_image[scores.per_image["n_instances"] > 0]
    table = table.sort_values(["n_missed", "mean_px"], kind="stable", na_position="last")
    return table["image_id"].to_numpy()


def overlays(
    labels: Labels, predictions: Predictions, image_ids: list[int], min_score: float | None = None
) -> list[np.ndarray]:
    """Draw truth and predictions over images, and crop them to the true subjects with a margin.

    Args:
        labels: the truth.
        predictions: of the same images.
        image_ids: the images to draw.
        min_score: predictions below it are not drawn.
    """
    row = {int(image_id): i for i, image_id in enumerate(labels.image_id)}
    pictures = []
    for i in image_ids:
        truth, found = labels.poses_of(row[i]), predictions.poses[i]
        found = found if min_score is None else found[found.score >= min_score]
        x0, y0, x1, y1 = around(truth[~truth.ignore], labels.size[row[i]])
        part = labels.read(row[i])[y0:y1, x0:x1]
        moved = affine.translation(-x0, -y0)
        pictures.append(drawing.overlay(part, truth.transform(moved), found.transform(moved), labels.skeleton))
    return pictures


def around(poses: Poses, size: np.ndarray, room: float = 0.25) -> tuple[int, int, int, int]:
    """The common box of the subjects of an image, with a margin of ``room`` times its longer side.

    Args:
        poses: the subjects; without any box, the whole image is returned.
        size: (2,) width and height of the image, pixels.
        room: fraction of the longer side.

    Returns:
        xyxy, whole pixels inside the image.
    """
    boxes = poses.box[np.isfinite(poses.box).all(1)]
    if not len(boxes):
        return 0, 0, int(size[0]), int(size[1])
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    margin = room * (high - low).max()
    x0, y0 = np.clip(np.floor(low - margin), 0, size - 1).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(high + margin), 1, size).astype(int).tolist()
    return x0, y0, x1, y1


def see_predictions(
    run: Run, split: str, out: Path, count: int = 12, dataset: DictConfig | None = None, label: str | None = None
) -> list[Path]:
    """Write two contact sheets, of the middle of the ranking and of its end: ``<label>-typical.png``, ``-worst.png``.

    Args:
        run: has predictions and scores of the split.
        split: the split.
        out: folder of the pictures.
        count: images per sheet.
        dataset: of the predictions; None is the run's own.
        label: of the files; None is the run's experiment.

    Raises:
        RunError: predictions or scores are missing or have changed since.
    """
    config = dataset or load_config(run).dataset
    labels = read_split(config, split)
    name = f"{config.name}-{split}"
    path = run.folder / "predictions" / f"{name}.json"
    predictions = read_predictions(path, labels.skeleton)
    scores = read_scores(run.folder / "scores" / f"{name}.json")
    if scores.card.get("predictions_hash") != file_sha256(path):
        raise RunError(f"{path}: the scores are of other predictions. Run: kplab evaluate run={run.name} split={split}")
    order = ranked(scores)
    middle = max(0, (len(order) - count) // 2)
    least = scores.card["min_score"]
    rows = scores.per_image.set_index("image_id")
    paths = []
    for kind, ids in (("typical", order[middle : middle + count]), ("worst", order[::-1][:count])):
        path = out / f"{label or safe_name(str(run.record.get('experiment', run.name)))}-{kind}.png"
        captions = [caption(rows.loc[i]) for i in ids]
        drawing.write_png(
            path, drawing.contact_sheet(overlays(labels, predictions, list(ids), least), columns=4, labels=captions)
        )
        paths.append(path)
    return paths


def caption(image: pd.Series) -> str:
    """The error and the misses of an image in a few words, from a row of ``Scores.per_image``."""
    words = [f"{image['mean_px']:.1f} px"] if image["n_matched"] else []
    words += [f"{image[key]:.0f} {what}" for key, what in (("n_missed", "missed"), ("n_extra", "extra")) if image[key]]
    return ", ".join(words)
