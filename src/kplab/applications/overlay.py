"""Augmented reality: where an object is, by homography or by its pose in space, pictures laid over it, and their jitter.

All pixels are continuous coordinates (see ``ops.affine``): those of a camera matrix too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from kplab.errors import DataError

#: Share of the keypoints that must fit one map or pose, and five of them at least. Of 90 random matches 8 % fit by chance.
MIN_SHARE = 0.25
_TO_INDEX = np.array([[1.0, 0.0, -0.5], [0.0, 1.0, -0.5], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class CameraPose:
    """Where an object is in the frame of the camera: x to the right, y down, z away from it.

    Args:
        rotation: (3, 3) from the object's axes to the camera's.
        translation: (3,) the object's origin, units of the object.
        camera: (3, 3) camera matrix, pixels.
        error: root mean square distance of its keypoints from their projections, pixels.
    """

    rotation: np.ndarray
    translation: np.ndarray
    camera: np.ndarray
    error: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of points (..., 3) in the object's frame; NaN behind the camera."""
        seen = points @ self.rotation.T + self.translation
        pixels = seen @ self.camera.T
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(seen[..., 2:] > 0, pixels[..., :2] / pixels[..., 2:], np.nan)


def camera_matrix(size: tuple[int, int], field_of_view: float = 60.0) -> np.ndarray:
    """Camera matrix of a camera that was not calibrated: square pixels, and the axis through the centre of the image.

    Args:
        size: (width, height), pixels.
        field_of_view: of the longer side, degrees.
    """
    focal = max(size) / 2 / np.tan(np.deg2rad(field_of_view) / 2)
    return np.array([[focal, 0.0, size[0] / 2], [0.0, focal, size[1] / 2], [0.0, 0.0, 1.0]])


def homography(plane: np.ndarray, xy: np.ndarray, tolerance: float = 3.0) -> np.ndarray:
    """The map from a plane to the image that fits most keypoints.

    Args:
        plane: (K, 2) keypoints on the plane, in its own unit, such as pixels of a picture of it.
        xy: (K, 2) the same keypoints in the image, pixels; NaN where not seen.
        tolerance: distance, pixels, beyond which a keypoint is an outlier (RANSAC).

    Returns:
        (3, 3) map; NaN where fewer than four keypoints were seen or too few fit one map, see ``MIN_SHARE``. Four keypoints
        always fit: then nothing tells whether one of them is wrong.

    Raises:
        DataError: the two have other numbers of keypoints.
    """
    plane, xy = _pairs(plane, xy, 2)
    if len(xy) >= 4:
        matrix, fits = cv2.findHomography(plane, xy, cv2.RANSAC, tolerance)
        if matrix is not None and _enough(xy, fits.ravel() > 0, tolerance):
            return matrix
    return np.full((3, 3), np.nan)


