"""Labels that a model contradicts with confidence; the model has not been trained on these images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kplab.data.check.checked import Checked
from kplab.data.check.finding import Finding, rule
from kplab.data.check.matching import CONFIDENT
from kplab.data.check.rules.identity import ODDS
from kplab.data.check.tails import upper_limit

LEAST_ERROR = 0.1
"""Sizes of the subject; smaller distances between label and prediction are never reported."""


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
    m, p = data.matched, data.labels.poses
    sizes = data.of_instances(data.dataset.sizes)
    error = np.linalg.norm(m.xy - p.xy, axis=-1) / sizes[:, None]
    exchanged = _exchanged(data)
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
    odds = data.predicted_odds
    for i in np.flatnonzero(_exchanged(data)):
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
    for image, score in data.matched.spare:
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
    for i in np.flatnonzero(data.counted & asked & ~data.matched.found):
        yield data.at(i)


def _exchanged(data: Checked) -> np.ndarray:
    """(N,) bool: by the odds; where they are unknown, the prediction is half as far from the exchanged label, or less."""
    m, odds = data.matched, data.predicted_odds
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
