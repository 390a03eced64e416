"""Matching of predictions with true instances for errors in pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from kplab.errors import ScoreError
from kplab.ops.oks import oks
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton

# The cost of a keypoint that a prediction lacks, in units of the subject's size: a prediction may not gain by lacking points.
MISSING_COST = 1.0


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
    files = files or {}
    blocks, images = [], []
    for position, (image, poses) in enumerate(truth.items()):
        rows = np.flatnonzero(~poses.ignore & poses.labelled.any(1))
        true = poses[rows]
        if not (true.area > 0).all():
            raise ScoreError(
                f"image {image} ({files.get(image, 'file unknown')}): a true instance has area "
                f"{true.area[~(true.area > 0)][0]}, but it must be positive to weight its errors. "
                "Let the dataset state areas, or how to estimate them (e.g. 0.53 x box)."
            )
        predicted = predictions.poses.get(image, Poses.empty(len(skeleton)))
        predicted = _best(predicted, max_dets, min_score)
        similarity = oks(predicted.xy, true.xy, true.visible, true.area, skeleton.sigma_array)
        pred_rows, true_rows = _assign(predicted, true, similarity, min_oks)
        block = _columns(predicted, true, similarity, pred_rows, true_rows)
        block["image"] = np.full(len(true), position)
        block["instance"] = rows
        blocks.append(block)
        found = len(true_rows)
        images.append((image, files.get(image, ""), len(true), found, len(true) - found, len(predicted) - found))
    table = pd.DataFrame(images, columns=["image_id", "file", "n_instances", "n_matched", "n_missed", "n_extra"])
    return Matching(_tidy(blocks, table, skeleton), table)


def _best(poses: Poses, max_dets: int, min_score: float | None) -> Poses:
    if min_score is not None:
        poses = poses[poses.score >= min_score]
    return poses[np.argsort(-poses.score, kind="stable")[:max_dets]]


def _assign(
    predicted: Poses, true: Poses, similarity: np.ndarray, min_oks: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the paired predictions and true instances."""
    distance = np.linalg.norm(predicted.xy[:, None] - true.xy[None], axis=-1) / np.sqrt(true.area)[:, None]
    distance = np.where(np.isfinite(distance), distance, MISSING_COST) * true.labelled
    cost = distance.sum(-1) / np.maximum(true.labelled.sum(1), 1)
    allowed = np.ones(cost.shape, dtype=bool) if min_oks is None else similarity >= min_oks
    # one forbidden pair costs more than all allowed ones together, so it is assigned only where no other is left
    forbidden = 1.0 + cost[allowed].sum() if cost.size else 1.0
    a, b = linear_sum_assignment(np.where(allowed, cost, forbidden))
    kept = allowed[a, b]
    return a[kept], b[kept]


def _columns(
    predicted: Poses, true: Poses, similarity: np.ndarray, pred_rows: np.ndarray, true_rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Columns of one image: (M,) by instance and (M, K) by keypoint."""
    m, k = true.visible.shape
    xy, keypoint_score = np.full((m, k, 2), np.nan), np.full((m, k), np.nan)
    score, own_oks, matched = np.full(m, np.nan), np.full(m, np.nan), np.zeros(m, dtype=bool)
    xy[true_rows] = predicted.xy[pred_rows]
    keypoint_score[true_rows] = predicted.keypoint_score[pred_rows]
    score[true_rows] = predicted.score[pred_rows]
    own_oks[true_rows] = similarity[pred_rows, true_rows]
    matched[true_rows] = True
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
        "oks": own_oks,
        "area": true.area,
        "box_diagonal": np.linalg.norm(sides, axis=1),
        "box_longer_side": sides.max(1),
    }


def _tidy(blocks: list[dict[str, np.ndarray]], images: pd.DataFrame, skeleton: Skeleton) -> pd.DataFrame:
    """Expand the columns of all images to one row per keypoint."""
    k = len(skeleton)
    first = ("image", "instance")
    names = list(first) + [n for n in (blocks[0] if blocks else {}) if n not in first]
    columns = {}
    for name in names:
        parts = [block[name] for block in blocks]
        whole = np.concatenate(parts)
        columns[name] = np.repeat(whole, k) if whole.ndim == 1 else whole.ravel()
    position = columns.pop("image")
    count = len(position) // k
    keypoint = pd.Categorical.from_codes(np.tile(np.arange(k), count), categories=list(skeleton.keypoints))
    head = {
        "image_id": images["image_id"].to_numpy()[position],
        "file": pd.Categorical(images["file"]).take(position),
        "instance": columns.pop("instance"),
        "keypoint": keypoint,
    }
    return pd.DataFrame({**head, **columns})
