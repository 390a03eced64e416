"""Formulas of CenterNet: radii and targets, losses, peaks, snapping of keypoints to peaks.

Continuous coordinates as in ``ops.affine``: the cell in row i, column j of a map covers [j, j + 1) x [i, i + 1), and its
centre is (j + 0.5, i + 0.5).

Source: Zhou et al., "Objects as Points", 2019, and its released code.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn import functional as F

#: Heatmap scores are clamped this far from 0 and 1, so that their logarithms are finite.
LEAST = 1e-4


def gaussian_radius(size: np.ndarray, overlap: float = 0.7, corrected: bool = False) -> np.ndarray:
    """Largest error of a box's corners at which its IoU with the true box is still ``overlap``: the least of three cases.

    With b = h + w, a and c by case, the root r of a r**2 - b' r + c = 0:
    both corners shifted alike   a = 1,    b' = b,         c = w h (1 - o) / (1 + o)
    box inside the true one      a = 4,    b' = 2 b,       c = (1 - o) w h
    box around the true one      a = 4 o,  b' = -2 o b,    c = (o - 1) w h

    The released code computes (b' + sqrt(b'**2 - 4 a c)) / 2: not divided by a, and the larger root. Its radii are more
    than three times as large as the formula's. Published figures use them.

    Args:
        size: (..., 2) of boxes, cells.
        overlap: minimum intersection over union o.
        corrected: use the roots of the formula; otherwise the released code's.

    Returns:
        (...) cells.

    Source: Law and Deng, "CornerNet", 2018; released code of CenterNet.
    """
    b, area = size.sum(-1), size.prod(-1)
    cases = [
        (1.0, b, area * (1 - overlap) / (1 + overlap)),
        (4.0, 2 * b, area * (1 - overlap)),
        (4 * overlap, -2 * overlap * b, area * (overlap - 1)),
    ]
    radii = []
    for a, middle, c in cases:
        root = np.sqrt(middle**2 - 4 * a * c)
        # around the true box the two roots have different signs, otherwise both are positive
        sign = -1 if corrected and a != 4 * overlap else 1
        radii.append((middle + sign * root) / (2 * a if corrected else 2))
    radius: np.ndarray = np.minimum.reduce(radii)
    return radius


def gaussians(cell: Tensor, radius: Tensor, size: tuple[int, int]) -> Tensor:
    """Gaussians of height 1 around cells, zero outside a square window.

    exp(-d**2 / (2 sigma**2)), sigma = (2 r + 1) / 6, for cells at most r columns and r rows away

    Args:
        cell: (..., 2) int64 (column, row).
        radius: (...) r in whole cells, at least 0; broadcasts with the leading axes of ``cell``.
        size: (width, height) of the map.

    Returns:
        (..., height, width), exactly 1 in the cells and less elsewhere.
    """
    axes = []
    for axis, cells in enumerate(size):
        offset = torch.arange(cells, device=cell.device) - cell[..., axis, None]
        limit = radius[..., None]
        height = torch.exp(-(offset**2) * 18 / (2 * limit + 1) ** 2)
        axes.append(torch.where(offset.abs() <= limit, height, torch.zeros_like(height)))
    return axes[1][..., :, None] * axes[0][..., None, :]


def covered(box: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask of the cells that a box touches.

    Args:
        box: (..., 4) xyxy, cells.
        size: (width, height) of the map.

    Returns:
        (..., height, width) bool; all false for a box of NaN.
    """
    low, high = box[..., :2].floor(), box[..., 2:].floor()
    axes = []
    for axis, cells in enumerate(size):
        index = torch.arange(cells, device=box.device)
        axes.append((index >= low[..., axis, None]) & (index <= high[..., axis, None]))
    return axes[1][..., :, None] & axes[0][..., None, :]


