"""COCO keypoint AP and AR by OKS: the matching of COCOeval, vectorised over images, sizes and thresholds.

Tests hold the figures and every match against pycocotools.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from kplab.errors import ScoreError
from kplab.metrics.average_precision import AREAS, Matches, accumulate
from kplab.metrics.matching import best_of_images, check_images, joined
from kplab.ops import affine
from kplab.ops.oks import oks_of_pairs
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions

THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RANGES = {"all": (0.0, 1e10), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Smallest and largest area of each class of ``AREAS``, pixels**2; both are in the class, so two classes can overlap."""
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
    ids = sorted(truth)
    true, true_image, is_crowd = _true({i: truth[i] for i in ids}, len(sigmas), crowd or {})
    found, image = _found(predictions, ids, max_dets)
    ignored = true.ignore[:, None] | _outside(true.area)
    outcome = np.full((len(found), len(AREAS), len(THRESHOLDS)), _UNMATCHED, dtype=np.int8)
    for rows, batch, subjects in _batches(true_image, image):
        pairs = rows.repeat(subjects.shape[1]), subjects[batch].ravel()
        similarity = oks_of_pairs(found.xy, true.xy, true.visible, true.area, sigmas, *pairs, true.box)
        similarity = similarity.reshape(len(rows), -1)
        outcome[rows] = _outcomes(similarity, batch, ignored[subjects], is_crowd[subjects])
    order = np.argsort(-found.score, kind="stable")
    outcome = np.ascontiguousarray(outcome[order].transpose(1, 2, 0))
    matches = Matches(
        np.array(ids, dtype=np.int64),
        image[order],
        found.score[order],
        outcome == _HIT,
        (outcome == _UNMATCHED) & ~_outside(found.area[order]).T[:, None],
        np.stack([np.bincount(true_image[~column], minlength=len(ids)) for column in ignored.T]),
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


def _batches(true_image: np.ndarray, image: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Images that have equally many true instances, and predictions.

    Args:
        true_image: (M,) index of the image of each true instance, ascending.
        image: (N,) index of the image of each prediction, ascending.

    Yields:
        (D,) rows of their predictions, (D,) index of the image of each in the batch, (I, G) rows of the true instances.
    """
    images, start, counts = np.unique(true_image, return_index=True, return_counts=True)
    for count in np.unique(counts):
        own = counts == count
        rows = np.flatnonzero(np.isin(image, images[own]))
        if len(rows):
            yield rows, np.searchsorted(images[own], image[rows]), start[own, None] + np.arange(count)


def _outside(area: np.ndarray) -> np.ndarray:
    """(N, 3) bool: too small or too large for each class of ``AREAS``."""
    low, high = np.array([_RANGES[name] for name in AREAS]).T
    return (area[:, None] < low) | (area[:, None] > high)


def _in_coco(poses: Poses) -> np.ndarray:
    """(N, K, 2) keypoints as COCO's files have them: pixel indices, and zeros where there is no point."""
    xy = affine.to_pixel_index(poses.xy)
    xy[~poses.labelled] = 0.0
    return xy


def _true(
    truth: Mapping[int, Poses], keypoints: int, crowd: Mapping[int, np.ndarray]
) -> tuple[Poses, np.ndarray, np.ndarray]:
    """True instances; ``ignore`` is set for all that are not scored.

    Returns:
        poses in COCO's frame, (M,) index of the image of each, (M,) which are crowds.
    """
    poses, image = joined(truth, list(truth), keypoints)
    some = poses.labelled.any(1)
    is_crowd = poses.ignore & some
    starts = np.searchsorted(image, np.arange(len(truth) + 1)).tolist()
    for i, (start, end) in zip(truth, pairwise(starts), strict=True):
        own = is_crowd[start:end]
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
            f"image {list(truth)[image[unknown][0]]}: a true instance has no area, and OKS is relative to the area of the "
            "subject. Let the dataset state areas, or how to estimate them (e.g. 0.53 x box)."
        )
    # without place or size no prediction can be ignored for an instance
    kept = np.isfinite(area) & (some | np.isfinite(poses.box).all(1))
    poses = replace(poses, xy=_in_coco(poses), area=area, ignore=poses.ignore | is_crowd | ~some)
    return poses[kept], image[kept], is_crowd[kept]


def _found(predictions: Predictions, ids: list[int], max_dets: int) -> tuple[Poses, np.ndarray]:
    """Predictions that take part, by image and descending score, in COCO's frame, and (N,) index of the image of each."""
    poses, image = joined(predictions.poses, ids, len(predictions.skeleton))
    boxed = np.isfinite(poses.box).all(1)
    by_box = bool(boxed[:1].any())
    if by_box and not boxed.all():
        raise ScoreError(
            f"a prediction of image {ids[image[~boxed][0]]} has no box, but the first prediction has one: COCO takes the "
            "size of all predictions from their boxes or of none. Give every prediction a box, or none."
        )
    rows = best_of_images(poses.score, image, max_dets)
    poses = poses[rows]
    xy = _in_coco(poses)
    # NumPy reduces the first axis of a copy far faster than the second one
    sides = poses.box[:, 2:] - poses.box[:, :2] if by_box else np.ptp(xy.swapaxes(0, 1).copy(), axis=0)
    return replace(poses, xy=xy, area=sides.prod(1)), image[rows]
