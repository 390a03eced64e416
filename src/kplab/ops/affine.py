"""Affine maps between frames, and the one pixel convention of kplab.

Coordinates are continuous: the image spans [0, width] x [0, height], and the centre of the pixel in row i, column j is
(j + 0.5, i + 0.5). File formats that store pixel indices (COCO keypoints, DeepLabCut) put the centre of a pixel at whole
numbers instead; their readers and writers convert with ``from_pixel_index`` and ``to_pixel_index``, and nothing else does.
Under this convention a resize by s is ``x' = s x``, a mirror image is ``x' = width - x``, and a map of stride s relates to
its input by ``x_map = x / s``, all without a half-pixel term.
"""

from __future__ import annotations

import cv2
import numpy as np


def from_pixel_index(xy: np.ndarray, first: int = 0) -> np.ndarray:
    """Continuous coordinates of pixel indices.

    Args:
        xy: (..., 2) or any other array of pixel indices, which are whole numbers at the centres of pixels.
        first: index of the first pixel: 0, or 1 in MATLAB.

    >>> from_pixel_index(np.array([0.0, 2.0])), from_pixel_index(np.array([1.0]), first=1)
    (array([0.5, 2.5]), array([0.5]))
    """
    return xy + (0.5 - first)


def to_pixel_index(xy: np.ndarray, first: int = 0) -> np.ndarray:
    """Pixel indices of continuous coordinates: the inverse of ``from_pixel_index``.

    >>> to_pixel_index(np.array([0.5, 2.5]))
    array([0., 2.])
    """
    return xy - (0.5 - first)


def translation(dx: float, dy: float) -> np.ndarray:
    """(3, 3) map that adds (dx, dy)."""
    return np.array([[1.0, 0.0, dx], [0.0, 1.0, dy], [0.0, 0.0, 1.0]])


def scaling(sx: float, sy: float) -> np.ndarray:
    """(3, 3) map that multiplies x by sx and y by sy."""
    return np.diag([sx, sy, 1.0])


def rotation(degrees: float) -> np.ndarray:
    """(3, 3) map about the origin; positive turns the x axis towards the y axis (clockwise as seen, y points down)."""
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a), 0.0], [np.sin(a), np.cos(a), 0.0], [0.0, 0.0, 1.0]])


def mirror(width: float) -> np.ndarray:
    """(3, 3) left-right mirror of a frame of this width: x' = width - x."""
    return np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def fit_box(box: np.ndarray, size: tuple[int, int], padding: float = 1.0) -> np.ndarray:
    """The view of a box: centred, padded, aspect kept, as large as the view allows.

    Args:
        box: (4,) xyxy, source pixels.
        size: (width, height) of the view, pixels.
        padding: factor on the box's sides before it is fitted; 1.25 is usual for top-down models.

    Returns:
        (3, 3) map from source pixels to view pixels.
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    width, height = max(x1 - x0, 1e-6) * padding, max(y1 - y0, 1e-6) * padding
    scale = min(size[0] / width, size[1] / height)
    to_centre = translation(-(x0 + x1) / 2, -(y0 + y1) / 2)
    matrix: np.ndarray = translation(size[0] / 2, size[1] / 2) @ scaling(scale, scale) @ to_centre
    return matrix


def apply(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Map points.

    Args:
        matrix: (3, 3), last row (0, 0, 1).
        xy: (..., 2) points; NaN stays NaN.

    Returns:
        (..., 2) mapped points.
    """
    mapped: np.ndarray = xy @ matrix[:2, :2].T + matrix[:2, 2]
    return mapped


def apply_to_boxes(matrix: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The axis-aligned hulls of mapped boxes: (N, 4) xyxy to (N, 4) xyxy."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    mapped = apply(matrix, corners)
    return np.concatenate([mapped.min(1), mapped.max(1)], axis=1)


def area_scale(matrix: np.ndarray) -> float:
    """How much the map multiplies areas: the absolute determinant of its linear part."""
    return float(abs(np.linalg.det(matrix[:2, :2])))


def warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], fill: int | tuple[int, ...] = 0) -> np.ndarray:
    """Resample an image through a map; shrinking averages, so that small detail is not lost to aliasing.

    Args:
        image: (H, W[, C]) uint8 or float32, source frame.
        matrix: (3, 3) source pixels to output pixels, continuous coordinates.
        size: (width, height) of the output.
        fill: grey level outside the source.

    Returns:
        (height, width[, C]) of the same type.
    """
    scale = np.sqrt(area_scale(matrix))
    source = np.eye(3)
    if scale < 0.5:
        # bilinear sampling sees 2x2 source pixels only: shrink by whole-image area averaging first
        height, width = image.shape[:2]
        small = max(1, round(width * scale)), max(1, round(height * scale))
        source = scaling(width / small[0], height / small[1])
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    # OpenCV puts pixel centres at whole numbers
    to_index = translation(-0.5, -0.5) @ matrix @ source @ translation(0.5, 0.5)
    value = fill if isinstance(fill, tuple) else (fill,) * 4
    return cv2.warpAffine(
        image, to_index[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=value
    )
