"""Graded changes of an image, each with the exact homography from the image to the changed image.

Homographies map continuous coordinates (see ``ops.affine``): x_changed ~ H x_image. Beyond the border of the image its
mirror image is drawn, so that no edge is added; points there are not in the region that both images show.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from kplab.errors import ConfigError
from kplab.ops import affine


def rotation(image: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """The image rotated about its centre, clockwise on the screen, on a canvas of the same size."""
    height, width = image.shape[:2]
    centre = affine.translation(width / 2, height / 2)
    matrix = centre @ affine.rotation(degrees) @ np.linalg.inv(centre)
    return warp(image, matrix, (width, height)), matrix


def scale(image: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """The image resized; a smaller image is an average of pixels."""
    height, width = image.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, size, interpolation=how), affine.scaling(size[0] / width, size[1] / height)


def perspective(image: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """The image rotated about its vertical middle axis in 3D, seen from a distance of its width."""
    if not -89 <= degrees <= 89:
        raise ConfigError(
            f"an image rotated by {degrees} degrees about its vertical axis can't be drawn. Use -89 to 89."
        )
    height, width = image.shape[:2]
    a, f = np.deg2rad(degrees), float(width)
    centre = affine.translation(width / 2, height / 2)
    turn = np.array([[f * np.cos(a), 0, 0], [0, f, 0], [np.sin(a), 0, f]]) / f
    matrix = centre @ turn @ np.linalg.inv(centre)
    # the far side shrinks: drawn twice as large, then averaged
    double = warp(image, affine.scaling(2, 2) @ matrix, (2 * width, 2 * height))
    return cv2.resize(double, (width, height), interpolation=cv2.INTER_AREA), matrix


def blur(image: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """The image blurred by a Gaussian of sigma pixels."""
    return (cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0 else image.copy()), np.eye(3)


def noise(image: np.ndarray, sigma: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The image plus Gaussian noise of sigma grey levels, independent in every channel; fixed by the seed."""
    grain = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return to_bytes(image + grain), np.eye(3)


def gain(image: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """The image times a factor, clipped at 255."""
    return to_bytes(image * float(factor)), np.eye(3)


def bias(image: np.ndarray, levels: float) -> tuple[np.ndarray, np.ndarray]:
    """The image plus a number of grey levels, clipped at 0 and 255."""
    return to_bytes(image + float(levels)), np.eye(3)


def jpeg(image: np.ndarray, quality: float) -> tuple[np.ndarray, np.ndarray]:
    """The image after JPEG compression."""
    if not 1 <= quality <= 100:
        raise ConfigError(f"a JPEG of quality {quality} can't be made. Use 1 to 100.")
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)), np.eye(3)


#: property -> (function that changes it, unit of the strength)
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
    """Resample an image through a homography of continuous coordinates; beyond its border it is mirrored.

    Args:
        image: (H, W[, C]) uint8.
        matrix: (3, 3) image to output.
        size: (width, height) of the output.
    """
    to_index = affine.translation(-0.5, -0.5) @ matrix @ affine.translation(0.5, 0.5)
    return cv2.warpPerspective(image, to_index, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """The image rounded and clipped to uint8."""
    return np.clip(np.round(image), 0, 255).astype(np.uint8)
