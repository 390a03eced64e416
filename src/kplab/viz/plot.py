"""Charts as data: what a chart shows is described once, and drawn for print (``viz.chart``) and in a browser.

This module imports no drawing library, because the dashboard's server describes charts and does not draw them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

KINDS = ("line", "dot", "bar", "scatter")
#: Kinds of learning curves, which differ in scale and so have a chart each.
CURVE_KINDS = ("loss", "metric", "error", "learning rate")
#: Points of a curve at most: more can't be seen.
MOST = 400


@dataclass
class Series:
    """What belongs to one run, or to one column of its curves.

    Args:
        name: in the legend.
        x: values along the horizontal axis; of kinds dot and bar the values of the categories. None is a gap.
        y: values along the vertical axis; empty for kinds dot and bar.
        low: lower ends of intervals, of kind dot; empty for none.
        high: upper ends.
        labels: of the points, for kind scatter.
        colour: index into ``chart.PALETTE``, or a colour such as "#0072B2".
        dashed: whether the line is dashed.
    """

    name: str
    x: list[float | None]
    y: list[float | None] = field(default_factory=list)
    low: list[float | None] = field(default_factory=list)
    high: list[float | None] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    colour: int | str = 0
    dashed: bool = False


@dataclass
class Plot:
    """A chart.

    Args:
        name: in file names and addresses.
        title: above the chart.
        kind: of ``KINDS``: line; dot (a value with its interval in each category, one row each); bar; scatter.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        series: one for each run.
        categories: of kinds dot and bar, from the top.
        reference: a value of x that is marked by a line, e.g. 0 for differences.
        x_range: ends of the axis, where they don't follow from the values.
        y_range: the same.
        log_x: whether x is logarithmic.
        log_y: whether y is logarithmic.
        steps: whether a line is a step function, whose value holds up to the next point.
        own_rows: whether each series has rows of its own, of kind dot; else series share rows and lie side by side.
        note: a sentence below the chart.
    """

    name: str
    title: str
    kind: str
    x: str
    y: str
    series: list[Series]
    categories: list[str] = field(default_factory=list)
    reference: float | None = None
    x_range: list[float] | None = None
    y_range: list[float] | None = None
    log_x: bool = False
    log_y: bool = False
    steps: bool = False
    own_rows: bool = False
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The chart as JSON can state it."""
        return asdict(self)


def numbers(values: Sequence[float] | np.ndarray, digits: int = 6) -> list[float | None]:
    """Values as JSON can state them: None for what is not finite.

    >>> numbers([1.0, float("nan"), 1 / 3], 3)
    [1.0, None, 0.333]
    """
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in map(float, values)]


def thinned(x: np.ndarray, y: np.ndarray, most: int = MOST) -> tuple[np.ndarray, np.ndarray]:
    """At most so many points of a curve, the ends included."""
    if len(x) <= most:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, most).round().astype(int))
    return x[kept], y[kept]


def curve_kind(column: str) -> str:
    """Which of ``CURVE_KINDS`` a column of ``curves.csv`` is, by its name."""
    name = column.rsplit("/", 1)[-1].lower()
    if column.startswith("train/") or "loss" in name:
        return "loss"
    if column.lower().startswith("lr") or name.startswith("lr"):
        return "learning rate"
    return "error" if re.search(r"px|pixel|error|nme|rmse", name) else "metric"
