"""Overlap of boxes in NumPy."""

from __future__ import annotations

import numpy as np


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes.

    Args:
        boxes: (T, 4) xyxy.
        others: (N, 4) xyxy, same frame.

    Returns:
        (T, N) in [0, 1]; 0 where a box is unknown or has no area.
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    areas, other_areas = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others))
    union = areas[:, None] + other_areas[None] - shared
    with np.errstate(invalid="ignore", divide="ignore"):
        values: np.ndarray = np.nan_to_num(shared / union, nan=0.0, posinf=0.0, neginf=0.0)
    return values
