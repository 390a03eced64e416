"""Object keypoint similarity, the measure under COCO keypoint AP and OKS-NMS."""

from __future__ import annotations

import numpy as np


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
    labelled = visible > 0
    # COCO adds the spacing of 1, so that a subject of area 0 met exactly has similarity 1 and not NaN
    scale = 2 * (area[:, None] + np.spacing(1)) * (2 * np.asarray(sigmas)) ** 2
    true_xy = np.where(labelled[..., None], true_xy, 0.0)
    squared = ((xy[:, None] - true_xy[None]) ** 2).sum(-1)
    similarity = np.where(np.isfinite(squared), np.exp(-squared / scale), 0.0)
    count = labelled.sum(1)
    total = (similarity * labelled).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
