"""Places of interest in an image: polygons and circles, in continuous pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kplab.errors import ConfigError


class Zone(Protocol):
    """A place with a name."""

    @property
    def name(self) -> str:
        """Name of the zone."""

    def contains(self, xy: np.ndarray) -> np.ndarray:
        """(...) bool of points (..., 2); False where a point is NaN."""

    def outline(self) -> np.ndarray:
        """(P, 2) corners of the zone's outline, to draw it."""


@dataclass(frozen=True)
class Polygon:
    """A polygon; where its sides cross, the even-odd rule decides.

    Args:
        name: of the zone.
        corners: (P, 2) pixels, in order, three or more.

    Raises:
        ConfigError: these are no corners of a polygon.
    """

    name: str
    corners: Sequence[Sequence[float]] | np.ndarray

    def __post_init__(self) -> None:
        corners = self.outline()
        if corners.ndim != 2 or corners.shape[1:] != (2,) or len(corners) < 3 or not np.isfinite(corners).all():
            raise ConfigError(f"zone '{self.name}': give three or more corners [x, y], but got {self.corners}.")

    def outline(self) -> np.ndarray:
        """(P, 2) the corners."""
        return np.asarray(self.corners, dtype=np.float64)

    def contains(self, xy: np.ndarray) -> np.ndarray:
        """(...) bool of points (..., 2); False where a point is NaN.

        A point is inside if a ray from it to the right crosses the sides an odd number of times.
        """
        x, y = np.moveaxis(np.asarray(xy, dtype=np.float64), -1, 0)
        inside = np.zeros(x.shape, dtype=bool)
        start = self.outline()
        for (ax, ay), (bx, by) in zip(start, np.roll(start, -1, axis=0), strict=True):
            if ay != by:
                inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * (bx - ax) / (by - ay))
        return inside


@dataclass(frozen=True)
class Circle:
    """A disc.

    Args:
        name: of the zone.
        centre: (x, y), pixels.
        radius: pixels.

    Raises:
        ConfigError: this is no circle.
    """

    name: str
    centre: tuple[float, float]
    radius: float

    def __post_init__(self) -> None:
        if len(self.centre) != 2 or not np.isfinite([*self.centre, self.radius]).all() or self.radius <= 0:
            raise ConfigError(
                f"zone '{self.name}': got centre {self.centre} and radius {self.radius}. Give x, y and r > 0."
            )

    def outline(self) -> np.ndarray:
        """(64, 2) points of the circle."""
        angle = np.arange(64) * 2 * np.pi / 64
        return np.asarray(self.centre) + self.radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)

    def contains(self, xy: np.ndarray) -> np.ndarray:
        """(...) bool of points (..., 2); False where a point is NaN."""
        found: np.ndarray = np.linalg.norm(np.asarray(xy) - self.centre, axis=-1) <= self.radius
        return found
