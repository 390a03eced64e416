"""Known faults of exports that only the points of many subjects reveal, by name and with counts."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from kplab.errors import DataError
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses

MEASURED = 10
"""Subjects with both sides labelled, from which on their order is judged."""

CROSSED = 0.8
"""Connections between the sides count as crossed where their length is below this share of the length within the sides."""

FIRST_PIXEL = 1.5
"""Coordinate below which all fractions lie, also those that were taken for pixel indices."""


def suspicions(labels: Labels) -> list[str]:
    """Remarks on what is probably wrong: left and right in a scrambled order, and points that count from 1."""
    return [*scrambled_sides(labels), *counted_from_one(labels)]


def scrambled_sides(labels: Labels) -> list[str]:
    """Pairs of keypoints of which left and right are exchanged against another pair in most subjects.

    Of two pairs, such as shoulders and elbows, the points of one side are usually closer to each other than to those of the
    other side. Where it is the other way round in more than half of at least ``MEASURED`` subjects, the order of the names
    is not that of the points.
    """
    xy, flip = labels.poses.xy, labels.skeleton.flip
    pairs = [(i, j) for i, j in enumerate(flip) if i < j]
    found = []
    for (a, b), (c, d) in combinations(pairs, 2):
        within = np.linalg.norm(xy[:, a] - xy[:, c], axis=1) + np.linalg.norm(xy[:, b] - xy[:, d], axis=1)
        across = np.linalg.norm(xy[:, a] - xy[:, d], axis=1) + np.linalg.norm(xy[:, b] - xy[:, c], axis=1)
        known = np.isfinite(within) & np.isfinite(across)
        crossed = int((across[known] < CROSSED * within[known]).sum())
        if known.sum() >= MEASURED and 2 * crossed > known.sum():
            names = [labels.skeleton.keypoints[k] for k in (a, b, c, d)]
            found.append((crossed, int(known.sum()), names))
    if not found:
        return []
    crossed, count, (a_name, b_name, c_name, d_name) = max(found)
    return [
        f"left-right scrambled order: in {crossed} of {count} subjects {a_name} is closer to {d_name}, and {b_name} to "
        f"{c_name} ({len(found)} such pairs). The order of the names is probably not that of the points: compare with the "
        "pictures, and exchange names with read.rename"
    ]


def counted_from_one(labels: Labels) -> list[str]:
    """Points of which some are one pixel beyond the image, and none is in its first row or column."""
    size = labels.size[labels.image_of()].astype(np.float64)[:, None]
    known = labels.poses.labelled
    with np.errstate(invalid="ignore"):
        beyond = (labels.poses.xy > size).any(-1) & known
        first = (labels.poses.xy < 1).any(-1) & known
    if not beyond.any() or first.any():
        return []
    return [
        f"{int(beyond.sum())} keypoints lie within one pixel beyond their image, and none in its first row or column: the points "
        "probably count from 1. Subtract 1 in the file; a plain CSV is read with read.pixels='index from 1'"
    ]


def refuse_fractions(poses: Poses, size: np.ndarray, where: object) -> None:
    """Refuse points that are fractions of their image in place of pixels.

    Args:
        poses: continuous pixels.
        size: (N, 2) of the image of each.
        where: the file.

    Raises:
        DataError: all points lie within the first pixel of images of 32 pixels or more, spread over it.
    """
    xy = poses.xy[poses.labelled]
    if len(xy) < 2 * MEASURED or (size < 32).any():
        return
    if xy.min() >= 0 and xy.max() <= FIRST_PIXEL and (np.ptp(xy, axis=0) > 1 / 4).all():
        raise DataError(
            f"{where}: all {len(xy)} keypoints lie within the first pixel of their images: they are fractions 0..1, in place "
            "of pixels. Multiply x by the width and y by the height; a plain CSV is read with pixels=fraction."
        )
