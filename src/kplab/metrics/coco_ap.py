"""COCO keypoint AP and AR by OKS: matching by pycocotools (COCOeval), accumulation by ``average_precision``."""

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
from kplab.metrics.average_precision import AREAS, Matches, accumulate
from kplab.metrics.matching import check_images
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions


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
    """Compute COCO keypoint AP and AR with pycocotools' matching.

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
                f"image {image} has {len(poses)} true instances, but 'crowd' has {is_crowd.size} values. "
                "Give one value per instance, in the same order."
            )
        if (~np.isfinite(area) & ~poses.ignore & (labelled > 0)).any():
            raise ScoreError(
                f"image {image}: a true instance has no area, and OKS is relative to the area of the subject. "
                "Let the dataset state areas, or how to estimate them (e.g. 0.53 x box)."
            )
        triplets = _triplets(poses)
        for i in range(len(poses)):
            if not np.isfinite(area[i]) or (labelled[i] == 0 and not np.isfinite(box[i]).all()):
                continue  # without place or size no prediction can be ignored for it
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
                        "size of all predictions from their boxes or of none. Give every prediction a box, or none."
                    )
                x0, y0, x1, y1 = (float(v) for v in poses.box[i])
                row["bbox"] = [x0, y0, x1 - x0, y1 - y0]
            rows.append(row)
    return rows
