"""Repeatability of interest points in two images of a scene, and matching accuracy of their descriptors.

H is the homography from image a to image b: x_b ~ H x_a, continuous coordinates (see ``ops.affine``). The points of both
are filtered to the region that both images show, and the best N of each are kept. The more points, the more are found
again by ``chance``, so measures at different N are not comparable.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist


def project(homography: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Map points through a homography.

    Args:
        homography: (3, 3), scaled so that visible points have a positive third coordinate (usually entry (3, 3) is 1).
        xy: (N, 2) points.

    Returns:
        (N, 2); NaN where a point is at infinity or behind the camera.
    """
    xyz = np.column_stack([xy, np.ones(len(xy))]) @ homography.T
    return xyz[:, :2] / np.where(xyz[:, 2:] > 1e-12, xyz[:, 2:], np.nan)


def common(
    xy: np.ndarray, homography: np.ndarray, size: tuple[int, int], other: tuple[int, int], margin: float = 0.0
) -> np.ndarray:
    """Mask of the points of an image that lie in the region that the other image shows as well.

    Args:
        xy: (N, 2) points of this image.
        homography: (3, 3) this image to the other: H for points of a, its inverse for points of b.
        size: (width, height) of this image.
        other: (width, height) of the other one.
        margin: minimum distance to the border of both images, pixels.

    Returns:
        (N,) bool.
    """
    return inside(xy, size, margin) & inside(project(homography, xy), other, margin)


def inside(xy: np.ndarray, size: tuple[int, int], margin: float = 0.0) -> np.ndarray:
    """(N,) bool: whether points lie in an image, at least ``margin`` from its border; false for NaN."""
    return np.all((xy >= margin) & (xy <= np.array(size) - margin), axis=1)