def apply(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Map points (..., 2) by a homography (3, 3)."""
    mapped = xy @ matrix[:, :2].T + matrix[:, 2]
    return mapped[..., :2] / mapped[..., 2:]


def camera_pose(
    points: np.ndarray, xy: np.ndarray, camera: np.ndarray, tolerance: float | None = None
) -> CameraPose | None:
    """The pose in space of an object whose keypoints are known in three dimensions (PnP).

    Args:
        points: (K, 3) keypoints of the object, in any unit; not all on a line.
        xy: (K, 2) the same keypoints in the image, pixels; NaN where not seen.
        camera: (3, 3) camera matrix.
        tolerance: distance, pixels, beyond which a keypoint is an outlier (RANSAC); None: there are none.

    Returns:
        The pose; None where fewer than four keypoints were seen, or with ``tolerance`` too few fit one, see ``MIN_SHARE``.

    Raises:
        DataError: the two have other numbers of keypoints.
    """
    points, xy = _pairs(points, xy, 3)
    if len(xy) < 4:
        return None
    chosen: np.ndarray = np.arange(len(xy))
    if tolerance is not None and len(xy) > 4:
        found, *_, inliers = cv2.solvePnPRansac(
            points, xy, camera, None, reprojectionError=tolerance, flags=cv2.SOLVEPNP_EPNP
        )
        if not found or inliers is None or not _enough(xy, np.isin(chosen, inliers), tolerance):
            return None
        chosen = inliers.ravel()
    found, turn, shift = cv2.solvePnP(points[chosen], xy[chosen], camera, None, flags=cv2.SOLVEPNP_SQPNP)
    if not found:
        return None
    turn, shift = cv2.solvePnPRefineLM(points[chosen], xy[chosen], camera, None, turn, shift)
    pose = CameraPose(cv2.Rodrigues(turn)[0], shift.ravel(), camera, 0.0)
    residual = pose.project(points[chosen]) - xy[chosen]
    return CameraPose(pose.rotation, pose.translation, camera, float(np.sqrt((residual**2).sum(-1).mean())))


def _enough(xy: np.ndarray, fits: np.ndarray, tolerance: float) -> bool:
    """Whether keypoints (K, 2) that fit (K,) are too many for chance; those at one place count once."""
    places = len(np.unique(np.rint(xy[fits] / tolerance), axis=0))
    return places >= (4 if len(xy) == 4 else max(5.0, MIN_SHARE * len(xy)))


def _pairs(first: np.ndarray, xy: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Those that are finite in both, as OpenCV takes them."""
    first, xy = np.asarray(first, dtype=np.float64), np.asarray(xy, dtype=np.float64)
    if first.shape != (len(xy), dimensions) or xy.shape[1:] != (2,):
        raise DataError(
            f"an object of {first.shape} and keypoints of {xy.shape}: give (K, {dimensions}) and (K, 2), in the same order."
        )
    both = np.isfinite(first).all(-1) & np.isfinite(xy).all(-1)
    return np.ascontiguousarray(first[both]), np.ascontiguousarray(xy[both])


def jitter(xy: np.ndarray) -> float:
    """Root mean square second difference of paths: 0 for points at rest or at constant speed.

    Independent errors of standard deviation s in x and in y give s * sqrt(12).

    Args:
        xy: (T, P, 2) positions in consecutive frames, pixels; NaN where there is none.

    Returns:
        pixels; NaN where no three consecutive frames are known.
    """
    second = (np.diff(xy, n=2, axis=0) ** 2).sum(-1)
    return float(np.sqrt(second[np.isfinite(second)].mean())) if np.isfinite(second).any() else float("nan")


def paste(image: np.ndarray, picture: np.ndarray, matrix: np.ndarray, opacity: float = 1.0) -> np.ndarray:
    """Lay a picture over a plane of an image.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        picture: (h, w, 3) uint8 RGB.
        matrix: (3, 3) map from the picture's pixels to the image's; the image is returned as it is where this is NaN.
        opacity: 0 to 1.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if not np.isfinite(matrix).all():
        return image.copy()
    size = image.shape[1], image.shape[0]
    index = _TO_INDEX @ matrix @ np.linalg.inv(_TO_INDEX)
    laid = cv2.warpPerspective(picture, index, size, flags=cv2.INTER_LINEAR)
    cover = cv2.warpPerspective(np.ones(picture.shape[:2], dtype=np.float32), index, size)[..., None] * opacity
    return np.rint(image + cover * (laid.astype(np.float32) - image)).astype(np.uint8)


def wireframe(
    image: np.ndarray, xy: np.ndarray, edges: Sequence[tuple[int, int]], colours: Sequence[tuple[int, int, int]],
    width: int = 2,
) -> np.ndarray:  # fmt: skip
    """Draw lines between projected points.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        xy: (P, 2) pixels; lines with an end that is NaN are left out.
        edges: pairs of points.
        colours: RGB of each edge.
        width: of the lines, pixels.
    """
    canvas = image.copy()
    for (a, b), colour in zip(edges, colours, strict=True):
        ends = np.rint((xy[[a, b]] - 0.5) * 16)
        if np.isfinite(ends).all() and (np.abs(ends) < 2**20).all():
            start, end = ends.astype(int).tolist()
            cv2.line(canvas, start, end, colour, width, cv2.LINE_AA, 4)
    return canvas


def box_corners(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """(8, 3) corners and the 12 edges of a box with sides along the axes, from its lowest and highest corner."""
    corners = np.array([[(low, high)[(i >> axis) & 1][axis] for axis in range(3)] for i in range(8)])
    return corners, [(i, i | 1 << axis) for i in range(8) for axis in range(3) if not i >> axis & 1]
