"""Non-maximum suppression: of predictions that say the same thing, the surest stays."""

from __future__ import annotations

import numpy as np
import torchvision
from torch import Tensor


def box_nms(boxes: Tensor, score: Tensor, threshold: float) -> Tensor:
    """Hard suppression by the overlap of boxes, in one view.

    Args:
        boxes: (N, 4) xyxy, pixels.
        score: (N,).
        threshold: IoU above which the less sure of two goes.

    Returns:
        (n,) int64 indices that stay, by falling score.
    """
    return torchvision.ops.nms(boxes, score, threshold)


def oks_nms(
    xy: np.ndarray, score: np.ndarray, area: np.ndarray, sigmas: np.ndarray, threshold: float, most: int | None = None
) -> np.ndarray:
    """Hard suppression by the similarity of keypoints, in one view: it keeps apart subjects whose boxes nearly coincide.

    OKS(i, j) = mean_k exp(-d_k**2 / (2 (area_i + area_j) / 2 * (2*sigma_k)**2)), over keypoints that both found

    Args:
        xy: (N, K, 2) pixels; NaN where not found.
        score: (N,).
        area: (N,) of each subject, pixels**2.
        sigmas: (K,) falloff per keypoint, dimensionless.
        threshold: OKS above which the less sure of two goes.
        most: stop at so many; None is no limit.

    Returns:
        (n,) int64 indices that stay, by falling score; of equal scores the first.

    Source: Papandreou et al., "Towards Accurate Multi-person Pose Estimation in the Wild", 2017; the mean area is mmpose's.
    """
    left = np.argsort(-score, kind="stable")
    scale = 2 * (2 * np.asarray(sigmas)) ** 2
    kept: list[int] = []
    while len(left) and (most is None or len(kept) < most):
        best, left = left[0], left[1:]
        kept.append(int(best))
        squared = ((xy[left] - xy[best]) ** 2).sum(-1)
        both = np.isfinite(squared)
        mean_area = (area[left] + area[best])[:, None] / 2 + np.spacing(1)
        similarity = np.where(both, np.exp(-np.where(both, squared, 0) / (scale * mean_area)), 0.0)
        left = left[similarity.sum(1) / np.maximum(both.sum(1), 1) <= threshold]
    return np.array(kept, dtype=np.int64)
