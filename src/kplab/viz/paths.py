"""Paths of subjects, zones and outlines of objects on an image, and what subjects did over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import cv2
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from kplab.ops import affine
from kplab.viz import look

# fixed-point bits of OpenCV's line coordinates
_SHIFT = 4
_WHITE, _CASING = (255, 255, 255), (20, 20, 20)


def outlines(
    image: np.ndarray, named: Mapping[str, np.ndarray], scale: float = 1.0, colour: tuple[int, int, int] = _WHITE
) -> np.ndarray:
    """Closed outlines with their names.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        named: name to (P, 2) corners, pixels of the image.
        scale: output pixels per image pixel.
        colour: RGB.

    Returns:
        (round(H * scale), round(W * scale), 3) uint8 RGB.
    """
    canvas = _enlarged(image, scale)
    for shape in named.values():
        _polyline(canvas, np.asarray(shape) * scale, colour, 2, closed=True)
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    for name, shape in named.items():
        corners = np.asarray(shape) * scale
        x, y = (float(v) for v in corners[corners[:, 1].argmin()])
        x = min(max(x, 2.0), max(2.0, canvas.shape[1] - _font().getlength(name) - 2))
        pen.text((x, y - 18 if y > 20 else y + 4), name, colour, _font(), stroke_width=2, stroke_fill=_CASING)
    return np.array(picture)


def paths(image: np.ndarray, xy: np.ndarray, scale: float = 1.0, trail: int | None = None) -> np.ndarray:
    """The paths of several subjects, one colour each, interrupted where a subject is not seen; a dot is the last position.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        xy: (I, T, 2) positions in the frames up to this image, pixels; NaN where a subject is not seen.
        scale: output pixels per image pixel.
        trail: number of the last frames whose path is drawn; None draws all.

    Returns:
        (round(H * scale), round(W * scale), 3) uint8 RGB.
    """
    canvas = _enlarged(image, scale)
    for path, colour in zip(xy, look.colours(len(xy)), strict=True):
        points = path[-trail:] if trail else path
        seen = np.isfinite(points).all(-1)
        ends = np.flatnonzero(np.diff(np.concatenate([[0], seen.astype(np.int8), [0]])))
        for start, stop in ends.reshape(-1, 2).tolist():
            _polyline(canvas, points[start:stop] * scale, look.rgb(colour), 2)
        if len(seen) and seen[-1]:
            for radius, fill in ((6, _CASING), (5, look.rgb(colour))):
                centre = np.rint((points[-1] * scale - 0.5) * 2**_SHIFT).astype(int).tolist()
                cv2.circle(canvas, centre, radius << _SHIFT, fill, -1, cv2.LINE_AA, _SHIFT)
    return canvas


def timeline(
    time: np.ndarray, speed: np.ndarray, inside: Mapping[str, np.ndarray], names: Sequence[str], unit: str = "px"
) -> Figure:
    """Speed over time, and when each subject was in each zone.

    Args:
        time: (T,) seconds.
        speed: (I, T) units per second; NaN where unknown.
        inside: name of each zone to (I, T) bool.
        names: of the I subjects.
        unit: of lengths.
    """
    plot, panels = look.figure(2, size=(8.0, 2.6 + 0.22 * len(inside) * len(names)))
    colours = look.colours(len(names))
    for row, name, colour in zip(speed, names, colours, strict=True):
        panels[0].plot(time, row, color=colour, lw=1.1, label=name)
    look.label(panels[0], title="speed", x="seconds", y=f"{unit} per second", grid="y")
    panels[0].set_ylim(bottom=0)
    look.legend(panels[0])
    labels: list[str] = []
    half = float(np.median(np.diff(time))) / 2
    for zone, here in inside.items():
        for row, name, colour in zip(here, names, colours, strict=True):
            ends = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]]))).reshape(-1, 2)
            spans = [(float(time[a]) - half, float(time[b - 1] - time[a]) + 2 * half) for a, b in ends]
            panels[1].broken_barh(spans, (len(labels) - 0.35, 0.7), facecolors=colour)
            labels.append(f"{zone}, {name}")
    panels[1].set_yticks(range(len(labels)), labels)
    panels[1].set_ylim(len(labels) - 0.4, -0.6)
    panels[1].set_xlim(panels[0].get_xlim())
    look.label(panels[1], title="in a zone", x="seconds", grid="x")
    return plot


def _enlarged(image: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return np.array(image, order="C")
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    return affine.warp(image, affine.scaling(scale, scale), size)


def _polyline(
    canvas: np.ndarray, xy: np.ndarray, colour: tuple[int, int, int], width: int, closed: bool = False
) -> None:
    # OpenCV's pixel centres are at whole numbers
    points = np.rint((np.clip(xy, -1e5, 1e5) - 0.5) * 2**_SHIFT).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(canvas, [points], closed, _CASING, width + 2, cv2.LINE_AA, _SHIFT)
    cv2.polylines(canvas, [points], closed, colour, width, cv2.LINE_AA, _SHIFT)


@lru_cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 13)
