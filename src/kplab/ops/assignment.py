"""Which anchor learns which instance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
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


def assigned_anchors(
    boxes: Tensor, anchors: Tensor, reach: Tensor, least_side: float, most: int
) -> tuple[Tensor, Tensor]:
    """Which anchors a perfect network lets speak, and for whom.

    Each instance has one anchor at least if there are as many, the one that suits all best; the others speak for whom
    they suit best. An anchor suits an instance if it lies in its box, can reach the box's sides, and is near its centre.

    Args:
        boxes: (M, 4) xyxy, pixels.
        anchors: (A, 2) pixels.
        reach: (A,) longest distance to a side of a box that the anchor can say, pixels.
        least_side: as of ``task_aligned``.
        most: anchors of one instance.

    Returns:
        (n,) anchors and (n,) instances.
    """
    if not len(boxes):
        nobody = torch.zeros(0, dtype=torch.long, device=anchors.device)
        return nobody, nobody
    away = anchors - (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    half = (boxes[:, None, 2:] - boxes[:, None, :2]) / 2
    outside = (away.abs() >= half.clamp_min(least_side / 2)).any(-1)
    # sides are neither behind the anchor nor out of its reach
    mute = (away.abs() > half).any(-1) | ((away.abs() + half).amax(-1) > reach)
    # pixels; being unable to say the box weighs more than any distance, and being outside more than that
    cost = (away.norm(dim=-1) + 1e5 * mute + 1e7 * outside).double().cpu().numpy()
    owner = np.where(outside.cpu().numpy().all(0), -1, cost.argmin(0))
    rows, columns = linear_sum_assignment(cost)
    owner[columns] = rows
    own = np.full_like(cost, np.inf)
    own[rows, columns] = -1.0
    mine = owner == np.arange(len(boxes))[:, None]
    # who can't say the box would say another one
    own = np.where(mine & np.isinf(own) & (cost < 1e5), cost, own)
    nearest = np.argsort(own, axis=1, kind="stable")[:, :most]
    said = np.isfinite(np.take_along_axis(own, nearest, axis=1))
    instance = np.broadcast_to(np.arange(len(boxes))[:, None], nearest.shape)[said]
    where = anchors.device
    return torch.from_numpy(nearest[said]).to(where), torch.from_numpy(instance.copy()).to(where)