def assign(distance: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """The largest set of one-to-one pairs within a radius, with the smallest sum of distances.

    Args:
        distance: (N, M) pixels.
        radius: largest distance of a pair, pixels.

    Returns:
        (P,) and (P,) int64 indices of the pairs.

    Source: Hungarian assignment, scipy.optimize.linear_sum_assignment.
    """
    # rows and columns without a near point only make the problem larger
    near = distance <= radius
    rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
    part, allowed = distance[np.ix_(rows, columns)], near[np.ix_(rows, columns)]
    # a forbidden pair costs more than all allowed pairs together, so that the number of allowed pairs is maximal
    i, j = linear_sum_assignment(np.where(allowed, part, 1.0 + radius * (min(part.shape) + 1)))
    kept = allowed[i, j]
    return rows[i[kept]], columns[j[kept]]


def repeatability(a_in_b: np.ndarray, b: np.ndarray, radius: float = 3.0) -> dict[str, float]:
    """Repeatability and localisation error of points.

    Args:
        a_in_b: (N, 2) points of image a, mapped to b; only those in the region that both images show.
        b: (M, 2) points of image b, in the same region.
        radius: distance within which a point is found again, pixels of b.

    Returns:
        repeatability, the fraction of points in P one-to-one pairs, P / min(N, M);
        repeatability_symmetric, the fraction of points with any neighbour, (n_a + n_b) / (N + M), which grows with the
        number of points (as in SuperPoint);
        localisation_px, the mean distance of the pairs. NaN where it is undefined.

    Source: Mikolajczyk et al., "A comparison of affine region detectors", 2005; DeTone et al., "SuperPoint", 2018.
    """
    n, m = len(a_in_b), len(b)
    if not n + m:
        return {"repeatability": np.nan, "repeatability_symmetric": np.nan, "localisation_px": np.nan}
    if not n or not m:
        return {"repeatability": 0.0, "repeatability_symmetric": 0.0, "localisation_px": np.nan}
    distance = cdist(a_in_b, b)
    i, j = assign(distance, radius)
    near = distance <= radius
    return {
        "repeatability": len(i) / min(n, m),
        "repeatability_symmetric": float(near.any(1).sum() + near.any(0).sum()) / (n + m),
        "localisation_px": float(distance[i, j].mean()) if len(i) else np.nan,
    }


def chance(count: int, area: float, radius: float) -> float:
    """Symmetric repeatability of uniformly random points: 1 - exp(-N pi r**2 / A).

    One-to-one pairs are fewer: a fraction l - l**2 + O(l**3), with l = N pi r**2 / A, because of two edges that share a
    point (N l**2 of them) only one is a pair.

    Args:
        count: number N of points of each image.
        area: area A in which they lie, pixels**2.
        radius: r, pixels.
    """
    return float(1 - np.exp(-count * np.pi * radius**2 / area)) if area > 0 else np.nan


def descriptor_distances(
    a: np.ndarray, b: np.ndarray, place_a: np.ndarray | None = None, place_b: np.ndarray | None = None
) -> np.ndarray:
    """Distances of descriptors; for locations with several descriptors, the smallest.

    Args:
        a: (N, D) float32, compared by Euclidean distance, or packed bits in uint8, by Hamming distance.
        b: (M, D) of the same kind.
        place_a: (N,) location of each row, ascending; None: each row is a location.
        place_b: (M,) likewise.

    Returns:
        (locations of a, locations of b) float64.
    """
    if a.dtype == np.uint8:
        x, y = (1.0 - 2.0 * np.unpackbits(d, axis=1).astype(np.float32) for d in (a, b))
        distance = ((x.shape[1] - x @ y.T) / 2).astype(np.float64)
    else:
        x, y = a.astype(np.float64), b.astype(np.float64)
        square = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * (x @ y.T)
        distance = np.sqrt(np.maximum(square, 0))
    for axis, place in ((0, place_a), (1, place_b)):
        if place is not None and distance.size:
            distance = np.minimum.reduceat(distance, np.unique(place, return_index=True)[1], axis=axis)
    return distance


def mutual_nearest(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of mutual nearest neighbours: indices of rows and of columns."""
    if not distance.size:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    forth, back = distance.argmin(1), distance.argmin(0)
    rows = np.flatnonzero(back[forth] == np.arange(len(distance)))
    return rows, forth[rows]


def matching(
    a_in_b: np.ndarray, b: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], thresholds: Sequence[float], radius: float
) -> dict[str, float]:
    """Matching score and matching accuracy of descriptors.

    Args:
        a_in_b: (N, 2) points of image a, mapped to b; only those in the region that both images show.
        b: (M, 2) points of image b, in the same region.
        pairs: indices of matched points.
        thresholds: distances for the accuracy, pixels of b.
        radius: distance for the matching score, pixels of b.

    Returns:
        matching_score, correct matches / min(N, M), NaN without any point; and mma@t, the fraction of matches within t, 0
        where there are points and no match. The mean of mma@t over pairs of images is the mean matching accuracy.

    Source: Mikolajczyk et al., 2005; Dusmanu et al., "D2-Net", 2019.
    """
    n, m = len(a_in_b), len(b)
    if not n + m:
        return {"matching_score": np.nan} | {f"mma@{t:g}": np.nan for t in thresholds}
    error = np.linalg.norm(a_in_b[pairs[0]] - b[pairs[1]], axis=1)
    score = float((error <= radius).sum()) / min(n, m) if n and m else 0.0
    return {"matching_score": score} | {
        f"mma@{t:g}": float((error <= t).mean()) if len(error) else 0.0 for t in thresholds
    }


def ratios(distance: np.ndarray) -> np.ndarray:
    """Ratio test of descriptors: the distance to the best match over the distance to the second best.

    Args:
        distance: (N, M) from N points to all points of a set of images.

    Returns:
        (N,) in [0, 1]: low for a unique match, 1 where two points match equally well, NaN if M < 2.

    Source: Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", 2004, who accepts matches below 0.8.
    """
    if distance.shape[1] < 2:
        return np.full(len(distance), np.nan)
    best, second = np.partition(distance, 1, axis=1)[:, :2].T
    return np.where(second > 0, best / np.where(second > 0, second, 1), 1.0)


def corner_error(estimated: np.ndarray | None, true: np.ndarray, size: tuple[int, int]) -> float:
    """Mean distance of the image's corners mapped by two homographies, pixels of b; infinite where the estimate is None.

    A homography is accurate to t pixels if this error is at most t.

    Source: DeTone et al., "SuperPoint", 2018.
    """
    if estimated is None or not np.isfinite(estimated).all():
        return float("inf")
    width, height = size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
    error = np.linalg.norm(project(estimated, corners) - project(true, corners), axis=1).mean()
    return float(error) if np.isfinite(error) else float("inf")
