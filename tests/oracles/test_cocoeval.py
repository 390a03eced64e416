"""AP and AR against pycocotools, on random cases and on reference files."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kplab.metrics.average_precision import average_precision
from kplab.metrics.coco_ap import ApResult, accumulate, coco_ap
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton

SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
NAMES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
K = 17


def skeleton(sigmas: np.ndarray = SIGMAS) -> Skeleton:
    k = len(sigmas)
    return Skeleton(f"k{k}", tuple(f"p{i}" for i in range(k)), (), tuple(range(k)), tuple(sigmas), "test")


def plain(dataset: dict[str, Any], results: list[dict[str, Any]], sigmas: np.ndarray = SIGMAS) -> np.ndarray:
    """Results of pycocotools, used as its manual describes."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(dataset)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "keypoints")
        evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def truth_of(dataset: dict[str, Any]) -> tuple[dict[int, Poses], dict[int, np.ndarray]]:
    members: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in dataset["images"]}
    for row in dataset["annotations"]:
        members[row["image_id"]].append(row)
    truth, crowd = {}, {}
    for image, rows in members.items():
        k = len(rows[0]["keypoints"]) // 3 if rows else K
        t = np.array([r["keypoints"] for r in rows], dtype=float).reshape(-1, k, 3)
        box = np.array([r["bbox"] for r in rows], dtype=float).reshape(-1, 4)
        box[:, 2:] += box[:, :2]
        crowd[image] = np.array([bool(r["iscrowd"]) for r in rows], dtype=bool)
        ignore = crowd[image] | np.array([r["num_keypoints"] == 0 for r in rows], dtype=bool)
        area = np.array([r["area"] for r in rows], dtype=float)
        truth[image] = Poses.make(t[..., :2] + 0.5, t[..., 2], box=box, area=area, ignore=ignore)
    return truth, crowd


def predictions_of(results: list[dict[str, Any]], folder: Path, sigmas: np.ndarray = SIGMAS) -> Predictions:
    (folder / "results.json").write_text(json.dumps(results))
    return Predictions.read(folder / "results.json", skeleton(sigmas))


def ours(dataset: dict[str, Any], results: list[dict[str, Any]], folder: Path, sigmas: np.ndarray = SIGMAS) -> ApResult:
    truth, crowd = truth_of(dataset)
    return coco_ap(truth, predictions_of(results, folder, sigmas), sigmas, crowd=crowd)


def annotation(number: int, image: int, xy: np.ndarray, visible: np.ndarray, **more: Any) -> dict[str, Any]:
    x0, y0 = xy.min(0)
    w, h = np.ptp(xy, axis=0)
    xy = xy * (visible > 0)[:, None]
    row = {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "keypoints": np.concatenate([xy, visible[:, None]], axis=1).ravel().tolist(),
        "num_keypoints": int((visible > 0).sum()),
        "bbox": [float(x0), float(y0), float(w), float(h)],
        "area": float(w * h * 0.6),
        "iscrowd": 0,
    }
    return row | more


def result(image: int, xy: np.ndarray, score: float) -> dict[str, Any]:
    triplets = np.concatenate([xy, np.ones((len(xy), 1))], axis=1)
    return {"image_id": image, "category_id": 1, "keypoints": triplets.ravel().tolist(), "score": score}


