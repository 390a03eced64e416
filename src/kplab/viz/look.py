"""Common style of all figures: a palette for colour-blind readers, a white background, and PNG output.

Figures are made without pyplot, so that drawing has no global state and works in any thread and without a display.

Source of the palette: Okabe and Ito, Color Universal Design, 2008.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"
INK, GREY, FAINT = "#222222", "#777777", "#DDDDDD"
#: One colour per run; a seventh run has the first colour again.
SERIES = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY)


class Plot(Figure):
    """A figure that notebooks display, with or without an active pyplot backend."""

    def _repr_png_(self) -> bytes:
        return png(self)


def figure(rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.0, 3.5)) -> tuple[Plot, list[Axes]]:
    """A figure and its panels, row by row.

    Args:
        rows: number of rows of panels.
        columns: number of columns of panels.
        size: (width, height) of the whole figure, inches at 120 dots per inch.
    """
    plot = Plot(figsize=size, dpi=120, layout="constrained", facecolor="white")
    panels = [plot.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color(GREY)
        panel.tick_params(colors=INK, labelsize=9, color=GREY, length=3)
        panel.set_axisbelow(True)
    return plot, panels


def label(panel: Axes, title: str = "", x: str = "", y: str = "", grid: str = "") -> None:
    """Set the title and axis labels; ``grid`` is "x", "y", "both" or empty."""
    panel.set_title(title, fontsize=10, loc="left", color=INK)
    panel.set_xlabel(x, fontsize=9, color=INK)
    panel.set_ylabel(y, fontsize=9, color=INK)
    if grid in ("x", "y", "both"):
        panel.grid(axis=grid, color=FAINT, linewidth=0.6)  # type: ignore[arg-type]


def legend(panel: Axes) -> None:
    """Add a legend without a frame, if there is more than one series."""
    if len(panel.get_legend_handles_labels()[0]) > 1:
        panel.legend(frameon=False, fontsize=8, labelcolor=INK)


def colours(count: int) -> Sequence[str]:
    """One colour for each of ``count`` series."""
    return [SERIES[i % len(SERIES)] for i in range(count)]


def rgb(colour: str) -> tuple[int, int, int]:
    """Convert ``"#0072B2"`` to (0, 114, 178).

    >>> rgb(BLUE)
    (0, 114, 178)
    """
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def png(picture: np.ndarray | Figure) -> bytes:
    """PNG bytes of an (H, W, 3) uint8 RGB image or a figure; the same drawing gives the same bytes."""
    if isinstance(picture, Figure):
        stream = io.BytesIO()
        picture.savefig(stream, format="png", metadata={"Software": None})
        return stream.getvalue()
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"a picture of shape {picture.shape} and type {picture.dtype} can't be written: it must be (height, width, 3) "
            "uint8 RGB. Scale it to 0..255 and convert it."
        )
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()


def write_png(path: Path, picture: np.ndarray | Figure) -> Path:
    """Write an (H, W, 3) uint8 RGB image or a figure; creates the folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(picture))
    return path
