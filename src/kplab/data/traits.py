"""Traits of a dataset, from which a training is planned: sizes, orientations and distances of subjects, and how images vary.

Angles and mirroring are found by aligning the poses of all subjects with their mean shape (generalised Procrustes analysis).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from kplab.errors import DataError
from kplab.ops.overlap import box_iou
from kplab.structures.labels import Labels
from kplab.structures.poses import HULL_MARGIN

#: Subjects and images that are read, evenly spread: enough for quantiles.
SUBJECTS, IMAGES = 2000, 48
#: Side of the grey thumbnails that images are compared by.
THUMBNAIL = 32


@dataclass(frozen=True)
class Traits:
    """Traits of the labelled subjects of a split that are not ignored. Lengths are in source pixels.

    Args:
        images: number of images.
        subjects: number of subjects.
        keypoints: number of keypoints of the skeleton that are labelled on at least one subject.
        most: largest number of subjects of an image.
        usual: mean number of subjects of the images that have any.
        width: median width of the images.
        height: median height.
        one_size: whether all images have the same size.
        side: median of the longer side of the extent of a subject's keypoints.
        side_low: 5th percentile.
        side_high: 95th percentile.
        share: median of that side over the longer side of the image.
        aspect: median of width over height of the extents.
        nearest: median over subjects of the smallest distance between two keypoints.
        covered: share of the longer side of a subject's box that the padded hull of its labelled keypoints has within the box, 10th
            percentile; 1 without boxes. A crop is a square on that side, whatever the other one is.
        overlap: IoU of a subject's hull with that of another subject of the image, the largest, 99th percentile over subjects of
            images with several; 0 without such.
        labelled: share of the keypoints that are labelled.
        distinct: number of poses that differ from one another by more than a tenth of a subject, place and rotation included;
            the frames of a subject that keeps still count once. Of up to 2,000 subjects.
        turned: degrees within which 90 % of the subjects are rotated from the usual orientation; 180 for any orientation.
        mirrored: how much farther a mirrored pose is from the nearest pose of another subject than the pose itself is, a
            ratio of medians; NaN with fewer than 8 subjects. 1: mirrored poses look like the others.
        sides: whether the skeleton pairs left and right.
        colour: whether any image is not grey.
        light: standard deviation of the mean brightness of images, of 255.
        still: correlation of the thumbnails of two images, median: 1 for a camera that does not move.
        groups: number of videos or other groups; the number of images if nothing is known.
    """

    images: int
    subjects: int
    keypoints: int
    most: int
    usual: float
    width: float
    height: float
    one_size: bool
    side: float
    side_low: float
    side_high: float
    share: float
    aspect: float
    nearest: float
    covered: float
    overlap: float
    labelled: float
    distinct: int
    turned: float
    mirrored: float
    sides: bool
    colour: bool
    light: float
    still: float
    groups: int

    def record(self) -> dict[str, Any]:
        """The traits as JSON, rounded."""
        return {
            name: round(value, 4) if isinstance(value, float) and np.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def traits(labels: Labels) -> Traits:
    """Measure a split; reads up to 48 of its images.

    Raises:
        DataError: no subject counts, or an image can't be read.
    """
    counted = labels.poses.labelled.any(1) & ~labels.poses.ignore
    if not counted.any():
        raise DataError(f"{labels.source}: no labelled subject among {len(counted)}. Check the label file.")
    image, poses = labels.image_of()[counted], labels.poses[counted]
    xy = np.where(poses.labelled[..., None], poses.xy, np.nan)
    extent = poses.extent()
    size = extent[:, 2:] - extent[:, :2]
    # a subject with one keypoint has no extent: its box tells its size
    boxes = poses.box[:, 2:] - poses.box[:, :2]
    pointlike = (size.max(1) < 1) & np.isfinite(boxes).all(1)
    size[pointlike] = boxes[pointlike]
    side = np.maximum(size.max(1), 1.0)
    per_image = np.bincount(image, minlength=len(labels))
    chosen = spread(len(xy), SUBJECTS)
    angles, shapes = align(xy[chosen])
    seen = [labels.read(int(i)) for i in spread(len(labels), IMAGES)]
    low, middle, high = np.quantile(side, [0.05, 0.5, 0.95]).tolist()
    width, height = np.median(labels.size, axis=0).tolist()
    return Traits(
        images=len(labels),
        subjects=len(xy),
        keypoints=int(poses.labelled.any(0).sum()),
        most=int(per_image.max()),
        usual=float(per_image[per_image > 0].mean()),
        width=width,
        height=height,
        one_size=bool((labels.size == labels.size[0]).all()),
        side=middle,
        side_low=low,
        side_high=high,
        share=float(np.median(side / labels.size[image].max(1))),
        aspect=float(np.median(np.maximum(size[:, 0], 1.0) / np.maximum(size[:, 1], 1.0))),
        nearest=nearest(xy[chosen]),
        covered=covered(poses.box, poses.extent(HULL_MARGIN)),
        overlap=overlap(poses.extent(HULL_MARGIN), image),
        labelled=float(poses.labelled[:, poses.labelled.any(0)].mean()),
        distinct=distinct(xy[chosen], side[chosen]),
        turned=angular_spread(angles),
        mirrored=mirrored(shapes, labels.skeleton.flip_array),
        sides=bool((labels.skeleton.flip_array != np.arange(len(labels.skeleton))).any()),
        colour=any(int(np.ptp(cv2.resize(s, (64, 64)).astype(int), axis=2).max()) > 12 for s in seen),
        light=float(np.std([s.mean() for s in seen])),
        still=stillness(seen),
        groups=len(set(map(str, labels.group))),
    )


def spread(count: int, most: int) -> np.ndarray:
    """Up to ``most`` indices below ``count``, evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def nearest(xy: np.ndarray) -> float:
    """Median over subjects of the smallest distance between two of their keypoints; NaN if none has two.

    Args:
        xy: (N, K, 2), NaN where unlabelled.
    """
    with np.errstate(invalid="ignore"):
        distance = np.linalg.norm(xy[:, :, None] - xy[:, None], axis=-1)
    distance[:, np.arange(xy.shape[1]), np.arange(xy.shape[1])] = np.nan
    smallest = np.where(np.isfinite(distance), distance, np.inf).min((1, 2))
    finite = smallest[np.isfinite(smallest)]
    return float(np.median(finite)) if len(finite) else float("nan")