def random_case(seed: int, images: int = 50, boxes: bool = False, step: float = 0.05) -> tuple[dict, list[dict]]:
    """Crowds with and without keypoints, unlabelled and uncounted subjects, ties, over 20 detections, empty images."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(1, images + 1):
        subjects = 0 if image % 11 == 0 else int(rng.integers(0, 5))
        found = 0 if image % 7 == 0 else 30 if image % 13 == 0 else int(rng.integers(0, 6))
        true = []
        for _ in range(subjects):
            size = rng.choice([20.0, 60.0, 110.0, 300.0])
            xy = rng.uniform(0, size, (K, 2)) + rng.uniform(0, 400, 2)
            visible = rng.integers(0, 3, K)
            more: dict[str, Any] = {}
            kind = rng.uniform()
            if kind < 0.15:
                visible[:] = 0
            if 0.1 < kind < 0.25:
                more["iscrowd"] = 1
            if 0.25 < kind < 0.3:
                more["num_keypoints"] = 0
            true.append(xy)
            annotations.append(annotation(len(annotations) + 1, image, xy, visible, **more))
        for i in range(found):
            near = len(true) > 0 and rng.uniform() < 0.8
            start = true[i % len(true)] if near else rng.uniform(0, 400, (K, 2))
            xy = start + rng.normal(0, rng.choice([1.0, 5.0, 20.0]), (K, 2))
            score = rng.uniform(0.3 * near, 0.7 + 0.3 * near)
            score = np.round(score / step) * step if step else score
            row = result(image, xy, float(score))
            if boxes:
                row["bbox"] = [*xy.min(0).tolist(), *(1.2 * np.ptp(xy, axis=0)).tolist()]
            results.append(row)
    dataset = {"images": [{"id": i} for i in range(1, images + 1)], "categories": [{"id": 1}]}
    return dataset | {"annotations": annotations}, results


@pytest.mark.parametrize("boxes", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_random_cases_equal_cocoeval(seed: int, boxes: bool, tmp_path: Path):
    dataset, results = random_case(seed, boxes=boxes)
    got = ours(dataset, results, tmp_path).stats
    assert tuple(got) == NAMES
    np.testing.assert_allclose(list(got.values()), plain(dataset, results), atol=1e-12)
    assert 0.05 < got["AP"] < 0.95, "the case is too easy or too hard to tell evaluators apart"


def grid_case(seed: int) -> tuple[dict, list[dict]]:
    """Whole shapes on a coarse grid: many equal similarities, copies of subjects and detections, equal scores."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(0, 6, (K, 2)) * 10.0
    annotations, results = [], []
    for image in range(1, 13):
        for _ in range(rng.integers(0, 7)):
            visible = np.where(rng.uniform(size=K) < rng.choice([0.0, 0.5, 1.0], p=[0.1, 0.3, 0.6]), 2, 0)
            more = {
                "area": float(rng.choice([900.0, 1024.0, 4000.0, 9216.0, 2e4])),
                "iscrowd": int(rng.uniform() < 0.15),
            }
            xy = shape + rng.integers(0, 3, 2) * 4.0
            annotations.append(annotation(len(annotations) + 1, image, xy, visible, **more))
        for _ in range(rng.integers(0, 9)):
            xy = shape + rng.integers(0, 3, 2) * 4.0 + rng.integers(-1, 2, (K, 2)) * rng.choice([0.0, 4.0])
            results.append(result(image, xy, float(rng.integers(1, 4) / 4)))
    return {"images": [{"id": i} for i in range(1, 13)], "categories": [{"id": 1}], "annotations": annotations}, results


@pytest.mark.parametrize("seed", range(40))
def test_ties_equal_cocoeval(seed: int, tmp_path: Path):
    dataset, results = grid_case(seed)
    got = ours(dataset, results, tmp_path).stats
    np.testing.assert_allclose(list(got.values()), plain(dataset, results), atol=1e-12)


def test_order_of_images_does_not_matter(tmp_path: Path):
    """Equal scores of several images are ranked by the ids of their images, as by COCOeval."""
    dataset, results = random_case(6)
    truth, crowd = truth_of(dataset)
    found = predictions_of(results, tmp_path)
    want = coco_ap(truth, found, SIGMAS, crowd=crowd).matches
    shuffled = Predictions(found.skeleton, dict(reversed(found.poses.items())))
    got = coco_ap(dict(reversed(truth.items())), shuffled, SIGMAS, crowd=crowd).matches
    for name, array in vars(want).items():
        np.testing.assert_array_equal(getattr(got, name), array, err_msg=name)


def test_no_predictions_and_no_truth(tmp_path: Path):
    dataset, results = random_case(7, images=10)
    truth, crowd = truth_of(dataset)
    nothing = coco_ap(truth, Predictions(skeleton(), {}), SIGMAS, crowd=crowd).stats
    assert set(nothing.values()) == {0.0}
    dataset["annotations"] = []
    got = ours(dataset, results, tmp_path).stats
    assert list(got.values()) == plain(dataset, results).tolist() == [-1.0] * 10


