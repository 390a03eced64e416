"""SIFT points as frames (position, angle and size, stored as one similarity map each) with their descriptors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kplab.classical.detectors import SIFT, SIFT_SIGMA, SIFTDescriptor
from kplab.classical.points import Points

#: Half the side of a descriptor's window in diameters of a point: 4 cells of 3 scales; a diameter is two scales.
HALF_WIDTH = 3.0
#: Largest ratio of the principal curvatures of a point. Lowe 2004 has 10; 20 keeps points on outlines of untextured animals.
EDGE = 20.0


@dataclass
class Features:
    """F SIFT features of an image.

    Args:
        frame: (F, 2) complex similarity from the feature's frame to the image: size and angle, and position (see
            ``voting``); pixels, continuous.
        descriptor: (F, 128) uint8 SIFT descriptors; compare them after ``root``.
    """

    frame: np.ndarray
    descriptor: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)


def features(image: np.ndarray, contrast: float, count: int) -> Features:
    """The strongest SIFT features of an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        contrast: OpenCV's contrast threshold; 0.04 is common.
        count: largest number of features.
    """
    sift = SIFT(contrast=contrast, edge=EDGE, count=count)
    points = sift.detect(image)
    frame = np.stack([points.size * np.exp(1j * np.deg2rad(points.angle)), points.xy @ [1, 1j]], axis=1)
    return Features(frame, sift.describe(image, points).astype(np.uint8))


def described(image: np.ndarray, places: np.ndarray, radius: ArrayLike, angle: ArrayLike) -> np.ndarray:
    """SIFT descriptors at given positions, whether or not SIFT would detect a point there.

    Args:
        image: (H, W, 3) uint8 RGB.
        places: (N,) complex positions, pixels.
        radius: (N,) or scalar, half the side of the described window, pixels.
        angle: (N,) or scalar, radians.

    Returns:
        (N, 128) uint8.
    """
    n = len(places)
    size = np.maximum(np.broadcast_to(radius, n) / HALF_WIDTH, 2 * SIFT_SIGMA)
    degrees = np.rad2deg(np.broadcast_to(angle, n)) % 360
    points = Points(np.stack([places.real, places.imag], axis=1), np.zeros(n), size, degrees)
    return SIFTDescriptor()(image, points).astype(np.uint8)


def root(descriptor: np.ndarray) -> np.ndarray:
    """RootSIFT: the square root of the L1-normalised descriptor, of Euclidean length 1; zeros stay zeros.

    The Euclidean distance of RootSIFT descriptors is the Hellinger distance of the SIFT descriptors.

    Source: Arandjelovic & Zisserman, "Three things everyone should know to improve object retrieval", 2012.
    """
    d = descriptor.astype(np.float32)
    return np.sqrt(d / np.maximum(d.sum(-1, keepdims=True), 1e-12))