def covered(box: np.ndarray, hull: np.ndarray) -> float:
    """Share of the longer sides of boxes that hulls cover, 10th percentile; 1 without boxes.

    Args:
        box: (N, 4) xyxy, NaN where there is none.
        hull: (N, 4) xyxy, of the labelled keypoints, padded.
    """
    sides = box[:, 2:] - box[:, :2]
    known = np.isfinite(box).all(1) & (sides > 0).all(1)
    if not known.any():
        return 1.0
    common = np.clip(np.minimum(box[:, 2:], hull[:, 2:]) - np.maximum(box[:, :2], hull[:, :2]), 0, None)
    return float(np.quantile(common[known].max(1) / sides[known].max(1), 0.1))


def overlap(hull: np.ndarray, image: np.ndarray) -> float:
    """The largest IoU of hulls with another one of their image, 99th percentile; 0 if no image has several.

    Args:
        hull: (N, 4) xyxy, of the labelled keypoints, padded.
        image: (N,) index of the image of each, ascending.
    """
    first = np.flatnonzero(np.r_[True, np.diff(image) > 0])
    several = [hull[a:b] for a, b in pairwise([*first.tolist(), len(image)]) if b - a > 1]
    largest = [
        (box_iou(h, h) * ~np.eye(len(h), dtype=bool)).max(1)
        for h in (several[i] for i in spread(len(several), SUBJECTS))
    ]
    return float(np.quantile(np.concatenate(largest), 0.99)) if largest else 0.0


def distinct(xy: np.ndarray, side: np.ndarray, limit: float = 0.1) -> int:
    """Number of poses that remain if those are left out that are within ``limit`` of an earlier one that remains.

    Args:
        xy: (N, K, 2), NaN where unlabelled.
        side: (N,) sizes.
        limit: RMS distance over the keypoints that both have, relative to the smaller size.
    """
    kept: list[int] = []
    for i in range(len(xy)):
        with np.errstate(invalid="ignore"):
            squares = ((xy[kept] - xy[i]) ** 2).sum(2)
        known = np.isfinite(squares)
        mean = np.where(known, squares, 0).sum(1) / np.maximum(known.sum(1), 1)
        same = known.any(1) & (np.sqrt(mean) <= limit * np.minimum(side[kept], side[i]))
        if not same.any():
            kept.append(i)
    return len(kept)


