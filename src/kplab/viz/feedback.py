"""Feedback on images: angles at joints, lines of text, and signals over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import cv2
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from kplab.viz import look

RGB = tuple[int, int, int]

RIGHT, WRONG, NEUTRAL = look.rgb(look.GREEN), look.rgb(look.VERMILLION), look.rgb(look.BLUE)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def arcs(
    picture: np.ndarray, xy: np.ndarray, labels: Sequence[str], colours: Sequence[RGB], radius: float = 18.0
) -> np.ndarray:
    """Draw angles as sectors with a label outside of each.

    Args:
        picture: (H, W, 3) uint8 RGB; it is not changed.
        xy: (J, 3, 2) first, middle and last point of each angle, pixels; angles with a NaN are left out.
        labels: a text for each, such as "92°".
        colours: RGB of each.
        radius: of the sectors, pixels.
    """
    shown = [j for j in range(len(xy)) if np.isfinite(xy[j]).all()]
    canvas, centre = picture.copy(), np.array(picture.shape[1::-1]) / 2
    for j in shown:
        middle = xy[j, 1]
        start, end = (np.rad2deg(np.arctan2(*(xy[j, k] - middle)[::-1])) for k in (0, 2))
        sweep = (end - start + 180) % 360 - 180
        way = np.deg2rad(start + sweep * np.linspace(0, 1, 24))
        rim = middle + radius * np.stack([np.cos(way), np.sin(way)], axis=-1)
        corners = np.rint((np.concatenate([middle[None], rim]) - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(canvas, [corners], colours[j], cv2.LINE_AA, 4)
    canvas = cv2.addWeighted(canvas, 0.6, picture, 0.4, 0)
    page = Image.fromarray(canvas)
    pen, font = ImageDraw.Draw(page), _font(13)
    for j in shown:
        # away from the sector
        away = xy[j, 1] - (xy[j, 0] + xy[j, 2]) / 2
        length = np.linalg.norm(away)
        away = away / length if length > 1 else np.sign(xy[j, 1] - centre) * [1, 0]
        x, y = xy[j, 1] + (radius + 6) * away
        pen.text((x, y), labels[j], (255, 255, 255), font, "mm", stroke_width=2, stroke_fill=(20, 20, 20))
    return np.array(page)


def captioned(picture: np.ndarray, lines: Sequence[tuple[str, RGB]], size: int = 15) -> np.ndarray:
    """Write lines of text on a dark strip over the upper left corner.

    Args:
        picture: (H, W, 3) uint8 RGB; it is not changed.
        lines: a text and the colour of the mark before it.
        size: of the letters, pixels.
    """
    if not lines:
        return picture.copy()
    font, step = _font(size), round(1.5 * size)
    width = min(picture.shape[1], round(max(font.getlength(text) for text, _ in lines)) + 2 * step)
    height = min(picture.shape[0], len(lines) * step + size // 2)
    canvas = picture.copy()
    canvas[:height, :width] = (canvas[:height, :width] * 0.35).astype(np.uint8)
    page = Image.fromarray(canvas)
    pen = ImageDraw.Draw(page)
    for i, (text, colour) in enumerate(lines):
        y = size // 4 + (i + 0.5) * step
        pen.ellipse((size * 0.5, y - size * 0.3, size * 1.1, y + size * 0.3), fill=colour)
        pen.text((step, y), text, (255, 255, 255), font, "lm")
    return np.array(page)


def signal(
    times: np.ndarray, series: Mapping[str, tuple[np.ndarray, np.ndarray | None]], *, true: np.ndarray | None = None,
    lines: Sequence[float] = (), spans: Sequence[tuple[float, float]] = (), title: str = "", y: str = "degrees",
    reference: str = "truth",
) -> Figure:  # fmt: skip
    """Signals over time with a band of two standard deviations.

    Args:
        times: (T,) seconds.
        series: name to (T,) values, and (T,) standard deviations or None.
        true: (T,) true values, where known.
        lines: horizontal lines, such as thresholds.
        spans: (start, end) of stretches to shade, such as repetitions or alarms, seconds.
        title: of the figure.
        y: label of the y axis.
        reference: what the true values are called.
    """
    plot, (panel,) = look.figure(size=(8.0, 2.8))
    for start, end in spans:
        panel.axvspan(start, end, color=look.SKY, alpha=0.25, lw=0)
    if true is not None:
        panel.plot(times, true, color=look.GREY, lw=3, alpha=0.5, label=reference)
    for (name, (values, sigma)), colour in zip(series.items(), look.colours(len(series)), strict=True):
        panel.plot(times, values, color=colour, lw=1.2, label=name)
        if sigma is not None:
            panel.fill_between(times, values - 2 * sigma, values + 2 * sigma, color=colour, alpha=0.2, lw=0)
    for value in lines:
        panel.axhline(value, color=look.VERMILLION, lw=0.8, ls="--")
    look.label(panel, title=title, x="seconds", y=y, grid="y")
    look.legend(panel)
    return plot
