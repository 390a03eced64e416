"""Shared by heads of any number of poses per view: true boxes, and padding to tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kplab.errors import ModelError
from kplab.structures.poses import HULL_MARGIN, Poses

#: Smallest padding of a hull, view pixels: the box around a single keypoint needs an area.
LEAST_PADDING = 4.0


def boxes_of(poses: Poses, how: str = "annotated", margin: float = HULL_MARGIN) -> np.ndarray:
    """The box of each true instance that a head is trained on.

    A hull is padded on every side by max(margin * its longer side, 4 pixels).

    Args:
        poses: N instances, view pixels.
        how: ``annotated``: the instance's box, or the padded hull of its labelled keypoints where it has no box with an
            area; ``keypoints``: that hull wherever a keypoint is labelled. A box that was rotated with its view is a
            loose hull of its old corners; keypoints rotate exactly. Of ignored instances the own box is always preferred.
        margin: fraction of the hull's longer side.

    Returns:
        (N, 4) xyxy, view pixels; NaN where there is neither a box nor a labelled keypoint.

    Raises:
        ModelError: ``how`` is neither.
    """
    if how not in ("annotated", "keypoints"):
        raise ModelError(f"boxes can be annotated or keypoints, but got '{how}'. Change head.boxes.")
    hull = poses.extent(margin, LEAST_PADDING)
    has_box = np.all(poses.box[:, 2:] > poses.box[:, :2], axis=1)  # false for NaN
    has_hull = poses.labelled.any(1)
    hull_first = has_hull & ~poses.ignore & (how == "keypoints")
    own = np.where(has_box[:, None], poses.box, np.nan)
    return np.where((hull_first | ~has_box)[:, None], hull, own)


def padded(rows: list[np.ndarray], device: torch.device) -> Tensor:
    """Stack B arrays (n_i, ...) to (B, M, ...), M the largest n_i and at least 1, padded with 0 or False."""
    longest = max(1, *(len(r) for r in rows))
    out = np.zeros((len(rows), longest, *rows[0].shape[1:]), dtype=rows[0].dtype)
    for i, r in enumerate(rows):
        out[i, : len(r)] = r
    tensor = torch.from_numpy(out).to(device)
    return tensor.float() if tensor.is_floating_point() else tensor
