"""Tables of confusion, and accuracy by the number of examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from kplab.viz import look


def confusion(true: Sequence[str], found: Sequence[str], title: str = "", last: str = "unknown") -> Figure:
    """Counts of each pair of a true and a found name.

    Args:
        true: true name of each case.
        found: name that was found.
        title: of the figure.
        last: name whose row and column are the last ones.
    """
    names = sorted(dict.fromkeys([*true, *found]), key=lambda name: name == last)
    rows, columns = [n for n in names if n in true], [n for n in names if n in found]
    counts = np.zeros((len(rows), len(columns)), dtype=int)
    np.add.at(counts, ([rows.index(t) for t in true], [columns.index(f) for f in found]), 1)
    plot, (panel,) = look.figure(size=(1.6 + 0.5 * len(columns), 1.3 + 0.36 * len(rows)))
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    panel.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), count in np.ndenumerate(counts):
        if count:
            colour = "white" if share[i, j] > 0.5 else look.INK
            panel.text(j, i, str(count), ha="center", va="center", fontsize=8, color=colour)
    panel.set_xticks(range(len(columns)), columns, rotation=40, ha="right")
    panel.set_yticks(range(len(rows)), rows)
    look.label(panel, title=title, x="found", y="true")
    return plot


def by_shots(
    shots: Sequence[int],
    series: Sequence[tuple[str, Sequence[float], Sequence[float], Sequence[float]]],
    title: str = "",
) -> Figure:
    """Accuracy by the number of examples, with its interval.

    Args:
        shots: numbers of examples of each class.
        series: (name, values, lower ends, upper ends) of each condition, shares.
        title: of the figure.
    """
    plot, (panel,) = look.figure(size=(5.0, 3.0))
    for (name, values, low, high), colour in zip(series, look.colours(len(series)), strict=True):
        panel.fill_between(shots, low, high, color=colour, alpha=0.2, lw=0)
        panel.plot(shots, values, color=colour, marker="o", ms=3, lw=1.4, label=name)
    panel.set_xscale("log")
    panel.set_xticks(list(shots), [str(n) for n in shots])
    panel.minorticks_off()
    panel.set_ylim(0, 1.02)
    look.label(panel, title=title, x="examples of each class", y="share", grid="y")
    look.legend(panel)
    return plot
