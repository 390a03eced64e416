"""SIFT points as frames: a place, an angle and a size, as one similarity map each, with their descriptors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kplab.classical.detectors import SIFT, SIFT_SIGMA, SIFTDescriptor
from kplab.classical.points import Points

#: A descriptor spans 4 cells of 3 scales; half of that, in diameters of a point, which are two scales.
HALF_WIDTH = 3.0
#: Highest ratio of the principal curvatures of a point: outlines of plain animals are wanted too (Lowe 2004: 10).
EDGE = 20.0


@dataclass
class Features:
    """F points of a picture.

    Args:
        frame: (F, 2) complex, own frame to picture: size and angle, and place (see ``voting``); pixels, continuous.
        descriptor: (F, 128) uint8 as SIFT gives them; ``root`` makes them comparable.
    """

    frame: np.ndarray
    descriptor: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)


def features(image: np.ndarray, contrast: float, most: int) -> Features:
    """SIFT points of a picture, the strongest at most so many.

    Args:
        image: (H, W, 3) uint8 RGB.
        contrast: OpenCV's threshold; 0.04 is usual.
        most: how many.
    """
    sift = SIFT(contrast=contrast, edge=EDGE, count=most)
    points = sift.detect(image)
    frame = np.stack([points.size * np.exp(1j * np.deg2rad(points.angle)), points.xy @ [1, 1j]], axis=1)
    return Features(frame, sift.describe(image, points).astype(np.uint8))


def described(image: np.ndarray, places: np.ndarray, radius: ArrayLike, angle: ArrayLike) -> np.ndarray:
    """SIFT descriptors of given places, whether or not SIFT would find a point there.

    Args:
        image: (H, W, 3) uint8 RGB.
        places: (N,) complex, pixels.
        radius: (N,) or one: half the side of what is described, pixels.
        angle: (N,) or one: radians.

    Returns:
        (N, 128) uint8.
    """
    n = len(places)
    size = np.maximum(np.broadcast_to(radius, n) / HALF_WIDTH, 2 * SIFT_SIGMA)
    degrees = np.rad2deg(np.broadcast_to(angle, n)) % 360
    points = Points(np.stack([places.real, places.imag], axis=1), np.zeros(n), size, degrees)
    return SIFTDescriptor()(image, points).astype(np.uint8)


def root(descriptor: np.ndarray) -> np.ndarray:
    """RootSIFT: the square root of shares, of length 1, whose Euclidean distance is Hellinger's; 0 where there is nothing.

    Source: Arandjelovic & Zisserman, "Three things everyone should know to improve object retrieval", 2012.
    """
    d = descriptor.astype(np.float32)
    return np.sqrt(d / np.maximum(d.sum(-1, keepdims=True), 1e-12))
