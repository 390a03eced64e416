"""Graded changes of an image, each with the exact homography from the image to what became of it.

Homographies map continuous coordinates (see ``ops.affine``): x_changed ~ H x_image. Where a change shows what was outside
the image, the image is mirrored there, so that no edge is added; points outside it are no part of what both images see.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from kplab.errors import ConfigError
from kplab.ops import affine


def rotation(image: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Turned about its centre, clockwise as seen, on a canvas of the same size."""
    height, width = image.shape[:2]
    centre = affine.translation(width / 2, height / 2)
    matrix = centre @ affine.rotation(degrees) @ np.linalg.inv(centre)
    return warp(image, matrix, (width, height)), matrix


def scale(image: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Resized; shrinking averages."""
    height, width = image.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, size, interpolation=how), affine.scaling(size[0] / width, size[1] / height)


def perspective(image: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture on a wall that turns away about its upright middle, seen from as far as it is wide."""
    if not -89 <= degrees <= 89:
        raise ConfigError(f"a picture turned away by {degrees} degrees is not seen. Use -89 to 89.")
    height, width = image.shape[:2]
    a, f = np.deg2rad(degrees), float(width)
    centre = affine.translation(width / 2, height / 2)
    turn = np.array([[f * np.cos(a), 0, 0], [0, f, 0], [np.sin(a), 0, f]]) / f
    matrix = centre @ turn @ np.linalg.inv(centre)
    # the far side shrinks: drawn twice as large, then averaged
    double = warp(image, affine.scaling(2, 2) @ matrix, (2 * width, 2 * height))
    return cv2.resize(double, (width, height), interpolation=cv2.INTER_AREA), matrix


def blur(image: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian of sigma pixels."""
    return (cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0 else image.copy()), np.eye(3)


def noise(image: np.ndarray, sigma: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian noise of sigma grey levels, of its own in every channel; always the same for a seed."""
    grain = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return to_bytes(image + grain), np.eye(3)


def gain(image: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Brightness times a factor; what exceeds 255 is cut off, as in a camera."""
    return to_bytes(image * float(factor)), np.eye(3)


def bias(image: np.ndarray, levels: float) -> tuple[np.ndarray, np.ndarray]:
    """Brightness plus grey levels; cut off at 0 and 255."""
    return to_bytes(image + float(levels)), np.eye(3)


def jpeg(image: np.ndarray, quality: float) -> tuple[np.ndarray, np.ndarray]:
    """Compressed and read back."""
    if not 1 <= quality <= 100:
        raise ConfigError(f"a JPEG of quality {quality} can't be made. Use 1 to 100.")
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)), np.eye(3)


#: property -> how it is changed, and what its strength is measured in
CHANGES: dict[str, tuple[Callable[..., tuple[np.ndarray, np.ndarray]], str]] = {
    "rotation": (rotation, "degrees"),
    "scale": (scale, "factor"),
    "perspective": (perspective, "degrees"),
    "blur": (blur, "sigma, px"),
    "noise": (noise, "sigma, grey levels"),
    "gain": (gain, "factor"),
    "bias": (bias, "grey levels"),
    "jpeg": (jpeg, "quality"),
}


def warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample through a homography of continuous coordinates, mirrored beyond the image.

    Args:
        image: (H, W[, C]) uint8.
        matrix: (3, 3) image to output.
        size: (width, height) of the output.
    """
    to_index = affine.translation(-0.5, -0.5) @ matrix @ affine.translation(0.5, 0.5)
    return cv2.warpPerspective(image, to_index, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Rounded and cut off to uint8."""
    return np.clip(np.round(image), 0, 255).astype(np.uint8)
