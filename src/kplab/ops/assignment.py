"""Assignment of true instances to anchors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from kplab.ops.boxes import complete_iou


class Assignment(NamedTuple):
    """The training targets of each of A anchors of B views.

    Attributes:
        instance: (B, A) int64 index of the true instance; -1 for none.
        score: (B, A) target score in [0, 1]; 0 for none.
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
    """Task-aligned assignment: each instance gets the anchors with the best joint score and box.

    t = score**alpha * max(CIoU, 0)**beta

    Each instance gets the ``top_k`` anchors of largest t among those strictly inside its box. An anchor that several
    instances get is assigned to the one with the largest CIoU, the first of equals. The target score of an anchor is
    t / max t * max CIoU, both maxima over the instance's anchors.

    Args:
        score: (B, A) predicted, in [0, 1].
        boxes: (B, A, 4) predicted, xyxy, view pixels.
        anchors: (A, 2) view pixels.
        true_boxes: (B, M, 4) xyxy, view pixels.
        exists: (B, M) bool; false for rows of padding.
        least_side: sides of a true box are enlarged to this length when testing which anchors are inside, pixels.

    Source: Feng et al., "TOOD: Task-aligned One-stage Object Detection", 2021, with the constants of YOLOv8.
    """
    views, count = score.shape
    if not true_boxes.shape[1]:
        return Assignment(score.new_full((views, count), -1, dtype=torch.long), torch.zeros_like(score))
    centre, side = (true_boxes[..., :2] + true_boxes[..., 2:]) / 2, true_boxes[..., 2:] - true_boxes[..., :2]
    half = side.clamp_min(least_side) / 2
    inside = ((anchors - centre[:, :, None]).abs() < half[:, :, None]).all(-1) & exists[..., None]
    overlap = complete_iou(boxes[:, None], true_boxes[:, :, None]).clamp_min(0) * inside
    aligned = score[:, None] ** alpha * overlap**beta
    # anchors outside rank last, so that an instance that no predicted box overlaps still gets anchors inside
    ranked = torch.where(inside, aligned, -1.0)
    best = ranked.topk(min(top_k, count), dim=-1).indices
    candidate = torch.zeros_like(inside).scatter_(-1, best, True) & inside
    winner = torch.where(candidate, overlap, -1.0).argmax(1)
    assigned = candidate & (winner[:, None] == torch.arange(candidate.shape[1], device=score.device)[:, None])
    positive = assigned.any(1)
    aligned, overlap = aligned * assigned, overlap * assigned
    target = aligned * overlap.amax(-1, keepdim=True) / (aligned.amax(-1, keepdim=True) + 1e-9)
    return Assignment(torch.where(positive, winner, -1), target.amax(1))


def assigned_anchors(
    boxes: Tensor, anchors: Tensor, max_distance: Tensor, least_side: float, max_anchors: int
) -> tuple[Tensor, Tensor]:
    """The anchors that predict an instance in the ideal outputs, and their instances.

    Each instance gets at least one anchor if there are enough anchors, by a minimum-cost assignment; every other anchor
    gets the instance of least cost. The cost is low for an anchor that lies in the instance's box, can represent the
    distances to the box's sides, and is near the box's centre.

    Args:
        boxes: (M, 4) xyxy, pixels.
        anchors: (A, 2) pixels.
        max_distance: (A,) largest distance to a side of a box that the anchor can represent, pixels.
        least_side: see ``task_aligned``.
        max_anchors: largest number of anchors of one instance.

    Returns:
        (n,) anchors and (n,) instances.
    """
    if not len(boxes):
        none = torch.zeros(0, dtype=torch.long, device=anchors.device)
        return none, none
    offset = anchors - (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    half = (boxes[:, None, 2:] - boxes[:, None, :2]) / 2
    outside = (offset.abs() >= half.clamp_min(least_side / 2)).any(-1)
    # distances to the sides can be neither negative nor larger than max_distance
    unreachable = (offset.abs() > half).any(-1) | ((offset.abs() + half).amax(-1) > max_distance)
    # pixels; an unreachable box costs more than any distance, and an anchor outside costs more than that
    cost = (offset.norm(dim=-1) + 1e5 * unreachable + 1e7 * outside).double().cpu().numpy()
    owner = np.where(outside.cpu().numpy().all(0), -1, cost.argmin(0))
    rows, columns = linear_sum_assignment(cost)
    owner[columns] = rows
    own_cost = np.full_like(cost, np.inf)
    own_cost[rows, columns] = -1.0
    owned = owner == np.arange(len(boxes))[:, None]
    # an anchor that can't represent the box would predict a different one
    own_cost = np.where(owned & np.isinf(own_cost) & (cost < 1e5), cost, own_cost)
    nearest = np.argsort(own_cost, axis=1, kind="stable")[:, :max_anchors]
    assigned = np.isfinite(np.take_along_axis(own_cost, nearest, axis=1))
    instance = np.broadcast_to(np.arange(len(boxes))[:, None], nearest.shape)[assigned]
    device = anchors.device
    return torch.from_numpy(nearest[assigned]).to(device), torch.from_numpy(instance.copy()).to(device)
