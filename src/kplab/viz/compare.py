"""Figures that compare runs: metrics with intervals, errors by keypoint, and distributions of errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kplab.viz import look


def write_all(
    values: pd.DataFrame,
    differences: pd.DataFrame,
    per_keypoint_px: pd.DataFrame,
    keypoints: Mapping[str, pd.DataFrame],
    folder: Path,
    titles: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write every figure of a comparison as a PNG: intervals, differences, errors by keypoint, and all errors.

    Args:
        values: one row per run and metric: run, metric, value, low, high.
        differences: one row per pair of runs and metric: a, b, metric, difference, low, high; empty for one run.
        per_keypoint_px: one row per keypoint: its name in column keypoint, and a column of mean errors for each run.
        keypoints: name of a run to one row per keypoint of each true instance: visible, error_px (NaN: missed).
        folder: of the figures.
        titles: name of a metric to the title of its panel; without one, the name.

    Returns:
        The files written.
    """
    pairs = differences.assign(run=[f"{a} − {b}" for a, b in zip(differences["a"], differences["b"], strict=True)])
    names = per_keypoint_px["keypoint"].tolist()
    errors = {str(run): per_keypoint_px[run].to_numpy() for run in per_keypoint_px.columns.drop("keypoint")}
    labelled = {run: table.loc[table["visible"] > 0, "error_px"].fillna(np.inf) for run, table in keypoints.items()}
    figures = {"intervals": _of_table(values, "value", None, titles or {})}
    if len(pairs):
        figures["differences"] = _of_table(pairs, "difference", 0.0, titles or {})
    figures["per_keypoint"] = per_keypoint(names, errors)
    figures["error_cdf"] = error_cdf({run: column.to_numpy() for run, column in labelled.items()})
    return [look.write_png(Path(folder) / f"{name}.png", figure) for name, figure in figures.items()]


def _of_table(table: pd.DataFrame, column: str, reference: float | None, titles: Mapping[str, str]) -> Figure:
    """Intervals of a table with one row per run and metric."""
    runs, metrics = list(dict.fromkeys(table["run"])), list(dict.fromkeys(table["metric"]))
    grids = [
        table.pivot_table(index="run", columns="metric", values=c, dropna=False).reindex(index=runs, columns=metrics)
        for c in (column, "low", "high")
    ]
    middle, low, high = (grid.to_numpy() for grid in grids)
    return intervals(runs, middle, low, high, [titles.get(m, m) for m in metrics], reference=reference)


def intervals(
    labels: Sequence[str],
    values: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    metrics: Sequence[str],
    *,
    reference: float | None = None,
) -> Figure:
    """Draw values with intervals: one panel per metric, one row per run.

    Args:
        labels: R names of runs, drawn from the top.
        values: (R, M) values; NaN where a run has none.
        low: (R, M) lower ends of the intervals.
        high: (R, M) upper ends.
        metrics: M titles of panels.
        reference: a value to mark by a line, e.g. 0 for differences.

    Raises:
        ValueError: the arrays are not (R, M).
    """
    arrays = [np.asarray(a, dtype=np.float64) for a in (values, low, high)]
    wanted = len(labels), len(metrics)
    if any(a.shape != wanted for a in arrays):
        raise ValueError(
            f"values, low and high have the shapes {', '.join(str(a.shape) for a in arrays)}, but {wanted} is wanted: "
            "a row for each run and a column for each metric."
        )
    plot, panels = look.figure(1, len(metrics), size=(1.6 + 2.6 * len(metrics), 1.0 + 0.32 * len(labels)))
    rows = np.arange(len(labels))
    for m, (panel, metric) in enumerate(zip(panels, metrics, strict=True)):
        middle, left, right = (a[:, m] for a in arrays)
        if reference is not None:
            panel.axvline(reference, color=look.GREY, lw=1, ls=(0, (4, 3)))
        for row, colour in zip(rows, look.colours(len(rows)), strict=True):
            panel.hlines(row, left[row], right[row], color=colour, lw=2)
            panel.plot(middle[row], row, "o", color=colour, ms=6)
        look.label(panel, title=metric, grid="x")
        panel.set_ylim(len(labels) - 0.5, -0.5)
        panel.set_yticks(rows, labels if m == 0 else [""] * len(labels))
        panel.tick_params(axis="y", length=0)
        panel.spines["left"].set_visible(False)
        panel.margins(x=0.08)
    return plot


def per_keypoint(names: Sequence[str], errors: Mapping[str, np.ndarray], *, unit: str = "mean error, pixels") -> Figure:
    """Draw the error of each keypoint in each run, as dots on one line per keypoint.

    Args:
        names: K keypoints, drawn from the top.
        errors: name of a run to its (K,) errors; NaN where a keypoint was never labelled.
        unit: label of the axis.

    Raises:
        ValueError: a run does not have one error per keypoint.
    """
    for run, values in errors.items():
        if np.shape(values) != (len(names),):
            raise ValueError(
                f"run '{run}' has errors of shape {np.shape(values)}, but {len(names)} keypoints have names."
            )
    plot, (panel,) = look.figure(size=(5.5, 0.9 + 0.24 * len(names)))
    rows = np.arange(len(names))
    table = np.array([np.asarray(values, dtype=np.float64) for values in errors.values()]).reshape(-1, len(names))
    for row in rows[np.isfinite(table).any(0)]:
        panel.hlines(row, np.nanmin(table[:, row]), np.nanmax(table[:, row]), color=look.FAINT, lw=3)
    for (run, values), colour in zip(errors.items(), look.colours(len(errors)), strict=True):
        panel.plot(values, rows, "o", color=colour, ms=5, label=run, clip_on=False)
    look.label(panel, x=unit, grid="x")
    panel.set_yticks(rows, names)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.set_xlim(left=0)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    if len(errors) > 1:
        panel.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
    return plot


def error_cdf(
    errors: Mapping[str, np.ndarray], *, unit: str = "error, pixels", limit: float | None = None, log: bool = False
) -> Figure:
    """Draw the fraction of keypoints whose error is at most x, for each run; the legend shows medians of those predicted.

    Args:
        errors: name of a run to its errors, one per labelled keypoint, any shape. Infinity is a missed keypoint: it counts,
            so the curve ends below 1. NaN is left out.
        unit: label of the axis.
        limit: end of the x axis; None shows 98 % of the errors of the run with the largest.
        log: whether x is logarithmic, for errors that spread over decades.
    """
    plot, (panel,) = look.figure(size=(5.0, 3.5))
    ends = []
    for (run, values), colour in zip(errors.items(), look.colours(len(errors)), strict=True):
        counted = np.asarray(values, dtype=np.float64).ravel()
        counted = counted[~np.isnan(counted)]
        found = np.sort(counted[np.isfinite(counted)])
        if not len(found):
            continue
        share = np.arange(1, len(found) + 1) / len(counted)
        missed = f", {1 - share[-1]:.1%} missed" if len(found) < len(counted) else ""
        name = f"{run} (median {np.median(found):.3g}{missed})"
        panel.step(found, share, where="post", color=colour, lw=1.6, label=name)
        ends.append(float(np.quantile(found, 0.98)))
    look.label(panel, x=unit, y="share of keypoints", grid="both")
    panel.set_ylim(0, 1.02)
    if log:
        panel.set_xscale("log")
    else:
        panel.set_xlim(0, limit or max(ends, default=0.0) or 1.0)
    panel.legend(frameon=False, fontsize=8, loc="lower right", labelcolor=look.INK)
    return plot
