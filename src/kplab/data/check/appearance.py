"""What the image looks like around keypoints: mean and standard deviation of colour in a square.

Where left and right keypoints look different, as the legs of an animal that always shows the same side, or a body with marks of
colour, this tells exchanged names that positions do not tell (``chirality.appearance_features``).
"""

from __future__ import annotations

import cv2
import numpy as np

NUMBERS = 6
"""Numbers of a description: mean and standard deviation of L, a and b."""

RADIUS = 0.05
"""Half the side of the square, as a share of the diagonal of the subject's keypoints."""


def describe(pixels: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(N, K, 6) mean and standard deviation of L, a and b around keypoints, as OpenCV scales them for 8 bits.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        xy: (N, K, 2) keypoints of the subjects in this image.

    Returns:
        float32; NaN where a keypoint is unlabelled or outside the image, and for subjects with one keypoint.
    """
    height, width = pixels.shape[:2]
    out = np.full((*xy.shape[:2], NUMBERS), np.nan, dtype=np.float32)
    known = np.isfinite(xy).all(-1)
    known &= (np.nan_to_num(xy, nan=-1) >= 0).all(-1) & (np.nan_to_num(xy, nan=np.inf) < (width, height)).all(-1)
    for i in np.flatnonzero(known.sum(1) >= 2):
        points = xy[i, known[i]]
        radius = max(1.0, RADIUS * float(np.linalg.norm(points.max(0) - points.min(0))))
        low = np.floor(np.maximum(points - radius, 0)).astype(int)
        high = np.ceil(np.minimum(points + radius, (width, height))).astype(int)
        for k, (x0, y0), (x1, y1) in zip(np.flatnonzero(known[i]), low, high, strict=True):
            patch = cv2.cvtColor(np.ascontiguousarray(pixels[y0:y1, x0:x1]), cv2.COLOR_RGB2LAB)
            mean, deviation = cv2.meanStdDev(patch)
            out[i, k] = np.concatenate([mean, deviation])[:, 0]
    return out
