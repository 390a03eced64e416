"""Copy-paste augmentation: a subject of another image, with its keypoints, at a random place of the view.

Few labelled images show few combinations of subjects, places and backgrounds. A pasted subject is turned, scaled and mirrored
as views are, and resampled once, directly into the view.

Source: Dwibedi et al., "Cut, Paste and Learn", 2017, and Ghiasi et al., "Simple Copy-Paste", 2021, which have masks of the
subjects; here the hull of the keypoints takes their place. With the shape ``box`` a rectangle is replaced, as in CutMix (Yun
et al., 2019).
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from kplab.data.mosaic import Tile
from kplab.ops import affine
from kplab.structures.poses import Poses

#: What is cut out: the hull of the keypoints with a soft edge, or their box.
SHAPES = ("hull", "box")
#: Width around the keypoints that is cut out, too, as part of the longer side of their box.
MARGIN = 0.15
#: Places that are tried.
TRIES = 10
#: Share of the labelled keypoints of a subject that a pasted one may hide.
HIDDEN = 0.5


def paste(
    pixels: np.ndarray,
    poses: Poses,
    donor: Tile,
    subject: int,
    linear: np.ndarray,
    shape: str,
    rng: np.random.Generator,
) -> tuple[np.ndarray, Poses]:
    """Paste a subject of another image into a view.

    Nothing is pasted if the part that would be cut out shows another subject of its image, or a part without pixels, or if
    each place that is tried would hide more than half of a subject.

    Args:
        pixels: (H, W, 3) uint8, the view.
        poses: true poses of the view, view pixels.
        donor: the other image, its poses and its plain view.
        subject: which of the donor's poses; it has a labelled keypoint.
        linear: (2, 2) change of the donor's plain view: rotation, scale, mirroring. The donor's keypoints have the names of
            the result.
        shape: one of ``SHAPES``.
        rng: random generator.

    Returns:
        the view and its poses: keypoints that are hidden now are unlabelled, and the pasted subject is the last one.
    """
    height, width = pixels.shape[:2]
    change = np.eye(3)
    change[:2, :2] = linear
    placed = change @ donor.view
    moved = donor.poses.transform(placed)
    outline = outline_of(moved.xy[subject][moved.labelled[subject]], shape)
    others = moved[np.arange(len(moved)) != subject]
    picture = affine.apply(placed, corners(donor.image.shape[1], donor.image.shape[0]))
    if shows(outline, others) or not contains(picture, outline).all():
        return pixels, poses
    for _ in range(TRIES):
        to = rng.uniform(0, (width, height))
        shift = to - (outline.min(0) + outline.max(0)) / 2
        covered = contains(outline + shift, poses.xy) & poses.labelled
        seen = contains(corners(width, height), moved.xy[subject] + shift)[moved.labelled[subject]]
        if seen.mean() >= HIDDEN and (covered.sum(1) <= HIDDEN * poses.labelled.sum(1)).all():
            break
    else:
        return pixels, poses
    matrix = affine.translation(*shift) @ placed
    low = np.clip(np.floor(outline.min(0) + shift), 0, (width, height)).astype(int)
    high = np.clip(np.ceil(outline.max(0) + shift), 0, (width, height)).astype(int)
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    if min(size) < 1:
        return pixels, poses
    drawn = affine.warp(donor.image, affine.translation(*-low) @ matrix, size)
    alpha = coverage(outline + shift - low, size, shape)[..., None]
    out = pixels.copy()
    part = out[low[1] : high[1], low[0] : high[0]]
    part[:] = np.round(alpha * drawn + (1 - alpha) * part).astype(np.uint8)
    kept = replace(
        poses,
        xy=np.where(covered[..., None], np.nan, poses.xy),
        visible=np.where(covered, 0, poses.visible).astype(np.uint8),
    )
    return out, Poses.concat([kept, donor.poses[[subject]].transform(matrix)])


def outline_of(xy: np.ndarray, shape: str) -> np.ndarray:
    """(M, 2) convex polygon around points, ``MARGIN`` of their longer side, or a pixel, away from them.

    Args:
        xy: (N, 2) points, at least one.
        shape: one of ``SHAPES``.
    """
    low, high = xy.min(0), xy.max(0)
    margin = max(1.0, MARGIN * float((high - low).max()))
    if shape == "box":
        return corners(*(high - low + 2 * margin)) + low - margin
    angles = np.arange(16) * np.pi / 8
    around = xy[:, None] + margin * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return cv2.convexHull(around.reshape(-1, 1, 2).astype(np.float32))[:, 0].astype(np.float64)


def corners(width: float, height: float) -> np.ndarray:
    """(4, 2) corners of an image."""
    return np.array([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])


def contains(polygon: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(...) bool: points inside a convex polygon or on its edge; NaN is outside.

    Args:
        polygon: (M, 2) corners in order, in either direction.
        xy: (..., 2).
    """
    edge = np.roll(polygon, -1, axis=0) - polygon
    away = xy[..., None, :] - polygon
    side = edge[:, 0] * away[..., 1] - edge[:, 1] * away[..., 0]
    inside: np.ndarray = (side >= -1e-9).all(-1) | (side <= 1e-9).all(-1)
    return inside


def shows(polygon: np.ndarray, others: Poses) -> bool:
    """Whether a part of an image shows another subject: a keypoint of it, or the middle of a crowd."""
    middles = (others.box[others.ignore, :2] + others.box[others.ignore, 2:]) / 2
    return bool(contains(polygon, others.xy[others.labelled]).any() or contains(polygon, middles).any())


def coverage(polygon: np.ndarray, size: tuple[int, int], shape: str) -> np.ndarray:
    """(height, width) share of each pixel that a convex polygon covers; a hull's share rises over half its margin.

    Args:
        polygon: (M, 2) corners in order, pixels.
        size: (width, height).
        shape: one of ``SHAPES``.
    """
    rows, columns = np.mgrid[: size[1], : size[0]] + 0.5
    inwards = np.full((size[1], size[0]), np.inf)
    turn = np.sign(cv2.contourArea(polygon.astype(np.float32), oriented=True))
    for (x, y), (dx, dy) in zip(polygon, np.roll(polygon, -1, axis=0) - polygon, strict=True):
        inwards = np.minimum(
            inwards, turn * (dx * (rows - y) - dy * (columns - x)) / max(float(np.hypot(dx, dy)), 1e-9)
        )
    if shape == "box":
        return (inwards + 0.5).clip(0, 1)
    longer = float((polygon.max(0) - polygon.min(0)).max())
    return (inwards / (MARGIN / 2 * longer / (1 + 2 * MARGIN))).clip(0, 1)
