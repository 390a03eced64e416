"""COCO keypoint AP and AR by OKS: pycocotools matches, and its matches are accumulated here for any multiset of images.

pycocotools (COCOeval, the referee of the field) decides which prediction meets which true instance at which threshold.
Accumulating those matches into AP is redone in vectorised form, because a bootstrap needs it thousands of times; tests
hold it to COCOeval's own figures.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kplab.errors import ScoreError
from kplab.metrics.matching import check_images
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions

AREAS = ("all", "medium", "large")
RECALLS = np.linspace(0.0, 1.0, 101)
_STATS = (("", slice(None)), ("50", slice(0, 1)), ("75", slice(5, 6)))


@dataclass
class Matches:
    """What COCOeval found, image by image; detections lie in descending order of score, as AP wants them.

    Args:
        image_id: (I,) int64, ascending.
        image: (D,) int64 index into image_id of every detection.
        score: (D,) float64, descending; ties in order of image.
        hit: (3, 10, D) bool by area class (``AREAS``) and OKS threshold .50 .. .95: met a true instance.
        false: (3, 10, D) bool: met none, and is not excused by a crowd, an unlabelled subject or its size.
        positives: (3, I) int64: true instances to be found.
    """

    image_id: np.ndarray
    image: np.ndarray
    score: np.ndarray
    hit: np.ndarray
    false: np.ndarray
    positives: np.ndarray


@dataclass
class ApResult:
    """The ten COCO figures (-1 where there is nothing to find) and the matches that they come from."""

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
    """COCO keypoint AP and AR, matched by pycocotools.

    An instance without labelled keypoints is neither found nor missed, and excuses one prediction inside its doubled
    box. A crowd excuses any number. Which ignored instances are crowds is told by ``crowd``; without it, an ignored
    instance counts as a crowd where it has labelled keypoints and as an unlabelled subject where it has none.

    Args:
        truth: image id to true poses, source pixels; areas must be known.
        predictions: predicted poses, source pixels. As in COCO's loadRes, the size of a detection is the area of its
            box if the first result has a box, else the extent of all its keypoints.
        sigmas: (K,) falloffs of OKS.
        max_dets: how many predictions an image may have; the lowest scores are dropped.
        crowd: image id to (M,) bool, COCO's iscrowd.

    Returns:
        ``stats``: AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl; and the matches.

    Raises:
        ScoreError: predictions of unknown images, a truth without area, or boxes on some predictions only.

    Source: pycocotools.cocoeval.
    """
    check_images(truth, predictions)
    keypoints = len(sigmas)
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = _annotations(truth, crowd or {})
        dataset = _coco(truth, annotations, keypoints)
        rows = _results(predictions)
        results = dataset.loadRes(rows) if rows else _coco(truth, [], keypoints)
        evaluation = COCOeval(dataset, results, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas, dtype=np.float64)
        evaluation.params.maxDets = [max_dets]
        evaluation.evaluate()
    matches = _extract(evaluation)
    return ApResult(accumulate(matches), matches)


def accumulate(matches: Matches, images: np.ndarray | None = None) -> dict[str, float]:
    """The ten COCO figures of any multiset of images; fast enough for a bootstrap.

    Copies of a detection stand at the same rank. That is the same as COCOeval on a dataset with copied images, except
    for the order among detections of equal score within one image, which is arbitrary in either.

    Args:
        matches: from ``coco_ap``.
        images: (any,) indices into ``matches.image_id``, repeats allowed; None = every image once.

    Returns:
        The stats of ``ApResult``; -1 where there is nothing to find.
    """
    count = len(matches.image_id)
    weight = np.ones(count, dtype=np.int64) if images is None else np.bincount(images, minlength=count)
    curves = {area: _curve(matches, i, weight) for i, area in enumerate(AREAS)}

    def mean(area: str, which: int, thresholds: slice) -> float:
        curve = curves[area]
        return -1.0 if curve is None else float(np.mean(curve[which][thresholds]))

    stats: dict[str, float] = {}
    for which, name in enumerate(("AP", "AR")):
        stats |= {name + suffix: mean("all", which, thresholds) for suffix, thresholds in _STATS}
        stats |= {name + area[0]: mean(area, which, slice(None)) for area in AREAS[1:]}
    return stats


def average_precision(matches: Matches, weight: np.ndarray) -> float:
    """AP alone, over all sizes, when image i counts ``weight[i]`` times; NaN where there is nothing to find."""
    curve = _curve(matches, 0, weight)
    return float("nan") if curve is None else float(np.mean(curve[0]))


def _curve(matches: Matches, area: int, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Precision (10, 101) at the 101 recalls and final recall (10,), by OKS threshold; None without positives."""
    positives = int(weight @ matches.positives[area])
    if positives == 0:
        return None
    each = weight[matches.image].astype(np.float64)
    hits = np.cumsum(matches.hit[area] * each, axis=1)
    falses = np.cumsum(matches.false[area] * each, axis=1)
    if hits.shape[1] == 0:
        return np.zeros((len(hits), len(RECALLS))), np.zeros(len(hits))
    precision = hits / (falses + hits + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # the column of zeros is the precision at recalls that are never reached
    precision = np.concatenate([precision, np.zeros((len(precision), 1))], axis=1)
    recall = hits / positives
    sampled = [p[np.searchsorted(r, RECALLS, side="left")] for p, r in zip(precision, recall, strict=True)]
    return np.array(sampled), recall[:, -1]


def _extract(evaluation: COCOeval) -> Matches:
    image_id = np.asarray(evaluation.params.imgIds, dtype=np.int64)
    count, thresholds = len(image_id), len(evaluation.params.iouThrs)
    per_area = [evaluation.evalImgs[a * count : (a + 1) * count] for a in range(len(AREAS))]
    nothing = np.zeros((thresholds, 0), dtype=bool)
    hit, false = [], []
    for found in per_area:
        matched = np.concatenate([nothing] + [e["dtMatches"] > 0 for e in found if e], axis=1)
        ignored = np.concatenate([nothing] + [e["dtIgnore"].astype(bool) for e in found if e], axis=1)
        hit.append(matched & ~ignored)
        false.append(~matched & ~ignored)
    score = np.array([s for e in per_area[0] if e for s in e["dtScores"]], dtype=np.float64)
    image = np.repeat(np.arange(count), [len(e["dtScores"]) if e else 0 for e in per_area[0]])
    order = np.argsort(-score, kind="stable")
    positives = [[int(np.count_nonzero(e["gtIgnore"] == 0)) if e else 0 for e in found] for found in per_area]
    return Matches(
        image_id,
        image[order],
        score[order],
        np.array(hit)[..., order],
        np.array(false)[..., order],
        np.array(positives, dtype=np.int64).reshape(len(AREAS), count),
    )


def _coco(truth: Mapping[int, Poses], annotations: list[dict[str, Any]], keypoints: int) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": int(image)} for image in truth],
        "categories": [{"id": 1, "name": "subject", "keypoints": [str(k) for k in range(keypoints)]}],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _triplets(poses: Poses) -> np.ndarray:
    """(N, 3K) COCO keypoints: pixel centres at whole numbers, zeros where there is no point."""
    xy = np.where(poses.labelled[..., None], poses.xy - 0.5, 0.0)
    return np.concatenate([xy, poses.visible[..., None]], axis=-1).reshape(len(poses), 3 * poses.xy.shape[1])


def _annotations(truth: Mapping[int, Poses], crowd: Mapping[int, np.ndarray]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for image, poses in truth.items():
        labelled = poses.labelled.sum(1)
        box = np.concatenate([poses.box[:, :2], poses.box[:, 2:] - poses.box[:, :2]], axis=1)
        area = np.where(poses.ignore & ~np.isfinite(poses.area), box[:, 2] * box[:, 3], poses.area)
        is_crowd = np.asarray(crowd.get(image, poses.ignore & (labelled > 0)), dtype=bool)
        if is_crowd.shape != (len(poses),):
            raise ScoreError(
                f"image {image} has {len(poses)} true instances, but 'crowd' tells of {is_crowd.size}. "
                "Give one value an instance, in the same order."
            )
        if (~np.isfinite(area) & ~poses.ignore & (labelled > 0)).any():
            raise ScoreError(
                f"image {image}: a true instance has no area, and OKS is relative to the area of the subject. "
                "Let the dataset state areas, or how to estimate them (e.g. 0.53 x box)."
            )
        triplets = _triplets(poses)
        for i in range(len(poses)):
            if not np.isfinite(area[i]) or (labelled[i] == 0 and not np.isfinite(box[i]).all()):
                continue  # without place or size it can excuse no prediction
            counted = 0 if poses.ignore[i] and not is_crowd[i] else int(labelled[i])
            rows.append(
                {
                    # COCOeval marks "no match" by 0, so no annotation may have that id
                    "id": len(rows) + 1,
                    "image_id": int(image),
                    "category_id": 1,
                    "keypoints": triplets[i].tolist(),
                    "num_keypoints": counted,
                    "bbox": np.nan_to_num(box[i]).tolist(),
                    "area": float(area[i]),
                    "iscrowd": int(is_crowd[i]),
                }
            )
    return rows


def _results(predictions: Predictions) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with_box: bool | None = None
    for image, poses in predictions.poses.items():
        triplets, boxed = _triplets(poses), np.isfinite(poses.box).all(1)
        for i in range(len(poses)):
            with_box = bool(boxed[i]) if with_box is None else with_box
            row: dict[str, Any] = {
                "image_id": int(image),
                "category_id": 1,
                "keypoints": triplets[i].tolist(),
                "score": float(poses.score[i]),
            }
            if with_box:
                if not boxed[i]:
                    raise ScoreError(
                        f"a prediction of image {image} has no box, but the first prediction has one: COCO takes the "
                        "size of all predictions from their boxes or of none. Give every prediction a box, or no one."
                    )
                x0, y0, x1, y1 = (float(v) for v in poses.box[i])
                row["bbox"] = [x0, y0, x1 - x0, y1 - y0]
            rows.append(row)
    return rows