def test_crowds_differ_from_unlabelled_subjects(tmp_path: Path):
    """Two detections on a crowd without keypoints are both ignored; on an unlabelled subject only one is."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 200, (K, 2))
    crowd = annotation(1, 1, xy + 400, np.zeros(K, dtype=int), iscrowd=1)
    dataset = {
        "images": [{"id": 1}],
        "categories": [{"id": 1}],
        "annotations": [crowd, annotation(2, 1, xy, np.full(K, 2))],
    }
    results = [result(1, xy + 400, 0.9), result(1, xy + 401, 0.8), result(1, xy, 0.7)]
    assert plain(dataset, results)[0] == pytest.approx(1.0)
    assert ours(dataset, results, tmp_path).stats["AP"] == pytest.approx(1.0)
    truth, _ = truth_of(dataset)
    assert coco_ap(truth, predictions_of(results, tmp_path), SIGMAS).stats["AP"] == pytest.approx(0.5)


def test_unlabelled_subjects_are_not_scored_whether_or_not_they_are_ignored(tmp_path: Path):
    dataset, results = random_case(8)
    truth, crowd = truth_of(dataset)
    truth = {i: replace(p, ignore=p.ignore & (p.labelled.any(1) | crowd[i])) for i, p in truth.items()}
    got = coco_ap(truth, predictions_of(results, tmp_path), SIGMAS, crowd=crowd).stats
    np.testing.assert_allclose(list(got.values()), plain(dataset, results), atol=1e-12)


def test_resampled_images_equal_cocoeval_on_copied_images(tmp_path: Path):
    dataset, results = random_case(5, images=30, step=0.0)
    matches = ours(dataset, results, tmp_path).matches
    drawn = np.random.default_rng(0).integers(0, 30, 30)
    copies = {"images": [], "categories": [{"id": 1}], "annotations": []}
    copied_results = []
    for new, old in enumerate(drawn, start=1):
        copies["images"].append({"id": new})
        for row in dataset["annotations"]:
            if row["image_id"] == old + 1:
                copies["annotations"].append(row | {"id": len(copies["annotations"]) + 1, "image_id": new})
        copied_results += [row | {"image_id": new} for row in results if row["image_id"] == old + 1]
    got = accumulate(matches, drawn)
    np.testing.assert_allclose(list(got.values()), plain(copies, copied_results), atol=1e-12)
    weight = np.bincount(drawn, minlength=30)
    assert average_precision(matches, weight) == got["AP"]


def stage(*shifts_and_scores: tuple[float, float], area: float = 1e4, **more: Any) -> tuple[dict, list[dict]]:
    """One subject of 17 labelled joints, and detections that are shifted along x."""
    xy = np.random.default_rng(0).uniform(100, 250, (K, 2))
    row = annotation(1, 1, xy, np.full(K, 2), area=area, **more)
    dataset = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": [row]}
    return dataset, [result(1, xy + np.array([shift, 0.0]), score) for shift, score in shifts_and_scores]


@pytest.mark.parametrize(
    ("detections", "area", "want"),
    [
        ([(0, 0.9)], 1e4, {"AP": 1.0, "APl": 1.0, "APm": -1.0}),
        ([(10, 0.95), (0, 0.9)], 1e4, {"AP": 0.65}),
        ([(0, 0.95), (0, 0.9)], 1e4, {"AP": 1.0}),
        ([(500, 1 - i / 100) for i in range(20)] + [(0, 0.1)], 1e4, {"AP": 0.0, "AR": 0.0}),
        ([(0, 0.9)], 9216.0, {"APm": 1.0, "APl": 1.0}),
        ([(0, 0.9)], 1000.0, {"AP": 1.0, "APm": -1.0, "APl": -1.0}),
    ],
    ids=["perfect", "worse duplicate first", "duplicate", "21st", "medium and large", "small"],
)
def test_golden(detections: list[tuple[float, float]], area: float, want: dict[str, float], tmp_path: Path):
    """Figures measured with pycocotools 2.0.11."""
    got = ours(*stage(*detections, area=area), tmp_path).stats
    assert {name: got[name] for name in want} == pytest.approx(want, abs=1e-9)


def test_golden_a_detection_on_an_unlabelled_subject_is_ignored(tmp_path: Path):
    dataset, results = stage((0, 0.8))
    stray = np.random.default_rng(1).uniform(430, 480, (K, 2))
    results.append(result(1, stray, 0.9))
    assert ours(dataset, results, tmp_path).stats["AP"] == pytest.approx(0.5)
    dataset["annotations"].append(annotation(2, 1, stray + 30, np.zeros(K, dtype=int)))
    assert ours(dataset, results, tmp_path).stats["AP"] == pytest.approx(1.0)


def test_keypoints_and_boxes_are_compared_in_the_frame_of_coco(tmp_path: Path):
    """A detection on the edge of the doubled box is inside, and half a pixel further it is outside."""
    dataset, results = stage((0, 0.8))
    results.append(result(1, np.full((K, 2), 30.0), 0.9))
    subject = annotation(2, 1, np.zeros((K, 2)), np.zeros(K, dtype=int), bbox=[10.0, 10.0, 10.0, 10.0], area=1e-3)
    dataset["annotations"].append(subject)
    assert ours(dataset, results, tmp_path).stats["AP"] == pytest.approx(1.0)
    subject["bbox"] = [9.5, 9.5, 10.0, 10.0]
    assert ours(dataset, results, tmp_path).stats["AP"] == pytest.approx(0.5)


def test_golden_only_a_crowd(tmp_path: Path):
    assert ours(*stage((0, 0.9), iscrowd=1), tmp_path).stats["AP"] == -1


def test_max_dets_limits_detections(tmp_path: Path):
    dataset, results = stage(*[(500, 1 - i / 100) for i in range(20)], (0, 0.1))
    truth, crowd = truth_of(dataset)
    found = coco_ap(truth, predictions_of(results, tmp_path), SIGMAS, max_dets=21, crowd=crowd)
    assert found.stats["AR"] == pytest.approx(1.0)


def test_other_sigmas(tmp_path: Path):
    """Four keypoints with other sigmas: the number differs from COCO's."""
    sigmas = np.array([0.02, 0.05, 0.1, 0.3])
    rng = np.random.default_rng(2)
    rows, results = [], []
    for image in range(1, 21):
        xy = rng.uniform(0, 150, (4, 2))
        rows.append(annotation(image, image, xy, np.full(4, 2)))
        results.append(result(image, xy + rng.normal(0, 8, (4, 2)), float(rng.uniform())))
    dataset = {"images": [{"id": i} for i in range(1, 21)], "categories": [{"id": 1}], "annotations": rows}
    got = ours(dataset, results, tmp_path, sigmas).stats
    np.testing.assert_allclose(list(got.values()), plain(dataset, results, sigmas), atol=1e-12)
    assert 0.05 < got["AP"] < 0.95


