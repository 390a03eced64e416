"""Complete IoU of boxes, and box sides as distributions over distances (distribution focal loss)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def complete_iou(boxes: Tensor, others: Tensor, eps: float = 1e-7) -> Tensor:
    """Complete IoU: overlap minus a term for the distance of the centres minus a term for the difference in aspect ratio.

    CIoU = IoU - rho**2 / c**2 - a v,  v = (atan(w2 / h2) - atan(w1 / h1))**2 * 4 / pi**2,  a = v / (v - IoU + 1)

    with rho the distance of the centres and c the diagonal of the smallest box around both; a has no gradient.

    Args:
        boxes: (..., 4) xyxy.
        others: (..., 4) xyxy, same frame; both shapes broadcast.

    Returns:
        (...), at most 1; it also decreases with the distance of boxes that don't overlap.

    Source: Zheng et al., "Distance-IoU Loss", 2020.
    """
    sides, other_sides = boxes[..., 2:] - boxes[..., :2], others[..., 2:] - others[..., :2]
    low, high = torch.minimum(boxes, others), torch.maximum(boxes, others)
    intersection = (low[..., 2:] - high[..., :2]).clamp_min(0).prod(-1)
    iou = intersection / (sides.prod(-1) + other_sides.prod(-1) - intersection + eps)
    diagonal = ((high[..., 2:] - low[..., :2]) ** 2).sum(-1) + eps
    distance = ((boxes[..., :2] + boxes[..., 2:] - others[..., :2] - others[..., 2:]) ** 2).sum(-1) / 4
    angle = torch.atan(sides[..., 0] / (sides[..., 1] + eps))
    other_angle = torch.atan(other_sides[..., 0] / (other_sides[..., 1] + eps))
    v = (other_angle - angle) ** 2 * (4 / math.pi**2)
    with torch.no_grad():
        weight = v / (v - iou + 1 + eps)
    return iou - distance / diagonal - weight * v


def expected_distance(logits: Tensor) -> Tensor:
    """Mean of a distribution over whole bins: (..., bins) logits to (...), in [0, bins - 1]."""
    bins = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    return logits.softmax(-1) @ bins


def distance_loss(logits: Tensor, distance: Tensor) -> Tensor:
    """Distribution focal loss: cross entropy with the two bins next to the true distance.

    -(r - d) log p_l - (d - l) log p_r,  l = floor(d), r = l + 1

    Args:
        logits: (..., bins).
        distance: (...) true distance, bins; clamped to [0, bins - 1.01].

    Returns:
        (...) nats; its minimum is the entropy of the two weights, which is 0 for whole distances.

    Source: Li et al., "Generalized Focal Loss", 2020.
    """
    distance = distance.clamp(0, logits.shape[-1] - 1.01)
    left = distance.floor().long()
    log = logits.log_softmax(-1)
    weight = distance - left
    log_left, log_right = (log.gather(-1, i[..., None]).squeeze(-1) for i in (left, left + 1))
    return -(1 - weight) * log_left - weight * log_right


def distance_logits(distance: Tensor, bins: int, floor: float = -30.0) -> Tensor:
    """Logits whose mean is the distance: log of the weights of the two neighbouring bins, ``floor`` for the others.

    Args:
        distance: (...) bins; clamped to [0, bins - 1.01].

    Returns:
        (..., bins), finite.
    """
    distance = distance.clamp(0, bins - 1.01)
    left = distance.floor().long()
    weight = (distance - left)[..., None]
    share = F.one_hot(left, bins) * (1 - weight) + F.one_hot(left + 1, bins) * weight
    return share.clamp_min(math.exp(floor)).log()
