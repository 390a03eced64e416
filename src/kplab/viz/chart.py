"""Charts for print, drawn with matplotlib from their description in ``viz.plot``.

The colour of a series is an index into ``PALETTE``, so that a run has the same colour in all charts.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kplab.viz import look
from kplab.viz.plot import Plot

#: One colour per run; the static files of the dashboard have the same ones.
PALETTE = (look.BLUE, look.VERMILLION, look.GREEN, look.PURPLE, look.ORANGE, look.SKY, look.GREY, look.INK)
#: Width of a column of a paper, inches.
COLUMN = 3.4


def colour(of: int | str) -> str:
    """The colour of a series."""
    return of if isinstance(of, str) else PALETTE[of % len(PALETTE)]


def draw(plot: Plot, width: float = COLUMN, height: float | None = None) -> Figure:
    """Draw a chart for print.

    Args:
        width: inches.
        height: inches; None depends on the content.
    """
    rows = len(plot.categories) * ((1 if plot.own_rows else max(1, len(plot.series))) * 0.35 + 0.65)
    tall = height or (0.7 + 0.14 * rows if plot.kind in ("dot", "bar") else 0.72 * width)
    figure, (panel,) = look.figure(size=(width, tall))
    {"line": _lines, "scatter": _points, "dot": _rows, "bar": _rows}[plot.kind](panel, plot)
    look.label(panel, title=plot.title, x=plot.x, y=plot.y, grid="x" if plot.categories else "both")
    for text in (panel.title, panel.xaxis.label, panel.yaxis.label):
        text.set_fontsize(8)
    panel.tick_params(labelsize=7)
    if plot.log_x:
        panel.set_xscale("log")
    if plot.log_y:
        panel.set_yscale("log")
    if plot.x_range:
        panel.set_xlim(*plot.x_range)
    if plot.y_range:
        panel.set_ylim(*plot.y_range)
    if len(plot.series) > 1 and plot.kind != "scatter" and not plot.own_rows:
        panel.legend(frameon=False, fontsize=6.5, labelcolor=look.INK)
    return figure


def _finite(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def _lines(panel: Axes, plot: Plot) -> None:
    for s in plot.series:
        x, y = _finite(s.x), _finite(s.y)
        style = "--" if s.dashed else "-"
        marker = "o" if np.isfinite(y).sum() < 12 and not plot.steps else ""
        how = "steps-post" if plot.steps else "default"
        panel.plot(x, y, style, color=colour(s.colour), lw=1.2, marker=marker, ms=2.5, label=s.name, drawstyle=how)
    if plot.x == "epoch":
        low, high = panel.get_xlim()
        if high - low < 2:  # a single epoch
            panel.set_xlim(low - 1, high + 1)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def _points(panel: Axes, plot: Plot) -> None:
    for s in plot.series:
        panel.plot(_finite(s.x), _finite(s.y), "--" if s.dashed else "o", color=colour(s.colour), ms=5, lw=1)
        for x, y, text in zip(s.x, s.y, s.labels, strict=False):
            if x is not None and y is not None:
                panel.annotate(text, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=6, color=look.INK)


def _rows(panel: Axes, plot: Plot) -> None:
    rows, count = np.arange(len(plot.categories)), 1 if plot.own_rows else max(1, len(plot.series))
    if plot.reference is not None:
        panel.axvline(plot.reference, color=look.GREY, lw=0.8, ls=(0, (4, 3)))
    for i, s in enumerate(plot.series):
        at, x = rows + (0 if plot.own_rows else (i - (count - 1) / 2) * 0.7 / count), _finite(s.x)
        if plot.kind == "bar":
            panel.barh(at, x, height=0.6 / count, color=colour(s.colour), label=s.name)
            continue
        if s.low:
            panel.hlines(at, _finite(s.low), _finite(s.high), color=colour(s.colour), lw=1.4)
        panel.plot(x, at, "o", color=colour(s.colour), ms=3.5, label=s.name, clip_on=False)
    panel.set_yticks(rows, plot.categories)
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    if plot.kind == "bar":
        panel.set_xlim(left=0)


def encoded(plot: Plot, kind: str, width: float = COLUMN) -> bytes:
    """A chart as the bytes of a file.

    Args:
        kind: svg, pdf or png. The text of an SVG stays text.
        width: inches.
    """
    stream = io.BytesIO()
    stamp = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}[kind]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kplab", "pdf.fonttype": 42}):
        draw(plot, width).savefig(stream, format=kind, metadata=stamp, dpi=300 if kind == "png" else "figure")
    return stream.getvalue()


def write(plot: Plot, path: Path, width: float = COLUMN) -> Path:
    """Write a chart as SVG, PDF or PNG, by the ending of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(plot, path.suffix.lstrip(".").lower(), width))
    return path
