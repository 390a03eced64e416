"""Non-maximum suppression (NMS) of boxes. NMS of poses is in ``ops.oks``."""

from __future__ import annotations

import torchvision
from torch import Tensor


def box_nms(boxes: Tensor, score: Tensor, threshold: float) -> Tensor:
    """Greedy NMS of boxes by IoU, in one view.

    Args:
        boxes: (N, 4) xyxy, pixels.
        score: (N,).
        threshold: IoU above which the lower-scoring of two boxes is removed.

    Returns:
        (n,) int64 indices of the boxes that are kept, by descending score.
    """
    kept: Tensor = torchvision.ops.nms(boxes, score, threshold)
    return kept
