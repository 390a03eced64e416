"""Keypoints, limbs and whole poses that are outliers among the subjects of the dataset."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kplab.data.check.checked import Checked
from kplab.data.check.finding import Finding, rule
from kplab.data.check.tails import upper_limit

LEAST = 5.0
"""Deviations below this number of scales are never reported."""

APART = 0.03
"""Sizes of the subject: keypoints that come closer than this on some subjects may be at one position on others, as hips that
are seen from the side."""

STEPS_APART = 5
"""The same in steps of the grid of the stated positions: on a small subject neighbours are rounded to one position."""


@rule(
    "warning",
    "keypoints far from the others",
    "the distances to the other keypoints are outliers for the size of the subject",
    "Look at these keypoints.",
)
def keypoint_misplaced(data: Checked) -> Iterator[Finding]:
    """A keypoint is much farther from the other keypoints than on other subjects."""
    every = data.dataset.misplaced
    limit = max(LEAST, upper_limit(_largest(every)))
    values = data.of_instances(every)
    for i in np.flatnonzero(_largest(values) > limit):
        k = int(np.nanargmax(values[i]))
        yield data.at(i, k, f"{values[i, k]:.1f} scales", float(values[i, k]), limit)


@rule(
    "warning",
    "limbs of unusual length",
    "the length relative to the size of the subject is an outlier",
    "Look at both ends of these limbs.",
)
def limb_length(data: Checked) -> Iterator[Finding]:
    """An edge of the skeleton is much longer or shorter than on other subjects."""
    edges = np.array(data.labels.skeleton.edges, dtype=np.int64).reshape(-1, 2)
    # the length of a limb that is seen from its end is near 0 on some subjects
    steady = data.dataset.closest[edges[:, 0], edges[:, 1]] > APART
    for sign, word in ((1, "long"), (-1, "short")):
        every = sign * data.dataset.edge_z
        limit = max(LEAST, upper_limit(_largest(every)))
        values = data.of_instances(every if sign > 0 else np.where(steady, every, np.nan))
        for i in np.flatnonzero(_largest(values) > limit):
            e = int(np.nanargmax(values[i]))
            a, b = (data.labels.skeleton.keypoints[k] for k in edges[e])
            text = f"{a}-{b}: too {word}, {values[i, e]:.1f} scales"
            yield data.at(i, int(edges[e, 1]), text, float(values[i, e]), limit)


@rule(
    "warning",
    "limbs at an unusual angle",
    "the angle between two limbs is an outlier; only angles that vary little are compared",
    "Look at the three keypoints.",
)
def limb_angle(data: Checked) -> Iterator[Finding]:
    """Two edges that meet have an angle that is unlike that of other subjects."""
    joints, every = data.dataset.angle_z
    limit = max(LEAST, upper_limit(_largest(every)))
    values = data.of_instances(every)
    names = data.labels.skeleton.keypoints
    for i in np.flatnonzero(_largest(values) > limit):
        j = int(np.nanargmax(values[i]))
        a, b, c = (names[k] for k in joints[j])
        yield data.at(i, int(joints[j][1]), f"{a}, {b}, {c}: {values[i, j]:.1f} scales", float(values[i, j]), limit)


@rule(
    "warning",
    "subjects of unusual shape",
    "distances between the keypoints are outliers, and no other order of the names explains it",
    "Look at these subjects.",
)
def pose_outlier(data: Checked) -> Iterator[Finding]:
    """The distances between the keypoints of a subject are unlike those of others."""
    limit = max(LEAST, upper_limit(data.dataset.energy))
    values = data.of_instances(data.dataset.energy)
    orders = data.dataset.orders
    row = data.of_instances(np.arange(len(data.dataset.xy), dtype=np.float64), -1)
    for i in np.flatnonzero(values > limit):
        if int(row[i]) not in orders:
            yield data.at(i, None, f"mean square deviation {values[i]:.1f}", float(values[i]), limit)


@rule(
    "error",
    "subjects with keypoints in another order",
    "the points fit the other subjects under exchanged names",
    "Correct the order of the names for these subjects, e.g. where the export follows the order of clicks.",
)
def keypoint_order(data: Checked) -> Iterator[Finding]:
    """The keypoints of a subject are in another order than the names."""
    orders = data.dataset.orders
    row = data.of_instances(np.arange(len(data.dataset.xy), dtype=np.float64), -1)
    names = data.labels.skeleton.keypoints
    for i in np.flatnonzero(data.counted):
        if (order := orders.get(int(row[i]))) is not None:
            moved = [f"{names[k]} at {names[a]}" for k, a in enumerate(order) if k != a]
            text = f"fits as: {', '.join(moved[:4])}{f' and {len(moved) - 4} more' if len(moved) > 4 else ''}"
            yield data.at(i, None, text, float(len(moved)), 0.0)


@rule(
    "warning",
    "subjects with two keypoints at one position",
    "two keypoints that are usually apart have exactly the same position",
    "Correct one of them, or make it unlabelled.",
)
def keypoints_coincide(data: Checked) -> Iterator[Finding]:
    """Two keypoints of a subject have exactly the same position, and are usually apart."""
    xy, names = data.labels.poses.xy, data.labels.skeleton.keypoints
    sizes, near = data.of_instances(data.dataset.sizes), data.dataset.closest
    ordered = np.sort(xy[..., 0] + 1j * xy[..., 1], axis=1)
    for i in np.flatnonzero(data.counted & (ordered[:, 1:] == ordered[:, :-1]).any(1)):
        known = np.flatnonzero(np.isfinite(xy[i]).all(1))
        _, first, number = np.unique(xy[i, known], axis=0, return_index=True, return_counts=True)
        if len(first) == len(known) or len(first) == 1:
            continue
        limit = max(APART, STEPS_APART * data.dataset.resolution / sizes[i])
        for at in first[number > 1]:
            a, *others = known[(xy[i, known] == xy[i, known[at]]).all(1)]
            for b in others:
                if near[a, b] > limit:
                    text = f"same as {names[a]}, elsewhere at least {near[a, b] * sizes[i]:.1f} px apart"
                    yield data.at(i, int(b), text, float(near[a, b]), limit)


def _largest(values: np.ndarray) -> np.ndarray:
    """(N,) largest number of each row; NaN where there is none."""
    filled = np.where(np.isfinite(values), values, -np.inf).max(1, initial=-np.inf)
    return np.where(np.isfinite(filled), filled, np.nan)
