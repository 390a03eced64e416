"""Labels that a model contradicts with confidence; the model has not been trained on these images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from kplab.data.check.checked import Checked
from kplab.data.check.chirality import log_odds, mirror_pairs, prediction_features
from kplab.data.check.finding import Finding, rule
from kplab.data.check.rules.identity import ODDS
from kplab.data.check.tails import upper_limit
from kplab.structures.poses import Poses

LEAST_ERROR = 0.1
"""Sizes of the subject; smaller distances between label and prediction are never reported."""

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


@rule(
    "warning",
    "keypoints that the model contradicts",
    "a confident prediction is far from the label",
    "Look at both: the model was not trained on this image.",
)
def model_contradicts(data: Checked) -> Iterator[Finding]:
    """A confident prediction of a keypoint is far from its label."""
    if not data.predictions:
        return
    m, p = matched(data), data.labels.poses
    sizes = data.of_instances(data.dataset.sizes)
    error = np.linalg.norm(m.xy - p.xy, axis=-1) / sizes[:, None]
    exchanged = _exchanged(data, m, _odds(data, m))
    known = np.isfinite(m.score) & np.isfinite(error)
    usual = np.median(m.score[known]) if known.any() else np.inf
    confident = np.where(known & (m.score >= usual), error, np.nan)
    limit = max(LEAST_ERROR, upper_limit(confident.ravel()))
    for i in np.flatnonzero((np.nan_to_num(confident) > limit).any(1) & ~exchanged):
        k = int(np.nanargmax(confident[i]))
        text = f"predicted {error[i, k] * sizes[i]:.1f} px away, score {m.score[i, k]:.2f}"
        yield data.at(i, k, text, float(error[i, k]), limit)


@rule(
    "warning",
    "subjects with left and right exchanged, by the model",
    "the prediction fits the label better with left and right exchanged",
    "Look at both: left is the subject's own left.",
)
def model_left_right(data: Checked) -> Iterator[Finding]:
    """The prediction fits the label with left and right exchanged."""
    if not data.predictions:
        return
    m = matched(data)
    odds = _odds(data, m)
    for i in np.flatnonzero(_exchanged(data, m, odds)):
        text = f"log odds {-odds[i]:.1f}" if np.isfinite(odds[i]) else "the exchanged label is half as far or less"
        yield data.at(i, None, text, float(-odds[i]), ODDS)


@rule(
    "warning",
    "images with a subject that may be unlabelled",
    f"a prediction of score {CONFIDENT:g} or more belongs to no label",
    "Look whether a subject is not labelled.",
)
def model_finds_more(data: Checked) -> Iterator[Finding]:
    """A confident prediction belongs to no label of its image."""
    if not data.predictions:
        return
    for image, score in matched(data).spare:
        yield Finding(image, text=f"score {score:.2f}", value=score, expected=CONFIDENT)


@rule(
    "info",
    "subjects that the model does not find",
    "no prediction is near the label",
    "Look whether the label is right, or the subject is difficult.",
)
def model_misses(data: Checked) -> Iterator[Finding]:
    """No prediction is near a label."""
    if not data.predictions:
        return
    asked = np.isin(data.labels.image_id[data.image_of], list(data.predictions))
    for i in np.flatnonzero(data.counted & asked & ~matched(data).found):
        yield data.at(i)


def _odds(data: Checked, m: Matched) -> np.ndarray:
    """(N,) log odds that left and right are correct rather than exchanged, by the predictions; NaN where unknown."""
    p, flip = data.labels.poses, data.labels.skeleton.flip
    out = np.full(len(p), np.nan)
    rows = np.flatnonzero(data.counted & m.found)
    if len(mirror_pairs(flip)) and len(rows):
        sizes = data.of_instances(data.dataset.sizes)[rows]
        xy = np.where(p.labelled[rows][..., None], p.xy[rows], np.nan)
        out[rows] = log_odds(prediction_features(xy, m.xy[rows], m.score[rows], sizes, flip))
    return out


def _exchanged(data: Checked, m: Matched, odds: np.ndarray) -> np.ndarray:
    """(N,) bool: by the odds; where they are unknown, the prediction is half as far from the exchanged label, or less."""
    p, flip = data.labels.poses, data.labels.skeleton.flip_array
    sided = flip != np.arange(len(flip))
    as_is = _mean(np.linalg.norm(m.xy - p.xy, axis=-1)[:, sided])
    exchanged = _mean(np.linalg.norm(m.xy - p.xy[:, flip], axis=-1)[:, sided])
    sizes = data.of_instances(data.dataset.sizes)
    with np.errstate(invalid="ignore"):
        far = (exchanged < 0.5 * as_is) & (as_is > LEAST_ERROR * sizes)
        return np.where(np.isfinite(odds), odds < -ODDS, far)


def _mean(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    return np.where(known.sum(1) >= 2, np.where(known, values, 0).sum(1) / np.maximum(known.sum(1), 1), np.nan)


def _cost(true: Poses, predicted: Poses) -> np.ndarray:
    """(M, N) mean distance of keypoints, pixels; infinity without a common one."""
    both = true.labelled[:, None] & predicted.labelled[None]
    distance = np.linalg.norm(true.xy[:, None] - predicted.xy[None], axis=-1)
    total = np.where(both, distance, 0.0).sum(-1)
    return np.where(both.any(-1), total / np.maximum(both.sum(-1), 1), np.inf)
