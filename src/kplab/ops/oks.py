"""Object keypoint similarity (OKS), the similarity of COCO keypoint AP, and non-maximum suppression (NMS) by it."""

from __future__ import annotations

import numpy as np

_AT_ONCE = 2**17
"""Keypoints of pairs that are compared at once; bounds the memory."""


def oks(xy: np.ndarray, true_xy: np.ndarray, visible: np.ndarray, area: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """Object keypoint similarity of every prediction with every true instance.

    OKS = sum_k exp(-d_k**2 / (2 * area * (2*sigma_k)**2)) [v_k > 0] / sum_k [v_k > 0]

    Args:
        xy: (N, K, 2) predicted keypoints, pixels; a NaN point has similarity 0.
        true_xy: (M, K, 2) true keypoints, same frame.
        visible: (M, K) COCO visibility 0, 1 or 2; 0 is left out.
        area: (M,) segment area, pixels**2 (not the area of the box).
        sigmas: (K,) falloff per keypoint, dimensionless.

    Returns:
        (N, M) in [0, 1]; NaN where a true instance has no labelled keypoint.

    Source: COCO keypoint evaluation.

    >>> true = np.zeros((1, 1, 2))
    >>> oks(true + [[3.0, 4.0]], true, np.array([[2]]), np.array([100.0]), np.array([0.25])).round(4)
    array([[0.6065]])
    """
    shape = len(xy), len(true_xy)
    predicted, true = np.indices(shape).reshape(2, -1)
    return oks_of_pairs(xy, true_xy, visible, area, sigmas, predicted, true).reshape(shape)


def oks_of_pairs(
    xy: np.ndarray,
    true_xy: np.ndarray,
    visible: np.ndarray,
    area: np.ndarray,
    sigmas: np.ndarray,
    predicted: np.ndarray,
    true: np.ndarray,
    box: np.ndarray | None = None,
) -> np.ndarray:
    """Object keypoint similarity of some pairs of a prediction and a true instance, to the last bit as COCO computes it.

    A true instance without labelled keypoint is compared by its box, enlarged by its width and height on each side: all
    keypoints count, and their distances are those to the box, 0 inside.

    Args:
        xy: (N, K, 2) predicted keypoints, pixels; a NaN point has similarity 0.
        true_xy: (M, K, 2) true keypoints, same frame.
        visible: (M, K) COCO visibility 0, 1 or 2; 0 is left out.
        area: (M,) segment area, pixels**2.
        sigmas: (K,) falloff per keypoint, dimensionless.
        predicted: (P,) index of each pair's prediction.
        true: (P,) index of each pair's true instance.
        box: (M, 4) xyxy, same frame; None gives NaN for instances without labelled keypoint.

    Returns:
        (P,) in [0, 1].

    Source: COCO keypoint evaluation.
    """
    similarity = np.full(len(true), np.nan)
    step = max(1, _AT_ONCE // len(sigmas))
    for start in range(0, len(true), step):
        part = slice(start, start + step)
        similarity[part] = _oks(xy, true_xy, visible, area, sigmas, predicted[part], true[part], box)
    return similarity


def _oks(
    xy: np.ndarray,
    true_xy: np.ndarray,
    visible: np.ndarray,
    area: np.ndarray,
    sigmas: np.ndarray,
    predicted: np.ndarray,
    true: np.ndarray,
    box: np.ndarray | None,
) -> np.ndarray:
    """``oks_of_pairs``, all pairs at once."""
    offset = xy[predicted] - true_xy[true]
    counted = visible[true] > 0
    if box is not None:
        bare = ~counted.any(1)
        point, low, high = xy[predicted[bare]], box[true[bare], None, :2], box[true[bare], None, 2:]
        side = high - low
        offset[bare] = np.maximum(0, low - side - point) + np.maximum(0, point - (low + 2 * side))
        counted[bare] = True
    x, y = offset[..., 0], offset[..., 1]
    # COCO adds the spacing of 1, so that an exact prediction of a subject of area 0 has similarity 1 and not NaN
    exponent = (x**2 + y**2) / (2 * np.asarray(sigmas)) ** 2 / (area[true, None] + np.spacing(1)) / 2
    # of a number and NaN, fmax takes the number
    similarity = np.fmax(np.exp(-exponent), 0.0)
    mean = np.full(len(true), np.nan)
    counts = counted.sum(1)
    # zeros in place of unlabelled keypoints would change the order of additions, and so the last bit
    for n in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts == n)
        mean[rows] = similarity[rows][counted[rows]].reshape(-1, n).sum(1) / n
    return mean


def pose_similarity(
    xy: np.ndarray, area: np.ndarray, other_xy: np.ndarray, other_area: np.ndarray, sigmas: np.ndarray
) -> np.ndarray:
    """OKS of predictions with each other. The true area is unknown; the mean of the two predicted areas takes its place.

    OKS(i, j) = mean_k exp(-d_k**2 / (2 (area_i + area_j) / 2 * (2*sigma_k)**2)), over keypoints that both have

    Args:
        xy: (N, K, 2) pixels; NaN where not predicted.
        area: (N,) of each subject, pixels**2.
        other_xy: (K, 2) one prediction.
        other_area: area of that prediction.
        sigmas: (K,) falloff per keypoint, dimensionless.

    Returns:
        (N,) in [0, 1]; 0 where the two share no keypoint.

    Source: Papandreou et al., "Towards Accurate Multi-person Pose Estimation in the Wild", 2017; the mean area is mmpose's.
    """
    scale = 2 * (2 * np.asarray(sigmas)) ** 2
    squared = ((xy - other_xy) ** 2).sum(-1)
    both = np.isfinite(squared)
    mean_area = (area + other_area)[:, None] / 2 + np.spacing(1)
    similarity = np.where(both, np.exp(-np.where(both, squared, 0) / (scale * mean_area)), 0.0)
    values: np.ndarray = similarity.sum(1) / np.maximum(both.sum(1), 1)
    return values


def oks_nms(
    xy: np.ndarray,
    score: np.ndarray,
    area: np.ndarray,
    sigmas: np.ndarray,
    threshold: float,
    max_poses: int | None = None,
) -> np.ndarray:
    """Greedy NMS of poses by OKS, in one view. Unlike NMS of boxes, it keeps subjects whose boxes nearly coincide.

    Args:
        xy: (N, K, 2) pixels; NaN where not predicted.
        score: (N,).
        area: (N,) of each subject, pixels**2.
        sigmas: (K,) falloff per keypoint, dimensionless.
        threshold: OKS above which the lower-scoring of two poses is removed.
        max_poses: largest number of poses that are kept; None is no limit.

    Returns:
        (n,) int64 indices of the poses that are kept, by descending score; of equal scores the first comes first.
    """
    left = np.argsort(-score, kind="stable")
    kept: list[int] = []
    while len(left) and (max_poses is None or len(kept) < max_poses):
        best, left = left[0], left[1:]
        kept.append(int(best))
        left = left[pose_similarity(xy[left], area[left], xy[best], area[best], sigmas) <= threshold]
    return np.array(kept, dtype=np.int64)


def soft_oks_nms(
    xy: np.ndarray,
    score: np.ndarray,
    area: np.ndarray,
    sigmas: np.ndarray,
    threshold: float,
    max_poses: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Soft NMS: no pose is removed, but its score is multiplied by exp(-OKS**2 / threshold) for each higher-scoring pose.

    Args:
        xy, score, area, sigmas: see ``oks_nms``.
        threshold: the smaller, the more the scores are reduced.
        max_poses: largest number of poses that are kept; None is no limit.

    Returns:
        (n,) int64 indices by descending new score, and (n,) the new scores.

    Source: Bodla et al., "Soft-NMS", 2017, with OKS as in the evaluation of HRNet.
    """
    left, value = np.arange(len(score)), np.array(score, dtype=np.float64)
    kept: list[int] = []
    while len(left) and (max_poses is None or len(kept) < max_poses):
        at = int(np.argmax(value[left]))
        best, left = left[at], np.delete(left, at)
        kept.append(int(best))
        value[left] *= np.exp(-(pose_similarity(xy[left], area[left], xy[best], area[best], sigmas) ** 2) / threshold)
    order = np.array(kept, dtype=np.int64)
    return order, value[order]


def rescored(score: np.ndarray, keypoint_score: np.ndarray, threshold: float) -> np.ndarray:
    """Score of an instance times the mean score of its keypoints above a threshold; 0 where no keypoint is above it.

    Args:
        score: (N,) of the instances.
        keypoint_score: (N, K).
        threshold: 0.2 is common.

    Returns:
        (N,).

    Source: Xiao et al., "Simple Baselines for Human Pose Estimation and Tracking", 2018, and its code.
    """
    above = keypoint_score > threshold
    scores: np.ndarray = score * (keypoint_score * above).sum(1) / np.maximum(above.sum(1), 1)
    return scores