def near_cells(view: np.ndarray, cell: np.ndarray, reach: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Cells around centres that are in the map and no nearer to another centre of the same view.

    Args:
        view: (N,) view of each centre.
        cell: (N, 2) int64 (column, row) of each centre.
        reach: most columns and rows from a centre.
        size: (width, height) of the map.

    Returns:
        (M,) int64 index of the centre, ascending, and (M, 2) int64 steps from its cell to the near one; one of them is (0, 0).
    """
    steps = np.arange(-reach, reach + 1)
    step = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    near = cell[:, None] + step
    # views are further apart than cells of a map
    apart = np.broadcast_to(2 * sum(size) * view[:, None, None], (*near.shape[:2], 1))
    centres = KDTree(np.column_stack([apart[:, 0], cell]))
    least, _ = centres.query(np.concatenate([apart, near], axis=-1))
    own = np.linalg.norm(step, axis=-1) <= least + 1e-6
    row, index = np.nonzero(own & ((near >= 0) & (near < size)).all(-1))
    return row, step[index]


def focal(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Penalty-reduced focal loss of heatmaps.

    -sum((1 - p)**2 log p [t = 1] + (1 - t)**4 p**2 log(1 - p) [t < 1]) / max(N, 1), N the number of cells with t = 1
    in the whole batch

    Args:
        logits: (...) of p, which is clamped ``LEAST`` away from 0 and 1.
        target: (...) t in [0, 1].
        counted: (...) bool: cells that are part of the loss.
    """
    p = logits.sigmoid().clamp(LEAST, 1 - LEAST)
    positive = (target == 1) & counted
    hit = (1 - p) ** 2 * p.log()
    miss = (1 - target) ** 4 * p**2 * (1 - p).log()
    total = torch.where(positive, hit, torch.where(counted, miss, torch.zeros_like(miss))).sum()
    return -total / positive.sum().clamp_min(1)


def masked_l1(predicted: Tensor, true: Tensor, counted: Tensor) -> Tensor:
    """Absolute error, mean over the n counted coordinates: sum |p - t| / (n + 1e-4).

    Args:
        predicted: (..., 2).
        true: (..., 2), finite.
        counted: (...) bool: points that are part of the loss.
    """
    error = (predicted - true).abs().sum(-1)
    return torch.where(counted, error, torch.zeros_like(error)).sum() / (predicted.shape[-1] * counted.sum() + 1e-4)


def top_peaks(maps: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The highest local maxima of maps: cells that no neighbour exceeds.

    Args:
        maps: (..., H, W), not negative.
        count: number of peaks; fewer where the map has fewer cells.

    Returns:
        (..., count) scores, descending, 0 where there are no more peaks; (..., count, 2) int64 (column, row); and
        (..., H, W) the maximum of each cell and its eight neighbours.
    """
    height, width = maps.shape[-2:]
    flat = maps.reshape(-1, 1, height, width)
    around = F.max_pool2d(flat, kernel_size=3, stride=1, padding=1).reshape(maps.shape)
    peaks = torch.where(maps == around, maps, torch.zeros_like(maps)).flatten(-2)
    score, index = peaks.topk(min(count, height * width), dim=-1)
    return score, torch.stack([index % width, index // width], dim=-1), around


def nearest_peaks(guess: Tensor, peak: Tensor, score: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest peak of its heatmap for each regressed keypoint.

    Args:
        guess: (B, N, K, 2) regressed keypoints.
        peak: (B, K, P, 2) peaks of the keypoints' heatmaps, same frame.
        score: (B, K, P) of the peaks; those of at most ``threshold`` are left out.

    Returns:
        (B, N, K, 2) peaks, (B, N, K) their scores, and (B, N, K) their distances, infinite where there is no peak.
    """
    distance = (guess.transpose(1, 2)[:, :, :, None] - peak[:, :, None]).norm(dim=-1)  # (B, K, N, P)
    distance = torch.where(score[:, :, None] > threshold, distance, torch.inf)
    least, index = distance.min(-1)
    nearest = peak.gather(2, index[..., None].expand(-1, -1, -1, 2)).transpose(1, 2)
    return nearest, score.gather(2, index).transpose(1, 2), least.transpose(1, 2)


def snap(
    guess: Tensor, box: Tensor, peak: Tensor, score: Tensor, threshold: float = 0.1, max_distance: float = 0.3
) -> tuple[Tensor, Tensor, Tensor]:
    """Move each regressed keypoint to the nearest peak of its heatmap, if the peak is near enough and in the box.

    Of the peaks that score more than ``threshold`` the nearest is used if it lies in the instance's box, and at most
    ``max_distance`` times the box's longer side from the guess. Otherwise the guess is kept.

    Args:
        guess: (B, N, K, 2) regressed keypoints.
        box: (B, N, 4) xyxy of the instances.
        peak: (B, K, P, 2) peaks of the keypoints' heatmaps, same frame.
        score: (B, K, P) of the peaks.

    Returns:
        (B, N, K, 2) keypoints, (B, N, K) score of the nearest peak, and (B, N, K) bool whether the keypoint was moved.
    """
    nearest, value, least = nearest_peaks(guess, peak, score, threshold)
    low, high = box[:, :, None, :2], box[:, :, None, 2:]
    inside = ((nearest >= low) & (nearest <= high)).all(-1)
    longest = (high - low).amax(-1)
    moved = inside & (least <= max_distance * longest)
    return torch.where(moved[..., None], nearest, guess), value, moved
