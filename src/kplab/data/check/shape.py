"""The shape of a subject: distances between all pairs of its keypoints, relative to its size, over the dataset.

For keypoints i and j of a subject of log size s, r_ij = log |x_i - x_j| - s. Its median over the dataset is m_ij, and
z_ij is r_ij - m_ij below the median, and exp(r_ij - m_ij) - 1 above it, in scales of that side of the median. s is the median of
log |x_i - x_j| - m_ij over the subject's own pairs, so that single wrong keypoints change it little. Distances don't depend
on the place, the rotation or the mirroring of a subject.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from kplab.data.check.tails import NORMAL, sided_scales

FITTED = 4000
"""Subjects that the statistics are estimated from, evenly spread; so the time is linear in the size of the dataset."""

STEADY_ANGLE = 0.3
"""Radians: scale of an angle over the dataset below which single outliers mean something."""

CLOSE = 0.5
"""Pixels that are added to each distance: two keypoints at one place have a finite logarithm."""


@dataclass
class Shape:
    """Statistics of the pairwise distances of K keypoints.

    Args:
        median: (K, K) of r_ij; NaN where fewer than 10 subjects have both.
        low: (K, K) scale below the median.
        high: (K, K) scale above it.
    """

    median: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def fit(cls, xy: np.ndarray) -> Shape:
        """Estimate the statistics from (N, K, 2) keypoints, NaN where unlabelled."""
        xy = xy[:: max(1, len(xy) // FITTED)]
        logs = log_distances(xy)
        few = np.isfinite(logs).sum(0) < 10
        size = _lower_median(logs)
        for _ in range(3):
            median, low, high = sided_scales(logs - size[:, None, None], 0.02)
            median[few] = np.nan
            size = _lower_median(logs - median)
        return cls(median, low, high)

    def deviations(self, xy: np.ndarray) -> np.ndarray:
        """(N, K, K) z_ij, NaN where unknown."""
        logs = log_distances(xy)
        r = logs - self.median
        r -= _lower_median(r)[:, None, None]
        # lengths that are too large are compared as lengths: their logarithm would hide how far a point is
        longer = np.expm1(np.maximum(r, 0)) / np.expm1(NORMAL * self.high) * NORMAL
        return np.where(r < 0, r / self.low, longer)

    def sizes(self, xy: np.ndarray) -> np.ndarray:
        """(N,) size of each subject, pixels: exp(s) times the longest median distance; NaN with fewer than 2 keypoints."""
        with np.errstate(invalid="ignore"):
            longest = np.nanmax(self.median, initial=-np.inf)
        return np.exp(_lower_median(log_distances(xy) - self.median) + longest)


def log_distances(xy: np.ndarray) -> np.ndarray:
    """(N, K, K) log of the distances between keypoints, pixels; NaN on the diagonal and where one is unlabelled."""
    logs = np.log(np.linalg.norm(xy[:, :, None] - xy[:, None], axis=-1) + CLOSE)
    logs[:, np.arange(xy.shape[1]), np.arange(xy.shape[1])] = np.nan
    return logs


def misplacement(z: np.ndarray) -> np.ndarray:
    """(N, K) how far each keypoint is from the others, compared with other subjects: the median of its z_ij.

    Other keypoints that are wrong change it little. NaN for fewer than two other keypoints.
    """
    others = np.isfinite(z).sum(2)
    out = np.full(z.shape[:2], np.nan)
    rows = others >= 2
    out[rows] = np.nanmedian(z[rows], axis=1)
    return out


def energy(z: np.ndarray, largest: float = 5.0) -> np.ndarray:
    """(N,) mean of z_ij**2, where the absolute z_ij counts ``largest`` at most; NaN for fewer than three pairs."""
    known = np.isfinite(z)
    squares = np.where(known, np.minimum(np.abs(np.nan_to_num(z)), largest) ** 2, 0.0)
    count = known.sum((1, 2))
    return np.where(count >= 6, squares.sum((1, 2)) / np.maximum(count, 1), np.nan)


def closest(xy: np.ndarray, sizes: np.ndarray, share: float = 0.005) -> np.ndarray:
    """How close two keypoints come on a share of the subjects, and on two at least, so that one wrong subject is left out.

    Args:
        xy: (N, K, 2) keypoints.
        sizes: (N,) of the subjects, pixels.
        share: of the subjects that have both.

    Returns:
        (K, K) distance relative to the size; 0 where fewer than 20 subjects have both.
    """
    step = max(1, len(xy) // FITTED)
    xy, sizes = xy[::step], sizes[::step]
    out = np.zeros((xy.shape[1],) * 2)
    for k in range(xy.shape[1]):
        distance = np.sort(np.linalg.norm(xy - xy[:, k, None], axis=-1) / sizes[:, None], axis=0)  # NaN comes last
        count = np.isfinite(distance).sum(0)
        at = 1 + np.ceil(share * count).astype(int)
        enough = count >= 20
        out[k, enough] = distance[at[enough], np.flatnonzero(enough)]
    return out


def angle_deviations(
    xy: np.ndarray, sizes: np.ndarray, edges: tuple[tuple[int, int], ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Deviations of the angles between edges that meet.

    Args:
        xy: (N, K, 2) keypoints.
        sizes: (N,) of the subjects, pixels.
        edges: of the skeleton.

    Returns:
        (J, 3) keypoints a, b, c of the angle at b; and (N, J) its absolute deviation from the circular mean, in scales, made
        smaller where the shorter of the two edges is shorter than usual: seen from its end, an edge has any direction.
    """
    around: dict[int, set[int]] = {}
    for a, b in edges:
        around.setdefault(a, set()).add(b)
        around.setdefault(b, set()).add(a)
    joints = [(a, b, c) for b, ends in sorted(around.items()) for a, c in combinations(sorted(ends), 2)]
    kept, columns = [], []
    for a, b, c in joints:
        first, second = xy[:, a] - xy[:, b], xy[:, c] - xy[:, b]
        cross = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
        angle = np.where((first != 0).any(1) & (second != 0).any(1), np.arctan2(cross, (first * second).sum(1)), np.nan)
        known = np.isfinite(angle)
        if known.sum() < 20:
            continue
        mean = np.angle(np.exp(1j * angle[known]).mean())
        away = np.abs(np.angle(np.exp(1j * (angle - mean))))
        scale = float(np.quantile(away[known], 0.8)) / NORMAL
        if scale < STEADY_ANGLE:
            shorter = np.fmin(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)) / sizes
            kept.append((a, b, c))
            columns.append(away / max(scale, 0.01) * np.minimum(shorter / np.nanmedian(shorter), 1))
    values = np.stack(columns, axis=1) if columns else np.zeros((len(xy), 0))
    return np.array(kept, dtype=np.int64).reshape(-1, 3), values


def _lower_median(values: np.ndarray) -> np.ndarray:
    """(N,) lower median of each row of (N, …), NaN where it has no number: half of a row may be too large."""
    flat = np.sort(values.reshape(len(values), -1), axis=1)  # NaN comes last
    count = np.isfinite(flat).sum(1)
    # every distance occurs twice: the pair (i, j) and (j, i)
    at = np.maximum((count // 2 - 1) // 2 * 2, 0)
    return np.where(count > 0, flat[np.arange(len(flat)), at], np.nan)
