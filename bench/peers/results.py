"""Predictions of other systems, in the formats that they write, as predictions that kplab scores.

Each function returns image id to poses; images are named ``<image id>.png``. An image that a file does not mention has no pose.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from kplab.data.formats.sleap import read_frames
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton


def none(skeleton: Skeleton) -> Poses:
    """No pose."""
    return Poses.make(np.zeros((0, len(skeleton), 2)))


def from_ultralytics(folder: Path, test: Labels) -> dict[int, Poses]:
    """Text files of Ultralytics: ``class cx cy w h (x y score)… score`` in each row, fractions of the image.

    Fractions are continuous from the corner of the image, as in the labels that it was trained on.

    Args:
        folder: has ``<image id>.txt``; the file of an image without predictions may be missing.
        test: the images.
    """
    count, found = len(test.skeleton), {}
    for image_id, size in zip(test.image_id.tolist(), test.size, strict=True):
        path = folder / f"{image_id:06d}.txt"
        rows = [[float(word) for word in line.split()] for line in _lines(path)]
        if any(len(row) != 6 + 3 * count for row in rows):
            raise DataError(f"{path}: a row has {len(rows[0])} numbers, expected {6 + 3 * count} (6 + 3 x {count}).")
        table = np.array(rows).reshape(len(rows), 6 + 3 * count)
        points = table[:, 5:-1].reshape(-1, count, 3)
        xy = np.where(points[..., :2].any(-1, keepdims=True), points[..., :2] * size, np.nan)
        centre, half = table[:, 1:3] * size, table[:, 3:5] * size / 2
        box = np.concatenate([centre - half, centre + half], axis=1)
        found[image_id] = Poses.make(xy, score=table[:, -1], keypoint_score=points[..., 2], box=box)
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def from_sleap_nn(path: Path, test: Labels) -> dict[int, Poses]:
    """A ``.slp`` of SLEAP-NN: pixel indices; its frames are the images in the order of their names.

    Args:
        path: the file.
        test: the images.
    """
    frames = read_frames(path, test.skeleton, predicted=True)
    order = sorted(test.image_id.tolist())
    return {image_id: frames.get(number, none(test.skeleton)) for number, image_id in enumerate(order)}


def from_dlc(folder: Path, test: Labels) -> dict[int, Poses]:
    """The table of DeepLabCut: pixel indices, with a likelihood for each keypoint.

    The score of a pose, which DeepLabCut does not state, is the mean of its likelihoods.

    Args:
        folder: has one ``image_predictions_*.csv``.
        test: the images.
    """
    paths = sorted(folder.glob("image_predictions_*.csv"))
    if len(paths) != 1:
        raise DataError(f"{folder}: has {len(paths)} tables of predictions, expected one. Delete the folder.")
    levels = 4 if paths[0].open().readlines()[1].startswith("individuals") else 3
    table = pd.read_csv(paths[0], header=list(range(levels)), index_col=0)
    names = list(dict.fromkeys(table.columns.get_level_values("bodyparts")))
    if set(names) != set(test.skeleton.keypoints):
        raise DataError(f"{paths[0]}: its bodyparts are {', '.join(names)}, not the keypoints of the skeleton.")
    order = [names.index(point) for point in test.skeleton.keypoints]
    points = table.to_numpy(np.float64).reshape(len(table), -1, len(names), 3)[:, :, order]
    found = {image_id: none(test.skeleton) for image_id in test.image_id.tolist()}
    for name, content in zip(table.index, points, strict=True):
        there = content[np.isfinite(content[..., :2]).all(-1).any(1)]
        score = np.nan_to_num(there[..., 2])
        xy = affine.from_pixel_index(there[..., :2])
        found[int(Path(str(name)).stem)] = Poses.make(xy, score=score.mean(1), keypoint_score=score)
    return found
