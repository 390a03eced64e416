"""Views turned about their centre, by operations that every runtime of exported graphs has."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def turn(maps: Tensor, degrees: float) -> Tensor:
    """Turn maps about their centre, bilinearly; 0 where nothing was.

    Args:
        maps: (N, C, H, W) float.
        degrees: positive angles turn x towards y, as ``affine.rotation``; multiples of 90 move square maps exactly.

    Returns:
        (N, C, H, W).
    """
    height, width = int(maps.shape[-2]), int(maps.shape[-1])  # constants of a traced graph
    index, weight = _table(height, width, float(degrees) % 360)
    flat = maps.flatten(2)
    parts = [
        flat.index_select(2, torch.from_numpy(i).to(maps.device)) * torch.from_numpy(w).to(maps.device, maps.dtype)
        for i, w in zip(index, weight, strict=True)
    ]
    total: Tensor = sum(parts[1:], parts[0])
    return total.reshape(maps.shape)


@lru_cache(maxsize=64)
def _table(height: int, width: int, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """(4, H * W) flat indices of the neighbours of each pixel of the turned map, and their weights, 0 outside."""
    angle = np.deg2rad(degrees)
    cosine, sine = np.round([np.cos(angle), np.sin(angle)], 15)
    y, x = np.mgrid[:height, :width].reshape(2, -1) - np.array([[(height - 1) / 2], [(width - 1) / 2]])
    # the inverse rotation: where a pixel comes from
    u, v = cosine * x + sine * y + (width - 1) / 2, cosine * y - sine * x + (height - 1) / 2
    left, top = np.floor(u), np.floor(v)
    index, weight = [], []
    for i, j in ((0, 0), (1, 0), (0, 1), (1, 1)):
        column, row = left + i, top + j
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        index.append(np.where(inside, row * width + column, 0).astype(np.int64))
        weight.append(np.where(inside, (1 - np.abs(u - column)) * (1 - np.abs(v - row)), 0.0))
    return np.stack(index), np.stack(weight)  # no tensors: of those made in inference mode there are no gradients
