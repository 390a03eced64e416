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
    precision, recall = np.zeros((len(matches.hit[area]), len(RECALLS))), np.zeros(len(matches.hit[area]))
    for t, (hit, false) in enumerate(zip(matches.hit[area], matches.false[area], strict=True)):
        # recall grows at hits only, and between two of them precision falls
        rows = np.flatnonzero(hit)
        hits, falses = np.cumsum(each[rows]), np.cumsum(false * each)[rows]
        best_from_here = np.maximum.accumulate((hits / (falses + hits + np.spacing(1)))[::-1])[::-1]
        # the last zero is the precision at recalls that are never reached
        precision[t] = np.append(best_from_here, 0.0)[np.searchsorted(hits / positives, RECALLS, side="left")]
        recall[t] = hits[-1] / positives if len(rows) else 0.0
    return precision, recall