def align(xy: np.ndarray, rounds: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Align poses with their mean shape by translation, scale and rotation.

    Args:
        xy: (N, K, 2), NaN where unlabelled.

    Returns:
        (M,) angles in radians by which the M subjects with at least two keypoints are rotated from the mean shape, and
        (M, K) aligned poses as complex numbers of unit RMS distance from their centre, NaN where unlabelled.
    """
    z = xy[..., 0] + 1j * xy[..., 1]
    known = np.isfinite(z.real)
    z, known = z[known.sum(1) >= 2], known[known.sum(1) >= 2]
    if not len(z):
        return np.zeros(0), z
    z = z - np.nanmean(z, axis=1, keepdims=True)
    radius = np.sqrt(np.nanmean(np.abs(z) ** 2, axis=1, keepdims=True))
    z, known = z[radius[:, 0] > 0], known[radius[:, 0] > 0]
    z = z / radius[radius[:, 0] > 0]
    if not len(z):
        return np.zeros(0), z
    filled = np.where(known, z, 0)
    mean = filled[known.sum(1).argmax()]
    angles = np.zeros(len(z))
    for _ in range(rounds):
        angles = np.angle(filled @ mean.conj())
        turned = filled * np.exp(-1j * angles)[:, None]
        mean = turned.sum(0) / np.maximum(known.sum(0), 1)
    return angles, np.where(known, z * np.exp(-1j * angles)[:, None], np.nan)


def angular_spread(angles: np.ndarray) -> float:
    """Degrees within which 90 % of angles lie on either side of their circular mean; 180 if they have no direction.

    Args:
        angles: radians.

    >>> angular_spread(np.deg2rad([350.0, 0.0, 10.0]))
    10.0
    """
    if not len(angles):
        return 180.0
    mean = np.exp(1j * angles).mean()
    if abs(mean) < 0.3:
        return 180.0
    away = np.abs(np.angle(np.exp(1j * (angles - np.angle(mean)))))
    return round(float(np.rad2deg(np.quantile(away, 0.9))), 1)


def mirrored(shapes: np.ndarray, flip: np.ndarray, most: int = 400) -> float:
    """How much farther mirrored poses are from the nearest pose than poses are from the nearest other one.

    Args:
        shapes: (M, K) aligned complex poses, NaN where unlabelled.
        flip: (K,) keypoint that each one becomes in a mirrored image.
        most: subjects that are compared.

    Returns:
        the ratio of the medians; NaN with fewer than 8 subjects.
    """
    shapes = shapes[spread(len(shapes), most)] if len(shapes) else shapes
    if len(shapes) < 8:
        return float("nan")
    own = distances(shapes, shapes)
    np.fill_diagonal(own, np.inf)
    other = distances(-shapes.conj()[:, flip], shapes)
    np.fill_diagonal(other, np.inf)  # the same subject, mirrored, is not another one
    return round(float(np.median(other.min(1)) / max(np.median(own.min(1)), 1e-3)), 3)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, B) RMS distance of poses after the best rotation, over the keypoints that both have; inf if they share none."""
    known_a, known_b = np.isfinite(a.real), np.isfinite(b.real)
    a, b = np.where(known_a, a, 0), np.where(known_b, b, 0)
    number = known_a.astype(float) @ known_b.T
    squares = (np.abs(a) ** 2) @ known_b.T + known_a @ (np.abs(b) ** 2).T - 2 * np.abs(a @ b.conj().T)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(number > 1, np.sqrt(np.maximum(squares, 0) / number), np.inf)


def stillness(images: list[np.ndarray]) -> float:
    """Median correlation of the grey thumbnails of neighbours in a list of images; 0 for fewer than two."""
    if len(images) < 2:
        return 0.0
    small = [
        cv2.resize(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        for i in images
    ]
    centred = [(s - s.mean()).ravel() / (np.linalg.norm(s - s.mean()) + 1e-9) for s in small]
    return float(np.median([a @ b for a, b in pairwise(centred)]))
