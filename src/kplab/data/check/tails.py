"""Robust statistics: limits that a stated share of undamaged values exceeds, whatever a few damaged ones are."""

from __future__ import annotations

import warnings

import numpy as np

EXPECTED = 0.001
"""Share of undamaged instances above each statistical limit, by its model of the tail."""

NORMAL = 1.2816
"""Standard deviations between the median and the 90th percentile of a normal distribution."""


def upper_limit(values: np.ndarray, share: float = EXPECTED) -> float:
    """A limit that a share of the values exceeds, if their upper tail is exponential beyond the 90th percentile.

    The scale of the tail comes from the 70th and the 90th percentile. Values above the limit are left out, and it is
    computed again, so that up to one in ten values may be wrong. A normal tail is shorter: fewer values exceed the limit.

    Args:
        values: any number; NaN is left out.
        share: below 0.1.

    Returns:
        The limit; infinity for fewer than 20 values.
    """
    values = values[np.isfinite(values)]
    if len(values) < 20:
        return np.inf
    limit = np.inf
    for _ in range(5):
        q70, q90 = np.quantile(values[values <= limit], [0.7, 0.9])
        limit = float(q90 + (q90 - q70) / np.log(3) * np.log(0.1 / share))
    return limit


def sided_scales(values: np.ndarray, floor: float = 1e-3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median, and the scale below and above it, over the first axis.

    Each scale is that of a normal distribution with the same 10th or 90th percentile.

    Args:
        values: (N, …); NaN is left out.
        floor: smallest scale.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN
        low, median, high = np.nanquantile(values, [0.1, 0.5, 0.9], axis=0)
    return median, np.maximum((median - low) / NORMAL, floor), np.maximum((high - median) / NORMAL, floor)
