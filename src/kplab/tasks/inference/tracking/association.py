"""Which pose of a frame continues which track: similarity by keypoints and boxes, and the best assignment."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment


def keypoint_similarity(
    xy: np.ndarray, variance: np.ndarray, other_xy: np.ndarray, area: np.ndarray, sigmas: np.ndarray
) -> np.ndarray:
    """OKS of poses with predicted poses, with falloffs that include the uncertainty of the prediction.

    mean_k exp(-d_k**2 / (2 * (area * (2*sigma_k)**2 + variance_k))), over keypoints that both have

    Without uncertainty it is OKS. A track that was not seen for a while is compared with wider falloffs.

    Args:
        xy: (T, K, 2) predicted keypoints of tracks, pixels; NaN where unknown.
        variance: (T, K) variance of each coordinate of these, pixels**2.
        other_xy: (N, K, 2) keypoints of poses, same frame; NaN where not found.
        area: (T, N) of the subject, pixels**2.
        sigmas: (K,) falloff per keypoint, dimensionless.

    Returns:
        (T, N) in [0, 1]; 0 where the two share no keypoint.
    """
    squared = ((xy[:, None] - other_xy[None]) ** 2).sum(-1)
    both = np.isfinite(squared)
    scale = 2 * (area[..., None] * (2 * sigmas) ** 2 + variance[:, None])
    similarity = np.where(both, np.exp(-np.where(both, squared, 0.0) / scale), 0.0)
    values: np.ndarray = similarity.sum(-1) / np.maximum(both.sum(-1), 1)
    return values


def assign(similarity: np.ndarray, least: float) -> list[tuple[int, int]]:
    """The pairs of largest total similarity (Hungarian method), of those with at least ``least``; by ascending row.

    Args:
        similarity: (T, N).
    """
    allowed = np.where(similarity >= least, similarity, 0.0)
    rows, columns = linear_sum_assignment(allowed, maximize=True)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if similarity[r, c] >= least]
