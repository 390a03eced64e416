"""SIFT points as frames: a place, an angle and a size, as one similarity map each, with their descriptors."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

#: SIFT's layers an octave, and the blur of the first, pixels (Lowe 2004).
LAYERS, SIGMA = 3, 1.6
#: A descriptor spans 4 cells of 3 scales; half of that, in OpenCV's ``size``, which is two scales.
HALF_WIDTH = 3.0


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
    sift = cv2.SIFT_create(most, LAYERS, contrast, 20.0, SIGMA, enable_precise_upscale=True)  # type: ignore[attr-defined]
    points, descriptors = sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    if not points:
        return Features(np.zeros((0, 2), dtype=np.complex128), np.zeros((0, 128), dtype=np.uint8))
    rows = np.array([(p.pt[0], p.pt[1], p.size, p.angle) for p in points], dtype=np.float64)
    # OpenCV counts from the centre of the first pixel; its angles turn as ours do
    frame = np.stack([rows[:, 2] * np.exp(1j * np.deg2rad(rows[:, 3])), rows[:, 0] + 0.5 + 1j * (rows[:, 1] + 0.5)], 1)
    return Features(frame, descriptors.astype(np.uint8))


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
    size = np.maximum(np.broadcast_to(radius, n) / HALF_WIDTH, 2 * SIGMA)
    degrees = np.rad2deg(np.broadcast_to(angle, n)) % 360
    # the pyramid's picture that a point of this size would have been found in: OpenCV packs octave and layer into a number
    level = np.rint(LAYERS * np.log2(size / (2 * SIGMA))).astype(int)
    octave = np.maximum((level - 1) // LAYERS, 0)
    layer = np.clip(level - LAYERS * octave, 0, LAYERS)
    points = [
        cv2.KeyPoint(float(z.real - 0.5), float(z.imag - 0.5), float(s), float(d), 1.0, int(o | (v << 8)), i)
        for i, (z, s, d, o, v) in enumerate(zip(places, size, degrees, octave, layer, strict=True))
    ]
    out = np.zeros((n, 128), dtype=np.uint8)
    if n:
        sift = cv2.SIFT_create(0, LAYERS, 0.04, 10.0, SIGMA, enable_precise_upscale=True)  # type: ignore[attr-defined]
        kept, descriptors = sift.compute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), points)
        # OpenCV may leave out points or put them in another order
        if len(kept):
            out[[p.class_id for p in kept]] = descriptors.astype(np.uint8)
    return out


def root(descriptor: np.ndarray) -> np.ndarray:
    """RootSIFT: the square root of shares, of length 1, whose Euclidean distance is Hellinger's; 0 where there is nothing.

    Source: Arandjelovic & Zisserman, "Three things everyone should know to improve object retrieval", 2012.
    """
    d = descriptor.astype(np.float32)
    return np.sqrt(d / np.maximum(d.sum(-1, keepdims=True), 1e-12))
