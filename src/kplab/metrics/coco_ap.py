"""COCO keypoint AP and AR by OKS: the matching of COCOeval, vectorised over images, sizes and thresholds.

Tests hold the figures and every match against pycocotools.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from kplab.errors import ScoreError
from kplab.metrics.average_precision import AREAS, Matches, accumulate
from kplab.metrics.matching import check_images
from kplab.ops import affine
from kplab.ops.oks import oks_of_pairs
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions

THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RANGES = {"all": (0.0, 1e10), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Smallest and largest area of each class of ``AREAS``, pixels**2; both are in the class, so two classes can overlap."""
_AT_ONCE = 2**17
"""Keypoints that are compared at once; bounds the memory."""
_UNMATCHED, _IGNORED, _HIT = 0, 1, 2
"""What a prediction found: nothing, an instance that is not scored, or one that is."""


@dataclass
class ApResult:
    """COCO's ten figures (-1 where there is nothing to find) and the matches that they are computed from."""

    stats: dict[str, float]
    matches: Matches


def coco_ap(
    truth: Mapping[int, Poses],
    predictions: Predictions,
    sigmas: np.ndarray,
    *,
    max_dets: int = 20,
    crowd: Mapping[int, np.ndarray] | None = None,
) -> ApResult:
    """Compute COCO keypoint AP and AR, equal to those of pycocotools.

    An instance without labelled keypoints is neither found nor missed; one prediction inside its doubled box is ignored.
    A crowd ignores any number of predictions. ``crowd`` marks which ignored instances are crowds; without it, an ignored
    instance is a crowd if it has labelled keypoints, and an unlabelled subject otherwise.

    Args:
        truth: image id to true poses, source pixels; areas must be known.
        predictions: predicted poses, source pixels. As in COCO's loadRes, the size of a detection is the area of its
            box if the first result has a box, else the extent of all its keypoints.
        sigmas: (K,) falloffs of OKS.
        max_dets: maximum number of predictions per image; the lowest scores are dropped.
        crowd: image id to (M,) bool, COCO's iscrowd.

    Returns:
        ``stats``: AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl; and the matches.

    Raises:
        ScoreError: predictions of unknown images, a truth without area, or boxes on some predictions only.

    Source: pycocotools.cocoeval.
    """
    check_images(truth, predictions)
    image_id = np.array(sorted(truth), dtype=np.int64)
    true, true_image, is_crowd = _true(truth, image_id, crowd or {})
    found, image = _found(predictions, image_id, max_dets)
    ignored = true.ignore[:, None] | _outside(true.area)
    outcome = np.full((len(found), len(AREAS), len(THRESHOLDS)), _UNMATCHED, dtype=np.int8)
    for rows, batch, subjects in _batches(true_image, image, len(sigmas)):
        pairs = rows.repeat(subjects.shape[1]), subjects[batch].ravel()
        similarity = oks_of_pairs(found.xy, true.xy, true.visible, true.area, sigmas, *pairs, true.box)
        similarity = similarity.reshape(len(rows), -1)
        outcome[rows] = _outcomes(similarity, batch, ignored[subjects], is_crowd[subjects])
    order = np.argsort(-found.score, kind="stable")
    outcome = np.ascontiguousarray(outcome[order].transpose(1, 2, 0))
    matches = Matches(
        image_id,
        image[order],
        found.score[order],
        outcome == _HIT,
        (outcome == _UNMATCHED) & ~_outside(found.area[order]).T[:, None],
        np.stack([np.bincount(true_image[~column], minlength=len(image_id)) for column in ignored.T]),
    )
    return ApResult(accumulate(matches), matches)


