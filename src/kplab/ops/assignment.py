"""Which anchor learns which instance."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kplab.ops.boxes import complete_iou


class Assignment(NamedTuple):
    """What each of A anchors of B views has to learn.

    Attributes:
        instance: (B, A) int64 index of the true instance; -1 for none.
        score: (B, A) in [0, 1] that the anchor ought to give; 0 for none.
    """

    instance: Tensor
    score: Tensor


@torch.no_grad()
def task_aligned(
    score: Tensor,
    boxes: Tensor,
    anchors: Tensor,
    true_boxes: Tensor,
    exists: Tensor,
    top_k: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
    least_side: float = 0.0,
) -> Assignment:
    """Task-aligned assignment: an instance takes the anchors that both find it and box it best.

    t = score**alpha * max(CIoU, 0)**beta

    Each instance takes the ``top_k`` anchors of largest t among those strictly inside its box. An anchor that several
    take goes to the one it boxes best, the first of equals. An anchor's own score ought to be t / max t * max CIoU, both
    maxima over the instance's anchors.

    Args:
        score: (B, A) predicted, in [0, 1].
        boxes: (B, A, 4) predicted, xyxy, view pixels.
        anchors: (A, 2) view pixels.
        true_boxes: (B, M, 4) xyxy, view pixels.
        exists: (B, M) bool; rows that are not padding.
        least_side: sides of a true box below it count as so long when anchors inside are looked for, pixels.

    Source: Feng et al., "TOOD: Task-aligned One-stage Object Detection", 2021, with the constants of YOLOv8.
    """
    views, count = score.shape
    if not true_boxes.shape[1]:
        return Assignment(score.new_full((views, count), -1, dtype=torch.long), torch.zeros_like(score))
    centre, side = (true_boxes[..., :2] + true_boxes[..., 2:]) / 2, true_boxes[..., 2:] - true_boxes[..., :2]
    reach = side.clamp_min(least_side) / 2
    inside = ((anchors - centre[:, :, None]).abs() < reach[:, :, None]).all(-1) & exists[..., None]
    overlap = complete_iou(boxes[:, None], true_boxes[:, :, None]).clamp_min(0) * inside
    aligned = score[:, None] ** alpha * overlap**beta
    # anchors outside come last, so that an instance which no anchor boxes yet still takes those inside
    ranked = torch.where(inside, aligned, -1.0)
    best = ranked.topk(min(top_k, count), dim=-1).indices
    taken = torch.zeros_like(inside).scatter_(-1, best, True) & inside
    winner = torch.where(taken, overlap, -1.0).argmax(1)
    mine = taken & (winner[:, None] == torch.arange(taken.shape[1], device=taken.device)[:, None])
    positive = mine.any(1)
    aligned, overlap = aligned * mine, overlap * mine
    wanted = aligned * overlap.amax(-1, keepdim=True) / (aligned.amax(-1, keepdim=True) + 1e-9)
    return Assignment(torch.where(positive, winner, -1), wanted.amax(1))
