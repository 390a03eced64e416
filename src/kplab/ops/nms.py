"""Non-maximum suppression of boxes: of predictions that overlap, the surest stays. That of poses is in ``ops.oks``."""

from __future__ import annotations

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
