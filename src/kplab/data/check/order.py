"""The order of a subject's keypoints: whether its points fit other subjects better under exchanged names."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from kplab.data.check.shape import Shape, energy, log_distances

ROUNDS = 6
"""Most assignments from one start."""

EXCHANGED = 40
"""Subjects of more labelled keypoints are not improved by single exchanges, which take time of the fifth power."""


def best_order(xy: np.ndarray, shape: Shape) -> tuple[np.ndarray, float]:
    """The order of points that fits the distances of other subjects best, among those found from a few starts.

    Point order[k] belongs to keypoint k. The size of the subject is taken from all distances, so that it does not depend on
    the order. From the order as it is, its reverse, and shifts by up to two, each name is assigned a point again and again,
    by the Hungarian method, with the other points as they were assigned before. Then the two names whose exchange fits best
    are exchanged, as long as one fits better.

    Args:
        xy: (K, 2) keypoints of one subject, NaN where unlabelled; these stay in place.
        shape: of the dataset.

    Returns:
        (K,) order, and the ``energy`` of the subject in this order.
    """
    known = np.flatnonzero(np.isfinite(xy).all(-1))
    logs = log_distances(xy[None])[0][np.ix_(known, known)]
    median = shape.median[np.ix_(known, known)]
    low, high = shape.low[np.ix_(known, known)], shape.high[np.ix_(known, known)]
    relative = logs - np.nanmean(logs) + np.nanmean(median)
    n = len(known)
    identity = np.arange(n)
    starts = [identity, identity[::-1], *(np.roll(identity, s) for s in (1, -1, 2, -2))]
    best, lowest = identity, _energy(xy, shape, known, identity)
    for start in starts:
        order = start
        for _ in range(ROUNDS):
            found = _energy(xy, shape, known, order)
            if found < lowest:
                best, lowest = order, found
            # cost[k, a]: names in rows, points in columns, summed over the other names j at the points order[j]
            r = relative[:, order][None] - median[:, None]  # (k, a, j)
            z = np.abs(r) / np.where(r < 0, low[:, None], high[:, None])
            again = linear_sum_assignment(np.nan_to_num(np.minimum(z, 5)).sum(2))[1]
            if (again == order).all():
                break
            order = again
    if n <= EXCHANGED:
        best, lowest = _exchanges(xy, shape, known, best, lowest)
    whole = np.arange(len(xy))
    whole[known] = known[best]
    return whole, lowest


def _exchanges(
    xy: np.ndarray, shape: Shape, known: np.ndarray, order: np.ndarray, lowest: float
) -> tuple[np.ndarray, float]:
    """The order after the best single exchanges, and its energy."""
    first, second = np.triu_indices(len(order), 1)
    for _ in range(len(order)):
        orders = np.repeat(order[None], len(first), axis=0)
        rows = np.arange(len(first))
        orders[rows, first], orders[rows, second] = order[second], order[first]
        ordered = np.repeat(xy[None], len(first), axis=0)
        ordered[:, known] = xy[known[orders]]
        values = energy(shape.deviations(ordered))
        if not len(values) or not values.min() < lowest:
            break
        order, lowest = orders[values.argmin()], float(values.min())
    return order, lowest


def _energy(xy: np.ndarray, shape: Shape, known: np.ndarray, order: np.ndarray) -> float:
    ordered = xy.copy()
    ordered[known] = xy[known[order]]
    return float(energy(shape.deviations(ordered[None]))[0])
