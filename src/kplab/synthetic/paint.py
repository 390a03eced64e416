"""Surfaces: noise, colours, patterns and decals. Colours are RGB in [0, 1]."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

Pattern = Callable[[np.ndarray, "Noise"], np.ndarray]
"""Points (3, N) on a solid, in its axes and body units, and the image's noise, to weights (N,) of a second colour."""


@cache
def _atlas() -> np.ndarray:
    """(4, SIDE, SIDE) float32 tileable random fields: three with detail at all scales, and a fine one."""
    rng = np.random.default_rng(0)
    total = np.zeros((Noise.SIDE, Noise.SIDE, 4), dtype=np.float32)
    cells, weight = 4, 1.0
    while cells <= Noise.SIDE:
        grid = np.pad(rng.standard_normal((cells, cells, 4), dtype=np.float32), ((2, 2), (2, 2), (0, 0)), mode="wrap")
        step = Noise.SIDE // cells
        wide = cv2.resize(grid, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
        rim = 2 * step
        if cells < 32:
            wide[..., 3] = 0
        total += weight * wide[rim:-rim, rim:-rim]
        cells, weight = cells * 2, weight * 0.7
    return np.ascontiguousarray(((total - total.mean((0, 1))) / total.std((0, 1))).transpose(2, 0, 1))


class Noise:
    """Random fields of mean about 0 and standard deviation about 1, at a random offset for each image."""

    SIDE = 512

    def __init__(self, rng: np.random.Generator) -> None:
        self.fields = _atlas()
        # far enough from 0 that truncation rounds down
        self.shift = (rng.integers(0, self.SIDE, (4, 2)) + 64 * self.SIDE).tolist()
        self.flip = rng.choice([-1.0, 1.0], 2).tolist()

    def at(self, points: np.ndarray, scale: float, field: int = 0) -> np.ndarray:
        """(N,) values at points (3, N); ``scale`` is the size of the largest blobs, in the points' unit."""
        step = self.SIDE / (4.0 * scale)
        across, down = self.shift[field]
        shear = (0.6 * step) * points[2]
        u = (points[0] * (step * self.flip[0]) + (shear + across)).astype(np.int32)
        v = (points[1] * (step * self.flip[1]) + (shear + down)).astype(np.int32)
        u &= self.SIDE - 1
        v &= self.SIDE - 1
        v *= self.SIDE
        v += u
        return self.fields[field].ravel().take(v)

    def picture(self, rng: np.random.Generator, size: tuple[int, int], zoom: float, field: int) -> np.ndarray:
        """(H, W, 1) crop of a field, rotated, enlarged ``zoom`` times."""
        angle = rng.uniform(0, 2 * np.pi)
        c, s = np.cos(angle) / zoom, np.sin(angle) / zoom
        move = np.array([[c, -s, rng.uniform(0, self.SIDE)], [s, c, rng.uniform(0, self.SIDE)]])
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(self.fields[field], move, size, flags=how, borderMode=cv2.BORDER_WRAP)[..., None]


@dataclass(frozen=True)
class Decal:
    """A texture projected onto a solid from the front, along the solid's z axis.

    Args:
        texels: (S, S, 4) uint8 RGB and opacity.
        extent: the texture spans [-extent, extent] along the solid's x and y axes, y up.
        offset: (3,) from the solid's origin to the texture's, in the solid's axes.
    """

    texels: np.ndarray
    extent: float
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def over(self, colour: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Colours (3, N) at points (3, N), with the texture over them."""
        texels, half = self.texels, len(self.texels) / 2
        x, y, z = self.offset
        # OpenCV's sample centres are at whole numbers, so the texture's edge is at -0.5
        u = (points[0] - x) * (half / self.extent) + (half - 0.5)
        v = (y - points[1]) * (half / self.extent) + (half - 0.5)
        shrink = round(float(np.median(np.hypot(np.diff(u), np.diff(v)))) / 1.2) if len(u) > 1 else 1
        if shrink > 1:
            # bilinear sampling would skip texels
            side = max(len(texels) // shrink, 1)
            texels = cv2.resize(texels, (side, side), interpolation=cv2.INTER_AREA)
            u, v = (u + 0.5) * (side / (2 * half)) - 0.5, (v + 0.5) * (side / (2 * half)) - 0.5
        found = np.empty((len(u), 4), dtype=np.float32)
        # OpenCV stores columns in 16 bits
        for start in range(0, len(u), 32000):
            rows = slice(start, start + 32000)
            found[rows] = cv2.remap(texels, u[None, rows], v[None, rows], cv2.INTER_LINEAR)[0]
        picture = np.ascontiguousarray(found.T) / 255
        return colour + (picture[:3] - colour) * (picture[3] * (points[2] > z))


@dataclass(frozen=True)
class Paint:
    """A colour, a second colour with the weight of a pattern, noise, gloss and an optional decal."""

    colour: np.ndarray
    second: np.ndarray | None = None
    pattern: Pattern | None = None
    grain: float = 0.06
    grain_scale: float = 0.3
    gloss: float = 0.1
    field: int = 0
    decal: Decal | None = None

    def albedo(self, points: np.ndarray, noise: Noise) -> np.ndarray:
        """(3, N) float32 colours at points (3, N) in the solid's axes, body units."""
        colour = np.repeat(self.colour.astype(np.float32)[:, None], points.shape[1], axis=1)
        if self.pattern is not None and self.second is not None:
            change = (self.second - self.colour).astype(np.float32)
            colour += change[:, None] * self.pattern(points, noise)
        colour *= 1 + self.grain * noise.at(points, self.grain_scale, self.field)
        return colour if self.decal is None else self.decal.over(colour, points)


def stripes(direction: np.ndarray, period: float, sharp: float = 6.0, waver: float = 0.0) -> Pattern:
    """Stripes across a direction; ``waver`` bends them, as on a zebra."""

    def weight(points: np.ndarray, noise: Noise) -> np.ndarray:
        phase = (direction / period).astype(np.float32) @ points
        if waver:
            phase = phase + waver * noise.at(points, 2.5 * period, 1)
        return np.clip(0.5 + sharp * 0.5 * np.sin(2 * np.pi * phase), 0, 1)

    return weight


def checks(period: float) -> Pattern:
    """A tartan of two sets of stripes."""

    def weight(points: np.ndarray, noise: Noise) -> np.ndarray:
        a = np.sin(2 * np.pi * (points[0] + points[2]) / period) > 0
        b = np.sin(2 * np.pi * points[1] / period) > 0
        return (a.astype(np.float32) + b) / 2

    return weight


def blotches(scale: float, share: float, sharp: float = 4.0) -> Pattern:
    """Spots and patches where the noise is high; ``share`` is roughly the fraction covered."""
    level = 2.2 * (0.5 - share)

    def weight(points: np.ndarray, noise: Noise) -> np.ndarray:
        return np.clip(0.5 + sharp * (noise.at(points, scale, 2) - level), 0, 1)

    return weight


def beyond(axis: int, at: float, sign: float = 1.0, soft: float = 0.01) -> Pattern:
    """The part beyond a plane: the end of a sleeve, a sock, a pale belly."""

    def weight(points: np.ndarray, noise: Noise) -> np.ndarray:
        return np.clip(0.5 + sign * (points[axis] - at) / soft, 0, 1)

    return weight


def hsv(h: float, s: float, v: float) -> np.ndarray:
    """(3,) RGB of hue, saturation and value, all in [0, 1]."""
    return np.array(colorsys.hsv_to_rgb(h, s, v))


def any_colour(rng: np.random.Generator) -> np.ndarray:
    """(3,) random RGB; greys and muted colours are more frequent than saturated ones."""
    s = rng.beta(1.0, 2.0)
    return hsv(rng.random(), s, rng.uniform(0.08, 0.95))


SKINS = np.array(
    [
        [0.96, 0.82, 0.72],
        [0.91, 0.74, 0.60],
        [0.82, 0.62, 0.46],
        [0.66, 0.46, 0.32],
        [0.46, 0.31, 0.21],
        [0.30, 0.20, 0.14],
    ]
)
HAIRS = np.array(
    [
        [0.07, 0.05, 0.04],
        [0.20, 0.12, 0.07],
        [0.42, 0.26, 0.13],
        [0.75, 0.60, 0.36],
        [0.58, 0.25, 0.12],
        [0.7, 0.7, 0.7],
    ]
)


def between(rng: np.random.Generator, palette: np.ndarray) -> np.ndarray:
    """(3,) random colour between two neighbours of a palette, with noise."""
    i = rng.integers(len(palette) - 1)
    t = rng.random()
    return np.clip(palette[i] * (1 - t) + palette[i + 1] * t + rng.normal(0, 0.02, 3), 0.02, 1.0)


def cloth(rng: np.random.Generator) -> Paint:
    """Plain, striped, checked or printed cloth."""
    colour, second = any_colour(rng), any_colour(rng)
    kind = rng.random()
    pattern: Pattern | None = None
    if kind < 0.22:
        axis = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.6]])[rng.integers(2)]
        pattern = stripes(axis, rng.uniform(0.05, 0.16))
    elif kind < 0.34:
        pattern = checks(rng.uniform(0.06, 0.16))
    elif kind < 0.5:
        pattern = blotches(rng.uniform(0.05, 0.3), rng.uniform(0.25, 0.5))
    return Paint(colour, second, pattern, rng.uniform(0.03, 0.12), rng.uniform(0.1, 0.5), rng.uniform(0, 0.12))
