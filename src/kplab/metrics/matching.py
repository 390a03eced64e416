"""Matching of predictions with true instances for errors in pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from kplab.errors import ScoreError
from kplab.ops.oks import oks_of_pairs
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton

# The cost of a keypoint that a prediction lacks, in units of the subject's size: a prediction may not gain by lacking points.
MISSING_COST = 1.0
_AT_ONCE = 2**13
"""Pairs of instances that are compared at once; bounds the memory."""


@dataclass
class Matching:
    """Pairs of true and predicted instances as tables.

    Args:
        keypoints: one row per (image, true instance, keypoint), ignored and unlabelled instances left out: image_id,
            file, instance (index in the image's Poses), keypoint, visible, true_x, true_y, x, y, error_px,
            keypoint_score, matched, score, oks, area, box_diagonal, box_longer_side. Pixels of the source image; NaN
            where there is no label, no prediction, or no box.
        images: one row per image: image_id, file, n_instances, n_matched, n_missed (without a prediction), n_extra
            (predictions without an instance, those on crowds included).
    """

    keypoints: pd.DataFrame
    images: pd.DataFrame


def check_images(truth: Mapping[int, Poses], predictions: Predictions) -> None:
    """Check that the truth has every predicted image.

    Raises:
        ScoreError: it lacks some, or has no image at all.
    """
    if not truth:
        raise ScoreError("the truth has no images, so there is nothing to score. Check the dataset and its split.")
    unknown = sorted(set(predictions.poses) - set(truth))
    if unknown:
        name = predictions.files.get(unknown[0])
        example = f"image {unknown[0]}" + (f" ({name})" if name else "")
        raise ScoreError(
            f"{len(unknown)} of {len(predictions.poses)} predicted images are not in the truth of {len(truth)} "
            f"images, e.g. {example}. Score predictions against the dataset and split they were made for."
        )


def joined(parts: Mapping[int, Poses], ids: Sequence[int], keypoints: int) -> tuple[Poses, np.ndarray]:
    """The instances of all images, in order of ``parts``, and (N,) index into ``ids`` of the image of each."""
    place = {image: i for i, image in enumerate(ids)}
    image = np.array([place[i] for i in parts], dtype=np.int64).repeat([len(p) for p in parts.values()])
    return Poses.concat([*parts.values(), Poses.empty(keypoints)]), image


def best_of_images(score: np.ndarray, image: np.ndarray, most: int) -> np.ndarray:
    """(n,) rows of the highest scores of each image, at most ``most``, by image and descending score; ties in order."""
    rows = np.lexsort((-score, image))
    rank = np.arange(len(rows)) - np.searchsorted(image[rows], image[rows])
    return rows[rank < most]


def match(
    truth: Mapping[int, Poses],
    predictions: Predictions,
    skeleton: Skeleton,
    *,
    files: Mapping[int, str] | None = None,
    max_dets: int = 20,
    min_score: float | None = None,
    min_oks: float | None = None,
) -> Matching:
    """Pair predictions with true instances, image by image.

    The assignment minimises the sum over pairs of mean_k(d_k) / sqrt(area), the mean over labelled keypoints. By default
    no pair is too far: a bad prediction is a large error instead of a missed instance.

    Args:
        truth: image id to true poses, source pixels. Ignored and unlabelled instances are not matched.
        predictions: predicted poses, source pixels. All instances of an image without an entry are missed.
        skeleton: names of the keypoints, and sigmas for OKS.
        files: image id to file name.
        max_dets: maximum number of predictions per image, highest scores first.
        min_score: predictions below it are left out.
        min_oks: pairs below it are not matched.

    Raises:
        ScoreError: the keypoints differ, predictions of unknown images, or a true instance without area.

    Source: Hungarian assignment, scipy.optimize.linear_sum_assignment.
    """
    check_images(truth, predictions)
    if predictions.skeleton.keypoints != skeleton.keypoints:
        raise ScoreError(
            f"predictions are of {', '.join(predictions.skeleton.keypoints)}, but skeleton '{skeleton.name}' of the "
            f"truth has {', '.join(skeleton.keypoints)}. Score them against the dataset they were made for."
        )
    ids, files = list(truth), files or {}
    true, true_image = joined(truth, ids, len(skeleton))
    instance = np.arange(len(true)) - np.searchsorted(true_image, true_image)
    scored = ~true.ignore & true.labelled.any(1)
    true, true_image, instance = true[scored], true_image[scored], instance[scored]
    odd = np.flatnonzero(~(true.area > 0))
    if len(odd):
        image = ids[true_image[odd[0]]]
        raise ScoreError(
            f"image {image} ({files.get(image, 'file unknown')}): a true instance has area {true.area[odd[0]]}, "
            "but it must be positive to weight its errors. "
            "Let the dataset state areas, or how to estimate them (e.g. 0.53 x box)."
        )
    found, found_image = joined(predictions.poses, ids, len(skeleton))
    if min_score is not None:
        found, found_image = found[found.score >= min_score], found_image[found.score >= min_score]
    best = best_of_images(found.score, found_image, max_dets)
    found, found_image = found[best], found_image[best]
    n_found, n_true = (np.bincount(image, minlength=len(ids)) for image in (found_image, true_image))
    predicted, subject = _pairs(n_found, n_true)
    similarity = oks_of_pairs(found.xy, true.xy, true.visible, true.area, skeleton.sigma_array, predicted, subject)
    pairs = _assign(_costs(found, true, predicted, subject), n_found, n_true, similarity, min_oks)
    matched = np.bincount(true_image[subject[pairs]], minlength=len(ids))
    table = pd.DataFrame(
        {
            "image_id": ids,
            "file": [files.get(image, "") for image in ids],
            "n_instances": n_true,
            "n_matched": matched,
            "n_missed": n_true - matched,
            "n_extra": n_found - matched,
        }
    )
    columns = {"instance": instance, **_columns(found, true, predicted[pairs], subject[pairs], similarity[pairs])}
    return Matching(_tidy(columns, true_image, table, skeleton), table)


def _pairs(n_found: np.ndarray, n_true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a prediction and a true instance of one image: (P,) rows of both, by image, prediction and instance."""
    others = n_true.repeat(n_found)
    predicted = np.arange(len(others)).repeat(others)
    first_pair, first_true = np.cumsum(others) - others, (np.cumsum(n_true) - n_true).repeat(n_found)
    return predicted, np.arange(len(predicted)) + (first_true - first_pair)[predicted]


def _costs(found: Poses, true: Poses, predicted: np.ndarray, subject: np.ndarray) -> np.ndarray:
    """(P,) mean distance of the labelled keypoints of each pair, in units of the size of the true instance."""
    cost = np.zeros(len(predicted))
    for part in np.array_split(np.arange(len(predicted)), 1 + len(predicted) // _AT_ONCE):
        i, j = predicted[part], subject[part]
        offset = found.xy[i] - true.xy[j]
        distance = np.hypot(offset[..., 0], offset[..., 1]) / np.sqrt(true.area[j])[:, None]
        distance = np.where(np.isfinite(distance), distance, MISSING_COST) * true.labelled[j]
        cost[part] = distance.sum(1) / true.labelled[j].sum(1)
    return cost


def _assign(
    cost: np.ndarray, n_found: np.ndarray, n_true: np.ndarray, similarity: np.ndarray, min_oks: float | None
) -> np.ndarray:
    """Which of all pairs are matched."""
    allowed = np.ones(len(cost), dtype=bool) if min_oks is None else similarity >= min_oks
    kept = [np.zeros(0, dtype=np.int64)]
    start = 0
    for n, m in zip(n_found.tolist(), n_true.tolist(), strict=True):
        own = slice(start, start + n * m)
        # one forbidden pair costs more than all allowed ones together, so it is assigned only where no other is left
        forbidden = 1.0 + cost[own][allowed[own]].sum()
        a, b = linear_sum_assignment(np.where(allowed[own], cost[own], forbidden).reshape(n, m))
        kept.append(start + a * m + b)
        start = own.stop
    pairs = np.concatenate(kept)
    return pairs[allowed[pairs]]


def _columns(
    found: Poses, true: Poses, predicted: np.ndarray, subject: np.ndarray, similarity: np.ndarray
) -> dict[str, np.ndarray]:
    """Columns of the table: (M,) by instance and (M, K) by keypoint.

    Args:
        found, true: instances of all images.
        predicted, subject, similarity: of each matched pair, rows of both and OKS.
    """
    m, k = true.visible.shape
    xy, keypoint_score = np.full((m, k, 2), np.nan), np.full((m, k), np.nan)
    score, oks, matched = np.full(m, np.nan), np.full(m, np.nan), np.zeros(m, dtype=bool)
    xy[subject] = found.xy[predicted]
    keypoint_score[subject] = found.keypoint_score[predicted]
    score[subject] = found.score[predicted]
    oks[subject] = similarity
    matched[subject] = True
    sides = true.box[:, 2:] - true.box[:, :2]
    return {
        "visible": true.visible,
        "true_x": true.xy[..., 0],
        "true_y": true.xy[..., 1],
        "x": xy[..., 0],
        "y": xy[..., 1],
        "error_px": np.linalg.norm(xy - true.xy, axis=-1),
        "keypoint_score": keypoint_score,
        "matched": matched,
        "score": score,
        "oks": oks,
        "area": true.area,
        "box_diagonal": np.linalg.norm(sides, axis=1),
        "box_longer_side": sides.max(1),
    }


def _tidy(
    columns: Mapping[str, np.ndarray], image: np.ndarray, images: pd.DataFrame, skeleton: Skeleton
) -> pd.DataFrame:
    """Expand columns to one row per keypoint.

    Args:
        columns: (M,) by instance, or (M, K) by keypoint.
        image: (M,) index of the image of each instance.
        images: one row per image.
        skeleton: names of the keypoints.
    """
    k = len(skeleton)
    position = image.repeat(k)
    whole = {name: values.repeat(k) if values.ndim == 1 else values.ravel() for name, values in columns.items()}
    return pd.DataFrame(
        {
            "image_id": images["image_id"].to_numpy()[position],
            "file": pd.Categorical(images["file"]).take(position),
            "instance": whole.pop("instance"),
            "keypoint": pd.Categorical.from_codes(
                np.tile(np.arange(k), len(image)), categories=list(skeleton.keypoints)
            ),
            **whole,
        }
    )
