"""Sigmas of OKS: estimated from repeated annotation, and AP under several of them.

The sigma of keypoint k is the standard deviation of annotators' positions over the scale s of the subject,

    sigma_k**2 = E[d_k**2 / s**2],    s**2 = area,

with d the distance (of both coordinates) between an annotation and the true position. The truth is not known; with R
annotations of an instance, sum_r |x_r - mean|**2 / (R - 1) is an unbiased estimate of E[d**2].

Source: COCO keypoint evaluation, section on tuning OKS, for the definition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import gamma

from kplab.errors import ScoreError
from kplab.metrics.coco_ap import coco_ap
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions

#: Instances of two annotators are of one subject if the mean distance of their keypoints is at most this times the scale.
MATCHED = 0.5
RESAMPLES = 500


@dataclass(frozen=True)
class SigmaEstimate:
    """Sigmas from repeated annotation.

    Args:
        sigmas: (K,) estimates; NaN where no instance has the keypoint twice.
        low: (K,) lower end of the 95 % interval, by bootstrap over instances.
        high: (K,) upper end.
        robust: (K,) estimates by the median instead of the mean, for Gaussian deviations: far below ``sigmas`` where few
            large mistakes, such as exchanged sides, make most of the deviation.
        number: (K,) instances in which the keypoint is annotated twice or more.
    """

    sigmas: np.ndarray
    low: np.ndarray
    high: np.ndarray
    robust: np.ndarray
    number: np.ndarray


def estimate_sigmas(xy: np.ndarray, area: np.ndarray, seed: int = 0) -> SigmaEstimate:
    """Estimate sigmas from repeated annotation.

    Args:
        xy: (R, N, K, 2) positions by R annotators of N instances, pixels; NaN where one has not labelled a keypoint.
        area: (N,) of the instances, pixels**2.
        seed: of the bootstrap.

    Raises:
        ScoreError: there are fewer than two annotators, or no keypoint is annotated twice.
    """
    present = np.isfinite(xy).all(-1)
    repeats = present.sum(0)
    usable = (repeats >= 2) & (area > 0)[:, None]
    if len(xy) < 2 or not usable.any():
        raise ScoreError(
            f"{len(xy)} annotations of {len(area)} instances have no keypoint in common. Sigmas are estimated from the same "
            "instances annotated twice or more."
        )
    safe = np.where(present[..., None], xy, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = safe.sum(0) / repeats[..., None]
        squared = np.where(present, ((safe - mean) ** 2).sum(-1), 0.0).sum(0) / (repeats - 1)
        value = np.where(usable, squared / area[:, None], np.nan)
        # (R - 1) * value / sigma**2 has the Gamma distribution of shape R - 1
        middle = gamma.ppf(0.5, np.maximum(repeats - 1, 1)) / np.maximum(repeats - 1, 1)
        robust = np.sqrt(_of_columns(np.nanmedian, np.where(usable, value / middle, np.nan)))
    rng = np.random.default_rng(seed)
    weight = rng.multinomial(len(area), np.full(len(area), 1 / len(area)), RESAMPLES).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = np.sqrt(weight @ np.nan_to_num(value) / (weight @ usable))
    low, high = (_of_columns(lambda c, q=q: np.nanquantile(c, q), drawn) for q in (0.025, 0.975))
    sigmas = np.sqrt(_of_columns(np.nanmean, value))
    return SigmaEstimate(sigmas, low, high, robust, usable.sum(0))


def _of_columns(function: object, values: np.ndarray) -> np.ndarray:
    """A statistic of the numbers of each column; NaN where there are none."""
    assert callable(function)
    return np.array([function(c) if np.isfinite(c).any() else np.nan for c in values.T])


def paired(annotations: Sequence[Labels]) -> tuple[np.ndarray, np.ndarray, int]:
    """The instances that several annotators have labelled, side by side.

    Images are matched by name, and instances in an image by the least mean distance of the keypoints that both have, up to
    ``MATCHED`` times the scale; the first annotator's areas are the scales.

    Args:
        annotations: of the same images, of one skeleton.

    Returns:
        (R, N, K, 2) positions, NaN where not labelled; (N,) areas; number of the first annotator's instances without a
        counterpart in any other annotation.

    Raises:
        ScoreError: the skeletons differ, or no image is common.
    """
    first, *others = annotations
    if any(other.skeleton.keypoints != first.skeleton.keypoints for other in others):
        raise ScoreError("the annotations have different skeletons. Give all of them one skeleton, with rename.")
    index = [{str(name): i for i, name in enumerate(labels.names)} for labels in others]
    if not any(str(name) in known for known in index for name in first.names):
        raise ScoreError(
            f"no image of {first.source} occurs in the other annotations, by its name. Give paths relative to one folder."
        )
    rows, areas, alone = [], [], 0
    for i, name in enumerate(first.names):
        poses = first.poses_of(i)
        poses = poses[poses.labelled.any(1) & ~poses.ignore]
        found = np.full((len(annotations), *poses.xy.shape), np.nan)
        found[0] = poses.xy
        for r, (labels, known) in enumerate(zip(others, index, strict=True), 1):
            if str(name) in known:
                other = labels.poses_of(known[str(name)])
                for a, b in _matched(poses, other):
                    found[r, a] = other.xy[b]
        twice = np.isfinite(found[1:]).any((0, 2, 3))
        alone += int((~twice).sum())
        rows.append(found[:, twice])
        areas.append(poses.area[twice])
    return np.concatenate(rows, axis=1), np.concatenate(areas), alone


def _matched(one: Poses, other: Poses) -> list[tuple[int, int]]:
    """Pairs of instances of one subject."""
    if not len(one) or not len(other):
        return []
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.linalg.norm(one.xy[:, None] - other.xy[None], axis=-1)
        both = np.isfinite(distance)
        cost = np.where(both, distance, 0).sum(-1) / both.sum(-1) / np.sqrt(one.area)[:, None]
    cost = np.where(np.isfinite(cost) & ~other.ignore[None], cost, 1e9)
    return [(int(a), int(b)) for a, b in zip(*linear_sum_assignment(cost), strict=True) if cost[a, b] <= MATCHED]


def ap_by_sigmas(labels: Labels, predictions: Predictions, sigmas: Mapping[str, np.ndarray]) -> list[dict[str, object]]:
    """COCO's AP under several sigmas: how much a score depends on them where they were not measured.

    Args:
        labels: the truth.
        predictions: of its images.
        sigmas: name to (K,) sigmas.

    Returns:
        A row of each: name, mean sigma, AP, AP50, AP75, AR.

    Raises:
        ScoreError: predictions of other images.
    """
    truth, crowd = labels.by_image(), labels.crowd_by_image()
    rows: list[dict[str, object]] = []
    for name, values in sigmas.items():
        stats = coco_ap(truth, predictions, values, crowd=crowd).stats
        rows.append(
            {"sigmas": name, "mean": float(np.mean(values)), **{m: stats[m] for m in ("AP", "AP50", "AP75", "AR")}}
        )
    return rows


def usual_sigmas(own: Sequence[float]) -> dict[str, np.ndarray]:
    """The sets of sigmas of an audit: the skeleton's own, halved and doubled, their mean, and uniform ones.

    >>> list(usual_sigmas([0.1, 0.3]))
    ['own', 'own / 2', 'own x 2', 'mean of own', 'uniform 0.025', 'uniform 0.05', 'uniform 0.1']
    """
    values = np.asarray(own, dtype=np.float64)
    return {
        "own": values,
        "own / 2": values / 2,
        "own x 2": values * 2,
        "mean of own": np.full(len(values), values.mean()),
        **{f"uniform {s:g}": np.full(len(values), s) for s in (0.025, 0.05, 0.1)},
    }
