"""COCO's AP and AR from matches, for any multiset of images.

Vectorised, because a bootstrap needs it thousands of times; tests hold it against pycocotools' own figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AREAS = ("all", "medium", "large")
RECALLS = np.linspace(0.0, 1.0, 101)
_STATS = (("", slice(None)), ("50", slice(0, 1)), ("75", slice(5, 6)))


@dataclass
class Matches:
    """Matches of COCOeval by image; detections are in descending order of score, as AP needs them.

    Args:
        image_id: (I,) int64, ascending.
        image: (D,) int64 index into image_id of every detection.
        score: (D,) float64, descending; ties in order of image.
        hit: (3, 10, D) bool by area class (``AREAS``) and OKS threshold .50 .. .95: matched a true instance.
        false: (3, 10, D) bool: a false positive: no match, and not ignored for a crowd, an unlabelled
            subject or its size.
        positives: (3, I) int64: true instances to be found.
    """

    image_id: np.ndarray
    image: np.ndarray
    score: np.ndarray
    hit: np.ndarray
    false: np.ndarray
    positives: np.ndarray


def accumulate(matches: Matches, images: np.ndarray | None = None) -> dict[str, float]:
    """Compute COCO's ten figures over any multiset of images.

    Copies of a detection have the same rank. This equals COCOeval on a dataset with copied images, except for the order
    of detections of equal score within one image, which is arbitrary in both.

    Args:
        matches: from ``coco_ap``.
        images: (any,) indices into ``matches.image_id``, repeats allowed; None = every image once.

    Returns:
        AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl; -1 where there is nothing to find.
    """
    count = len(matches.image_id)
    weight = np.ones(count, dtype=np.int64) if images is None else np.bincount(images, minlength=count)
    return weighted_stats(matches, weight)


def weighted_stats(matches: Matches, weight: np.ndarray) -> dict[str, float]:
    """COCO's ten figures when image i counts ``weight[i]`` times, see ``accumulate``."""
    curves = {area: _curve(matches, i, weight) for i, area in enumerate(AREAS)}

    def mean(area: str, which: int, thresholds: slice) -> float:
        curve = curves[area]
        return -1.0 if curve is None else float(np.mean(curve[which][thresholds]))

    stats: dict[str, float] = {}
    for which, name in enumerate(("AP", "AR")):
        stats |= {name + suffix: mean("all", which, thresholds) for suffix, thresholds in _STATS}
        stats |= {name + area[0]: mean(area, which, slice(None)) for area in AREAS[1:]}
    return stats


def average_precision(matches: Matches, weight: np.ndarray) -> float:
    """AP alone, over all sizes, when image i counts ``weight[i]`` times; NaN where there is nothing to find."""
    curve = _curve(matches, 0, weight)
    return float("nan") if curve is None else float(np.mean(curve[0]))


def precision_curves(matches: Matches) -> np.ndarray | None:
    """(10, 101) precision at ``RECALLS`` by OKS threshold .50 .. .95, all sizes; None where there is nothing to find."""
    curve = _curve(matches, 0, np.ones(len(matches.image_id), dtype=np.int64))
    return None if curve is None else curve[0]


def _curve(matches: Matches, area: int, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Precision (10, 101) at the 101 recalls and final recall (10,), by OKS threshold; None without positives."""
    positives = int(weight @ matches.positives[area])
    if positives == 0:
        return None
    each = weight[matches.image].astype(np.float64)
    hits = np.cumsum(matches.hit[area] * each, axis=1)
    falses = np.cumsum(matches.false[area] * each, axis=1)
    if hits.shape[1] == 0:
        return np.zeros((len(hits), len(RECALLS))), np.zeros(len(hits))
    precision = hits / (falses + hits + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # the column of zeros is the precision at recalls that are never reached
    precision = np.concatenate([precision, np.zeros((len(precision), 1))], axis=1)
    recall = hits / positives
    sampled = [p[np.searchsorted(r, RECALLS, side="left")] for p, r in zip(precision, recall, strict=True)]
    return np.array(sampled), recall[:, -1]
