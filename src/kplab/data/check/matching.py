"""Predictions beside the labels that they belong to, and what they say of left and right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from kplab.data.check.chirality import log_odds, mirror_pairs, prediction_features
from kplab.structures.poses import Poses

if TYPE_CHECKING:
    from kplab.data.check.checked import Checked

MATCHED = 0.5
"""Sizes of the subject: mean distance below which a prediction belongs to a label, with or without its sides exchanged."""

CONFIDENT = 0.5
"""Score from which on a prediction without a label is reported."""


@dataclass
class Matched:
    """Predictions beside labels, in the order of the instances.

    Args:
        xy: (N, K, 2) predicted keypoints; NaN without a prediction.
        score: (N, K) of the predicted keypoints.
        found: (N,) bool: the instance has a prediction.
        spare: (image, score) of confident predictions without a label.
    """

    xy: np.ndarray
    score: np.ndarray
    found: np.ndarray
    spare: list[tuple[int, float]]


def matched(data: Checked) -> Matched:
    """Assign predictions to labels by the Hungarian method on the mean distance of keypoints, relative to the size."""
    p, flip = data.labels.poses, data.labels.skeleton.flip_array
    sizes = data.of_instances(data.dataset.sizes)
    out = Matched(np.full(p.xy.shape, np.nan), np.full(p.visible.shape, np.nan), np.zeros(len(p), dtype=bool), [])
    for image, image_id in enumerate(data.labels.image_id):
        predicted = data.predictions.get(int(image_id))
        rows = np.arange(data.labels.start[image], data.labels.start[image + 1])
        if predicted is None:
            continue
        counted = rows[data.counted[rows]]
        cost = np.minimum(_cost(p[counted], predicted), _cost(p[counted].permute_keypoints(flip), predicted))
        cost /= np.maximum(np.nan_to_num(sizes[counted], nan=1.0), 1.0)[:, None]
        pairs = list(zip(*linear_sum_assignment(np.minimum(cost, 10)), strict=True)) if cost.size else []
        used = set()
        for a, b in pairs:
            if cost[a, b] < MATCHED:
                out.xy[counted[a]], out.score[counted[a]] = predicted.xy[b], predicted.keypoint_score[b]
                out.found[counted[a]] = True
                used.add(int(b))
        if not p.ignore[rows].any():  # a prediction in a crowd may be right
            out.spare += [(image, float(s)) for b, s in enumerate(predicted.score) if b not in used and s >= CONFIDENT]
    return out


def sided_odds(data: Checked, m: Matched) -> np.ndarray:
    """(N,) log odds that left and right are correct rather than exchanged, by the predictions; NaN where unknown."""
    p, flip = data.labels.poses, data.labels.skeleton.flip
    out = np.full(len(p), np.nan)
    rows = np.flatnonzero(data.counted & m.found)
    if len(mirror_pairs(flip)) and len(rows):
        sizes = data.of_instances(data.dataset.sizes)[rows]
        xy = np.where(p.labelled[rows][..., None], p.xy[rows], np.nan)
        out[rows] = log_odds(prediction_features(xy, m.xy[rows], m.score[rows], sizes, flip))
    return out


def _cost(true: Poses, predicted: Poses) -> np.ndarray:
    """(M, N) mean distance of keypoints, pixels; infinity without a common one."""
    both = true.labelled[:, None] & predicted.labelled[None]
    distance = np.linalg.norm(true.xy[:, None] - predicted.xy[None], axis=-1)
    total = np.where(both, distance, 0.0).sum(-1)
    return np.where(both.any(-1), total / np.maximum(both.sum(-1), 1), np.inf)
