"""Statistics of errors, NumPy only: plain, and weighted by how often each image counts."""

from __future__ import annotations

import numpy as np

from kplab.errors import ScoreError


def mean_or_nan(values: np.ndarray) -> float:
    """Mean of the finite values; NaN if there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def median_or_nan(values: np.ndarray) -> float:
    """Median of the finite values; NaN if there is none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")


def pck(relative: np.ndarray, threshold: float) -> float:
    """Fraction of labelled keypoints with relative error <= threshold (MPII's rule; mmpose has <); missed is wrong.

    >>> pck(np.array([0.05, 0.1, 0.3, np.inf, np.nan]), 0.1)
    0.5
    """
    counted = relative[~np.isnan(relative)]
    return float(np.mean(counted <= threshold)) if len(counted) else float("nan")


def auc(relative: np.ndarray, low: float, high: float) -> float:
    """Mean height of the PCK curve between two thresholds, integrated exactly: in [0, 1], 1 if every error <= low.

    mean_i clip((high - e_i) / (high - low), 0, 1), the area under the step curve of PCK divided by its width.
    """
    if not low < high:
        raise ScoreError(f"the range of the PCK curve is ({low}, {high}), but its end must be above its start.")
    counted = relative[~np.isnan(relative)]
    return float(np.mean(np.clip((high - counted) / (high - low), 0.0, 1.0))) if len(counted) else float("nan")


def weighted_mean(values: np.ndarray, image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of values when image i counts weights[r, i] times.

    Args:
        values: (V,).
        image: (V,) index of the image of every value.
        weights: (R, images) int.

    Returns:
        (R,) NaN where no value is drawn.
    """
    images = weights.shape[1]
    total = weights @ np.bincount(image, values, minlength=images)
    count = weights @ np.bincount(image, minlength=images)
    return np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0)


def weighted_median(values: np.ndarray, image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Median of values when image i counts weights[r, i] times; as ``weighted_mean``."""
    order = np.argsort(values)
    values, image = values[order], image[order]
    out = np.full(len(weights), np.nan)
    for r, weight in enumerate(weights):
        reached = np.cumsum(weight[image])
        if len(reached) and reached[-1]:
            middle = (reached[-1] - 1) // 2, reached[-1] // 2
            out[r] = values[np.searchsorted(reached, middle, side="right")].mean()
    return out