def test_reference_files(tmp_path: Path, real_data: Path):
    """Example of xtcocoapi; figures from the README of the folder, computed with pycocotools."""
    folder = real_data / "cocoeval_reference"
    dataset = json.loads((folder / "example_coco_val.json").read_text())
    results = json.loads((folder / "example_coco_preds.json").read_text())
    got = ours(dataset, results, tmp_path).stats
    want = [0.860890, 0.993145, 0.910891, 0.775578, 0.937252, 0.875000, 1.0, 0.916667, 0.780000, 0.942857]
    np.testing.assert_allclose(list(got.values()), want, atol=1e-6)
    np.testing.assert_allclose(list(got.values()), plain(dataset, results), atol=1e-9)


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_truth_of_coco_mini_scores_one(split: str, real_data: Path):
    found = sorted((real_data / "coco_mini" / "annotations").glob(f"person_keypoints_{split}*.json"))
    dataset = json.loads(found[0].read_text())
    truth, crowd = truth_of(dataset)
    poses = {}
    for image, p in truth.items():
        own = p[~p.ignore]
        poses[image] = Poses.make(np.nan_to_num(own.xy), box=own.box)
    stats = coco_ap(truth, Predictions(skeleton(), poses), SIGMAS, crowd=crowd).stats
    assert stats == pytest.approx(dict.fromkeys(NAMES, 1.0), abs=1e-12)
    assert sum(len(p) for p in poses.values()) == {"train2017": 86, "val2017": 68}[split]