def _outcomes(similarity: np.ndarray, image: np.ndarray, ignored: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """What predictions find in images with equally many true instances, by class of area and threshold.

    In order of score, each prediction takes the most similar instance that is free: a scored one if there is any, else an
    ignored one; of equally similar ones the last. Crowds stay free.

    Args:
        similarity: (D, G) OKS of each prediction with the instances of its image.
        image: (D,) index of the image, ascending; predictions of one image by descending score.
        ignored: (I, G, 3) bool, by class of area.
        crowd: (I, G) bool.

    Returns:
        (D, 3, 10) int8: ``_UNMATCHED``, ``_IGNORED`` or ``_HIT``.
    """
    count = similarity.shape[1]
    place = np.argsort(np.argsort(similarity, axis=1, kind="stable"), axis=1) + 1
    # (D, G, 3): the most similar has the highest value, and every scored one has a higher value than all ignored ones
    value = place[..., None].astype(np.int32) + count * ~ignored[image]
    reached = similarity[..., None, None] >= THRESHOLDS
    free = np.ones((*ignored.shape, len(THRESHOLDS)), dtype=bool)
    outcome = np.full((len(image), *free.shape[2:]), _UNMATCHED, dtype=np.int8)
    rank = np.arange(len(image)) - np.searchsorted(image, image)
    for r in range(rank.max() + 1):
        now = np.flatnonzero(rank == r)
        own = image[now]
        possible = np.where(reached[now] & free[own], value[now, ..., None], 0)
        best = possible.max(1)
        chosen = (possible == best[:, None]) & (possible > 0)
        free[own] &= ~chosen | crowd[own][..., None, None]
        outcome[now] = np.where(best > count, _HIT, np.where(best > 0, _IGNORED, _UNMATCHED))
    return outcome


def _batches(
    true_image: np.ndarray, image: np.ndarray, keypoints: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches of images with equally many true instances.

    Args:
        true_image: (M,) index of the image of each true instance, ascending.
        image: (N,) index of the image of each prediction, ascending.
        keypoints: of an instance.

    Yields:
        (D,) rows of the predictions, (D,) index of their images in the batch, (I, G) rows of the true instances.
    """
    start, true_count = np.unique(true_image, return_index=True, return_counts=True)[1:]
    with_truth = true_image[start]
    for count in np.unique(true_count):
        subjects = start[true_count == count, None] + np.arange(count)
        images = with_truth[true_count == count]
        rows = np.flatnonzero(np.isin(image, images))
        batch = np.searchsorted(images, image[rows])
        # at the start of an image, so that none is in two batches
        ends = np.searchsorted(batch, batch[:: max(1, _AT_ONCE // (count * keypoints))])
        for part in np.split(np.arange(len(rows)), ends[1:]):
            if len(part):
                first, last = batch[part[0]], batch[part[-1]]
                yield rows[part], batch[part] - first, subjects[first : last + 1]


def _outside(area: np.ndarray) -> np.ndarray:
    """(N, 3) bool: too small or too large for each class of ``AREAS``."""
    low, high = np.array([_RANGES[name] for name in AREAS]).T
    return (area[:, None] < low) | (area[:, None] > high)


def _in_coco(poses: Poses, area: np.ndarray, ignore: np.ndarray) -> Poses:
    """Poses as COCO's files have them: pixel indices, and zeros where there is no point."""
    xy = np.where(poses.labelled[..., None], affine.to_pixel_index(poses.xy), 0.0)
    return replace(poses, xy=xy, area=area, ignore=ignore)


def _true(
    truth: Mapping[int, Poses], image_id: np.ndarray, crowd: Mapping[int, np.ndarray]
) -> tuple[Poses, np.ndarray, np.ndarray]:
    """True instances in order of image: poses whose ``ignore`` are those that are not scored, index of image, crowd."""
    poses = Poses.concat(truth[i] for i in image_id)
    counts = [len(truth[i]) for i in image_id]
    image = np.arange(len(image_id)).repeat(counts)
    some = poses.labelled.any(1)
    is_crowd = poses.ignore & some
    for i, own in zip(image_id, np.split(is_crowd, np.cumsum(counts)[:-1]), strict=True):
        given = np.asarray(crowd.get(i, own), dtype=bool)
        if given.shape != own.shape:
            raise ScoreError(
                f"image {i} has {len(own)} true instances, but 'crowd' has {given.size} values. "
                "Give one value per instance, in the same order."
            )
        own[:] = given
    size = (poses.box[:, 2:] - poses.box[:, :2]).prod(1)
    area = np.where(poses.ignore & ~np.isfinite(poses.area), size, poses.area)
    unknown = ~np.isfinite(area) & ~poses.ignore & some
    if unknown.any():
        raise ScoreError(
            f"image {image_id[image[unknown][0]]}: a true instance has no area, and OKS is relative to the area of the "
            "subject. Let the dataset state areas, or how to estimate them (e.g. 0.53 x box)."
        )
    # without place or size no prediction can be ignored for an instance
    kept = np.isfinite(area) & (some | np.isfinite(poses.box).all(1))
    poses = _in_coco(poses, area, poses.ignore | is_crowd | ~some)
    return poses[kept], image[kept], is_crowd[kept]


def _found(predictions: Predictions, image_id: np.ndarray, max_dets: int) -> tuple[Poses, np.ndarray]:
    """Predictions that take part, by image and descending score, and index of image."""
    parts = predictions.poses
    poses = Poses.concat([*parts.values(), Poses.empty(len(predictions.skeleton))])
    image = np.searchsorted(image_id, list(parts)).repeat([len(p) for p in parts.values()])
    boxed = np.isfinite(poses.box).all(1)
    if boxed[:1].any() and not boxed.all():
        raise ScoreError(
            f"a prediction of image {image_id[image[~boxed][0]]} has no box, but the first prediction has one: COCO takes "
            "the size of all predictions from their boxes or of none. Give every prediction a box, or none."
        )
    poses = _in_coco(poses, poses.area, poses.ignore)
    # NumPy reduces the first axis of a copy far faster than the second one
    sides = poses.box[:, 2:] - poses.box[:, :2] if boxed[:1].any() else np.ptp(poses.xy.swapaxes(0, 1).copy(), axis=0)
    order = np.lexsort((-poses.score, image))
    rank = np.arange(len(image)) - np.searchsorted(image[order], image[order])
    order = order[rank < max_dets]
    return replace(poses, area=sides.prod(1))[order], image[order]
