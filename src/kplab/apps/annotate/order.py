"""Which images to label first: those from which a model would learn most.

Three measures, none of which needs a label: how much the predictions of an image change when it is mirrored or shown smaller,
how low their scores are, and how many images are similar to it and to none that is labelled or comes before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from kplab.structures.poses import Poses

#: Side of the thumbnail that describes an image.
SIDE = 8
#: Images that are compared with each other; further ones follow by their uncertainty alone.
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
    (0, 1]. Its coverage is the decrease, were it labelled, of the distance from each open image to the nearest image that is
    labelled or comes before it, summed over the open images. The next image is the one with the largest product of both.
    Images without a prediction yet come last.

    Args:
        disagree: (I,) of ``disagreement``; NaN where the image was not predicted.
        confident: (I,) of ``confidence``; NaN where the image was not predicted.
        features: (I, D) of ``thumbnail``; NaN where unknown.
        labelled: (I,) bool.
        most: images that are ordered so, evenly spread over those that are open; the rest follows by uncertainty alone.

    Returns:
        indices of all images with ``labelled`` False.

    Source: Wei, Iyer and Bilmes, "Submodularity in Data Subset Selection and Active Learning", 2015, for the coverage
        (facility location); Settles and Craven, "An Analysis of Active Learning Strategies for Sequence Labeling Tasks",
        2008, for the product of uncertainty and representativeness.
    """
    known = np.isfinite(disagree) & np.isfinite(confident) & np.isfinite(features).all(1)
    open_ = np.flatnonzero(~labelled & known)
    rest = np.flatnonzero(~labelled & ~known)
    if not len(open_):
        return rest
    uncertain = (rankdata(disagree[open_]) + rankdata(-confident[open_])) / (2 * len(open_))
    compared = np.unique(np.linspace(0, len(open_) - 1, min(most, len(open_))).round().astype(np.int64))
    own = features[open_[compared]]
    chosen = compared[covering(own, features[labelled & known], uncertain[compared])]
    tail = np.setdiff1d(np.arange(len(open_)), compared)
    tail = tail[np.argsort(-uncertain[tail], kind="stable")]
    return np.concatenate([open_[chosen], open_[tail], rest]).astype(np.int64)


def covering(own: np.ndarray, seen: np.ndarray, weight: np.ndarray) -> list[int]:
    """Order of images by weight times coverage, greedily; see ``teaching_order``.

    Args:
        own: (I, D) features of the images.
        seen: (S, D) features of labelled images.
        weight: (I,) positive.

    Returns:
        all indices of ``own``.
    """
    distance = cdist(own, own).astype(np.float32)
    nearest = cdist(own, seen).min(1) if len(seen) else np.full(len(own), distance.max())
    # a coverage never grows, so that a value which was computed before is a bound; only the largest one is computed again
    value = np.full(len(own), np.inf)
    chosen: list[int] = []
    while len(chosen) < len(own):
        best = int(np.argmax(value))
        # the small constant orders images that equal others by their weight
        now = weight[best] * (np.maximum(nearest - distance[best], 0.0).sum() + 1e-6)
        if now < value[best]:
            value[best] = now
            continue
        chosen.append(best)
        value[best] = -np.inf
        nearest = np.minimum(nearest, distance[best])
    return chosen
