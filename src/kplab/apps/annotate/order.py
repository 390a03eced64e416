"""Which images to label first: those from which a model would learn most.

Three measures, none of which needs a label: how much the predictions of an image change when it is mirrored or shown smaller,
how low their scores are, and how much the image differs from those that are labelled or come before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from kplab.structures.poses import Poses

#: Side of the thumbnail that describes an image.
SIDE = 8
#: Images that are ordered by their difference from each other; further ones follow by the scores of their predictions.
SPREAD = 1000


def disagreement(variants: Sequence[Poses]) -> float:
    """How far the predictions of one image are apart, as a share of the subject's size, in [0, 1].

    The mean over instances and keypoints of min(1, d / s): d is the distance between the first prediction and that of another
    variant, s the square root of the area of the first one's extent. A keypoint that one of both lacks counts as 1, and one
    that both lack is left out. Instances are assigned by the smallest sum of distances; one without a partner counts as 1.

    Args:
        variants: predictions of the image as it is, and of changed images, all in pixels of the image as it is.

    Returns:
        1 where nothing is predicted.
    """
    first = variants[0]
    if not len(first):
        return 1.0
    extent = first.extent()
    side = np.maximum(extent[:, 2:] - extent[:, :2], 1.0)
    scale = np.sqrt(np.maximum(side.prod(1), side.max(1) ** 2 / 10))
    found = []
    for other in variants[1:]:
        distance = np.linalg.norm(first.xy[:, None] - other.xy[None], axis=-1) / scale[:, None, None]
        either = first.labelled[:, None] | other.labelled[None]
        share = np.where(np.isfinite(distance), np.minimum(distance, 1.0), 1.0)
        share = (share * either).sum(-1) / np.maximum(either.sum(-1), 1)
        rows, columns = linear_sum_assignment(share)
        # those of either side that have no partner count as 1
        alone = max(share.shape) - len(rows)
        found.append((share[rows, columns].sum() + alone) / max(share.shape))
    return float(np.mean(found)) if found else 0.0


def confidence(poses: Poses) -> float:
    """Mean score of the keypoints of an image's predictions, each instance weighted by its own score; 0 without any."""
    if not len(poses) or poses.score.sum() <= 0:
        return 0.0
    return float(np.average(np.nan_to_num(poses.keypoint_score).mean(1), weights=np.maximum(poses.score, 0)))


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(192,) float32: an image of 8 x 8 pixels in [0, 1], as the description by which images are compared."""
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel() / 255


def teaching_order(
    disagree: np.ndarray, confident: np.ndarray, features: np.ndarray, labelled: np.ndarray, most: int = SPREAD
) -> np.ndarray:
    """Images that are not labelled, the most instructive one first.

    The uncertainty of an image is the mean of its rank by disagreement and of its rank by low confidence, as a share in
    (0, 1]. The next image is the one with the largest product of uncertainty and distance to the nearest image that is
    labelled or comes before it (farthest-first traversal, weighted). Images without a prediction yet come last.

    Args:
        disagree: (I,) of ``disagreement``; NaN where the image was not predicted.
        confident: (I,) of ``confidence``; NaN where the image was not predicted.
        features: (I, D) of ``thumbnail``; NaN where unknown.
        labelled: (I,) bool.
        most: images that are ordered so; the rest follows by uncertainty alone.

    Returns:
        indices of all images with ``labelled`` False.

    Source: Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", 2018, for the
        traversal without weights.
    """
    known = np.isfinite(disagree) & np.isfinite(confident) & np.isfinite(features).all(1)
    open_ = np.flatnonzero(~labelled & known)
    rest = np.flatnonzero(~labelled & ~known)
    if not len(open_):
        return rest
    uncertain = (rankdata(disagree[open_]) + rankdata(-confident[open_])) / (2 * len(open_))
    own = features[open_]
    seen = features[labelled & np.isfinite(features).all(1)]
    nearest = np.full(len(open_), np.inf)
    for one in seen:
        nearest = np.minimum(nearest, np.linalg.norm(own - one, axis=1))
    chosen: list[int] = []
    left = np.ones(len(open_), dtype=bool)
    for _ in range(min(most, len(open_))):
        far = np.where(np.isfinite(nearest), nearest, 1.0)
        # the small constant orders images that equal others by their uncertainty
        value = np.where(left, uncertain * (far + 1e-6), -1.0)
        best = int(np.argmax(value))
        chosen.append(best)
        left[best] = False
        nearest = np.minimum(nearest, np.linalg.norm(own - own[best], axis=1))
    tail = np.flatnonzero(left)
    tail = tail[np.argsort(-uncertain[tail], kind="stable")]
    return np.concatenate([open_[chosen], open_[tail], rest]).astype(np.int64)
