"""Curves of interest points: a measure by strength of a change, one panel per property, one line per detector."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kplab.viz import look

#: column -> its label in figures
METRICS = {
    "repeatability": "repeatability",
    "localisation_px": "localisation error, px",
    "matching_score": "matching score",
    "mma@3": "matches within 3 px",
}


def curves(frame: pd.DataFrame, metric: str, title: str, units: Mapping[str, str]) -> Figure:
    """Curves of one measure.

    Args:
        frame: columns property, detector, strength and the metric; a row for each combination.
        metric: the column to draw.
        title: label of the metric.
        units: unit of the strength of each property. Factors have a logarithmic axis; JPEG quality decreases to the right.
            The repeatability of random points is dotted, where the frame has a column ``chance``.
    """
    properties = list(dict.fromkeys(frame["property"]))
    detectors = list(dict.fromkeys(frame["detector"]))
    columns = min(4, len(properties))
    rows = -(-len(properties) // columns)
    plot, panels = look.figure(rows, columns, size=(max(5.0, 3.0 * columns), 2.6 * rows + 0.3))
    top = 1.02 if not metric.endswith("px") else None
    for number, (panel, name) in enumerate(zip(panels, properties, strict=False)):
        for detector, colour in zip(detectors, look.colours(len(detectors)), strict=True):
            part = frame[(frame["property"] == name) & (frame["detector"] == detector)].sort_values("strength")
            panel.plot(part["strength"], part[metric], color=colour, lw=1.4, marker="o", ms=3, label=detector)
        if metric == "repeatability" and "chance" in frame:
            part = frame[frame["property"] == name].groupby("strength")["chance"].mean()
            panel.plot(part.index, part, color=look.GREY, lw=0.9, ls=":", label="chance")
        unit = units.get(name, "")
        look.label(panel, title=name, x=unit, y="" if number % columns else title, grid="y")
        if unit == "factor":
            panel.set_xscale("log", base=2)
            panel.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        if unit == "quality":
            panel.invert_xaxis()
        if unit == "image":
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylim(0, top)
    for panel in panels[len(properties) :]:
        panel.set_visible(False)
    look.legend(panels[0])
    return plot


def uniqueness(frame: pd.DataFrame) -> Figure:
    """Cumulative distribution of the ratios of best to second-best match.

    Args:
        frame: columns detector, ratio (ascending) and share, the fraction of points whose ratio is below it.
    """
    plot, (panel,) = look.figure(size=(5.0, 3.5))
    detectors = list(dict.fromkeys(frame["detector"]))
    for detector, colour in zip(detectors, look.colours(len(detectors)), strict=True):
        part = frame[frame["detector"] == detector]
        panel.plot(part["ratio"], part["share"], color=colour, lw=1.4, label=detector)
    panel.axvline(0.8, color=look.GREY, lw=0.8, ls=":")
    look.label(panel, title="uniqueness", x="best / second-best match", y="share of points below", grid="both")
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1.02)
    look.legend(panel)
    return plot
