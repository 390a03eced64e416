"""Interest points of one image, the interface of their detectors, and functions that detectors share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class Points:
    """N interest points of one image, by descending score.

    A location with several orientations (SIFT) has one row for each, in sequence: one point when points are counted, and
    several when they are described.

    Args:
        xy: (N, 2) float64, pixels, continuous (see ``ops.affine``).
        score: (N,) float64, in any unit; higher is more certain.
        size: (N,) float64 diameter, pixels.
        angle: (N,) float64 degrees, from the x axis towards the y axis; NaN where there is none.
    """

    xy: np.ndarray
    score: np.ndarray
    size: np.ndarray
    angle: np.ndarray

    @classmethod
    def make(cls, xy: np.ndarray, score: np.ndarray, size: np.ndarray, angle: np.ndarray | None = None) -> Points:
        """Points sorted by descending score, then by position, so that the rows of a location are adjacent."""
        xy = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
        columns = [np.asarray(c, dtype=np.float64).reshape(-1) for c in (score, size)]
        turned = np.full(len(xy), np.nan) if angle is None else np.asarray(angle, dtype=np.float64).reshape(-1)
        order = np.lexsort((turned, columns[1], xy[:, 1], xy[:, 0], -columns[0]))
        return cls(xy[order], columns[0][order], columns[1][order], turned[order])

    def __len__(self) -> int:
        return len(self.xy)

    def __getitem__(self, rows: np.ndarray) -> Points:
        """A selection of rows: a mask, or ascending indices."""
        return Points(self.xy[rows], self.score[rows], self.size[rows], self.angle[rows])

    @property
    def place(self) -> np.ndarray:
        """(N,) int64 location of each row, counted from 0, ascending."""
        what = np.column_stack([self.xy, self.size])
        return np.concatenate([[0], np.cumsum((what[1:] != what[:-1]).any(1))])[: len(what)]

    def distinct(self) -> Points:
        """The first row of each location."""
        return self[np.unique(self.place, return_index=True)[1]]

    def strongest(self, count: int | None = None, radius: float = 0.0) -> Points:
        """The highest-scoring locations with all their orientations, see ``best``."""
        return self[self.best(count, radius)]

    def best(self, count: int | None = None, radius: float = 0.0) -> np.ndarray:
        """The rows of the highest-scoring locations, with all their orientations.

        Args:
            count: largest number of locations; None is all.
            radius: a location within this distance of a better one is discarded, pixels; 0 keeps all.

        Returns:
            (n,) int64 indices, ascending.
        """
        first = np.unique(self.place, return_index=True)[1]
        kept = np.ones(len(first), dtype=bool)
        if radius > 0 and len(first):
            near = cKDTree(self.xy[first]).query_ball_point(self.xy[first], radius)
            for i, others in enumerate(near):
                if kept[i]:
                    kept[[j for j in others if j > i]] = False
        chosen = np.flatnonzero(kept)[:count]
        return np.flatnonzero(np.isin(self.place, chosen))


class Detector(Protocol):
    """Detects interest points and describes them; ``descriptor`` is the name of the descriptor."""

    descriptor: str

    def detect(self, image: np.ndarray) -> Points:
        """Points of an (H, W) grey or (H, W, 3) RGB uint8 image."""

    def describe(self, image: np.ndarray, points: Points) -> np.ndarray:
        """(N, D) descriptors: float32, compared by Euclidean distance, or packed bits in uint8, by Hamming distance."""


def to_grey(image: np.ndarray) -> np.ndarray:
    """Convert an (H, W) or (H, W, 3) RGB uint8 image to (H, W) uint8."""
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def peaks(response: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Local maxima of a map among their eight neighbours, with subpixel accuracy.

    The offset from the cell's centre is that of the quadratic through the 3x3 cells, -H^-1 g, at most half a cell; 0 where
    H is not negative definite. Of adjacent cells of equal value one is kept; with two, the offset points half way between
    them. Cells on the border are not peaks.

    Args:
        response: (H, W).
        threshold: peaks are above this value.

    Returns:
        (N, 2) (x, y) in cells, continuous, and (N,) the values of the cells.
    """
    r = np.ascontiguousarray(response, dtype=np.float32)
    mask = (r >= cv2.dilate(r, np.ones((3, 3), np.uint8))) & (r > threshold)
    mask[[0, -1]] = mask[:, [0, -1]] = False
    _, component = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    rows, columns = np.nonzero(mask)
    first = np.sort(np.unique(component[rows, columns], return_index=True)[1])
    rows, columns = rows[first], columns[first]

    def at(dx: int, dy: int) -> np.ndarray:
        return r[rows + dy, columns + dx].astype(np.float64)

    here = at(0, 0)
    gx, gy = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    hxx, hyy = at(1, 0) - 2 * here + at(-1, 0), at(0, 1) - 2 * here + at(0, -1)
    hxy = (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)) / 4
    determinant = hxx * hyy - hxy**2
    definite = (hxx < 0) & (determinant > 0)
    safe = np.where(definite, determinant, 1.0)[:, None]
    step = np.column_stack([hxy * gy - hyy * gx, hxy * gx - hxx * gy]) / safe
    step = np.where(definite[:, None], np.clip(step, -0.5, 0.5), 0.0)
    return np.column_stack([columns, rows]) + 0.5 + step, here


def centroid_angles(grey: np.ndarray, xy: np.ndarray, radius: int) -> np.ndarray:
    """Directions from points to the centroid of the brightness around them.

    atan2(sum dy I, sum dx I) over the disc

    Args:
        grey: (H, W) uint8.
        xy: (N, 2) pixels, continuous.
        radius: of the disc, pixels.

    Returns:
        (N,) degrees in [0, 360), from the x axis towards the y axis.

    Source: Rosin, "Measuring corner properties", 1999, as ORB uses it.
    """
    steps = np.arange(-radius, radius + 1, dtype=np.float32)
    dx, dy = np.meshgrid(steps, steps)
    disc = dx**2 + dy**2 <= radius**2
    height, width = grey.shape
    column = np.clip(np.floor(xy[:, 0]).astype(int), 0, width - 1)
    row = np.clip(np.floor(xy[:, 1]).astype(int), 0, height - 1)
    moments = [cv2.filter2D(grey, cv2.CV_32F, np.where(disc, d, 0))[row, column] for d in (dy, dx)]
    return np.rad2deg(np.arctan2(*moments)) % 360
