"""Training curves, and PCK by distance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kplab.viz import look
from kplab.viz.plot import CURVE_KINDS, curve_kind


def training(frame: pd.DataFrame) -> Figure:
    """Losses, learning rates and validation metrics by epoch.

    Args:
        frame: the columns of ``curves.csv``: ``epoch``, counted from 1, and any numbers, such as ``train/loss``, ``val/loss``, ``lr``
            and ``val/AP``; empty where nothing was logged. Rows of one epoch are averaged. There is one panel for each
            kind of column: losses, metrics, errors and learning rates.

    Raises:
        ValueError: the column ``epoch`` is missing or is counted from 0, or there are no other numbers.
    """
    if "epoch" not in frame:
        raise ValueError(f"curves have the columns {', '.join(map(str, frame.columns))}, but 'epoch' is missing.")
    if (frame["epoch"] == 0).any():
        raise ValueError("curves count epochs from 0, as an older kplab did. Read them by kplab.load(run).curves().")
    numbers = frame.select_dtypes("number").dropna(axis=1, how="all")
    table = numbers.groupby("epoch").mean().drop(columns=["step", "seconds"], errors="ignore")
    kinds = {column: curve_kind(str(column)) for column in table.columns}
    present = [kind for kind in CURVE_KINDS if kind in kinds.values()]
    if not present:
        raise ValueError("curves contain no numbers besides the epoch. Was anything logged?")
    plot, panels = look.figure(1, len(present), size=(4.0 * len(present), 3.0))
    for panel, kind in zip(panels, present, strict=True):
        columns = [column for column in table.columns if kinds[column] == kind]
        for column, colour in zip(columns, look.colours(len(columns)), strict=True):
            line = table[column].dropna()
            # a line alone does not show a single epoch
            marker = "o" if len(line) < 20 else ""
            panel.plot(line.index, line, color=colour, lw=1.4, marker=marker, ms=3, label=str(column))
        look.label(panel, title=columns[0] if len(columns) == 1 else kind, x="epoch", grid="y")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        positive = bool((table[columns].min() > 0).all())
        if kind == "loss" and positive and float(table[columns].max().max() / table[columns].min().min()) > 10:
            panel.set_yscale("log")
        if kind != "loss":
            panel.set_ylim(bottom=min(0.0, float(table[columns].min().min())))
        look.legend(panel)
    return plot


def pck(
    curves: Sequence[tuple[str, np.ndarray, np.ndarray]], *, x: str = "distance / reference length", title: str = "PCK"
) -> Figure:
    """PCK by distance: the fraction of keypoints within a distance.

    Args:
        curves: (label, thresholds (T,), fraction of keypoints (T,) in [0, 1]) of each run.
        x: label of the x axis, with the unit of the thresholds.
        title: of the figure.
    """
    plot, (panel,) = look.figure(size=(5.0, 3.5))
    for (name, thresholds, values), colour in zip(curves, look.colours(len(curves)), strict=True):
        panel.plot(thresholds, values, color=colour, lw=1.6, label=name)
    look.label(panel, title=title, x=x, y="share of keypoints", grid="both")
    panel.set_ylim(0, 1.02)
    panel.set_xlim(left=0)
    look.legend(panel)
    return plot


def path(times: np.ndarray, xy: np.ndarray, true: np.ndarray | None = None, title: str = "") -> Figure:
    """The path of a keypoint over time: x and y by time, and its way in the image.

    Args:
        times: (T,) seconds.
        xy: (T, 2) predicted positions, pixels; NaN where there is none.
        true: (T, 2) true positions, if they are known.
        title: of the figure.
    """
    plot, panels = look.figure(1, 3, size=(9.5, 2.8))
    for axis, (panel, name) in enumerate(zip(panels, ("x", "y"), strict=False)):
        if true is not None:
            panel.plot(times, true[:, axis], color=look.GREY, lw=3, alpha=0.4, label="truth")
        panel.plot(times, xy[:, axis], color=look.BLUE, lw=1.4, marker="o", ms=2, label="prediction")
        look.label(panel, title=f"{title} {name}".strip(), x="seconds", y="pixels", grid="y")
        look.legend(panel)
    panel = panels[2]
    if true is not None:
        panel.plot(*true.T, color=look.GREY, lw=3, alpha=0.4)
    panel.plot(*xy.T, color=look.BLUE, lw=1.0, marker="o", ms=2)
    look.label(panel, title="in the image", x="x, pixels", y="y, pixels", grid="both")
    panel.set_aspect("equal", adjustable="datalim")
    panel.invert_yaxis()
    return plot
