"""Boxes from an earlier run and from a cascade: predictions on them do not depend on the labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from kplab.cli import main
from kplab.data.regions import detected_regions
from kplab.errors import ConfigError, DataError, RunError
from kplab.metrics.compare import CardMismatch
from kplab.runs.run import Run
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.sample import Batch
from kplab.structures.skeleton import Skeleton
from kplab.tasks.evaluation.comparison import compare_runs
from kplab.tasks.inference.assembly import Assembly
from kplab.tasks.inference.predict import predict_split
from kplab.tasks.training.train import train
from kplab.tasks.wiring.datasets import read_split
from kplab.tasks.wiring.nodes import load_config

Config = Callable[..., DictConfig]
FINDER = ["head=yolo", "neck.levels=[8,16,32]", "head.distance_weight=20", "flip_test=false", "trainer.max_epochs=8"]
CASCADE = [
    "model=cascade", "detector.size=[64,64]", "model.crop=[32,32]",
    "model.min_score=0.0", "head.sigma=1", "rescore=0.2",
]  # fmt: skip


def trained(config: DictConfig) -> Run:
    """A finished run."""
    run = train(config)
    assert run is not None
    return run


@pytest.fixture
def finder(finished: Callable[..., Run]) -> Run:
    """A run that detects subjects by itself, with predictions of val and test."""
    return finished(*FINDER, "test_on=[val,test]")


def strip(dotted: Path) -> None:
    """Remove every label from the annotation file."""
    path = dotted / "annotations.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "annotations": []}))


def test_a_run_on_detected_boxes_records_them_and_does_not_read_labels(
    config: Config, finder: Run, dotted: Path
) -> None:
    run = trained(config("regions=detected", f"detector_run={finder.folder}", "rescore=0.2", "oks_nms=0.9"))
    path = run.folder / "predictions" / "dots-test.json"
    card = json.loads(path.with_suffix(".card.json").read_text())
    assert (card["boxes"], card["detector_run"]) == ("detected", str(finder.folder))
    assert (card["rescore"], card["oks_nms"]) == (0.2, 0.9)
    before = path.read_bytes()
    assert json.loads(before)
    # scores of the same model on annotated boxes have another name
    assert main(["predict", f"run={run.folder}", "split=test", "regions=annotated"]) == 0
    assert main(["evaluate", f"run={run.folder}", "split=test", "regions=annotated"]) == 0
    scores = json.loads((run.folder / "scores" / "dots-test-annotated.json").read_text())
    assert scores["card"]["boxes"] == "annotated"
    strip(dotted)
    assert predict_split(run, "test").read_bytes() == before


def test_a_cascade_is_scored_on_both_kinds_of_boxes_and_does_not_read_labels(
    config: Config, finder: Run, dotted: Path
) -> None:
    run = trained(config(*CASCADE))
    path = run.folder / "predictions" / "dots-test.json"
    boxes = {
        name: json.loads((run.folder / "scores" / f"{name}.json").read_text())["card"]["boxes"]
        for name in ("dots-test", "dots-test-annotated")
    }
    assert boxes == {"dots-test": "detected", "dots-test-annotated": "annotated"}
    before = path.read_bytes()
    assert json.loads(before)
    # two models that detect their subjects are compared; annotated boxes are another condition
    compare_runs([run, finder], "dots-test", resamples=20, force=True)
    assert not [line for line in _differing(run, finder) if "boxes" in line]
    strip(dotted)
    assert predict_split(run, "test").read_bytes() == before


def _differing(a: Run, b: Run) -> list[str]:
    """Lines of two cards that differ."""
    cards = [json.loads((r.folder / "scores" / "dots-test.json").read_text())["card"] for r in (a, b)]
    return [key for key in cards[0] if key in ("boxes", "truth_hash", "split") and cards[0][key] != cards[1][key]]


def test_scores_on_annotated_boxes_are_not_compared_with_those_on_detected_boxes(config: Config, finder: Run) -> None:
    given = trained(config("regions=annotated", "flip_test=false"))
    with pytest.raises(CardMismatch, match="boxes"):
        compare_runs([given, finder], "dots-test")


def test_missing_predictions_of_boxes_are_refused(config: Config, finder: Run) -> None:
    (finder.folder / "predictions" / "dots-val.json").unlink()
    with pytest.raises(RunError, match=r"kplab predict run=.* split=val"):
        train(config("regions=detected", f"detector_run={finder.folder}"))
    with pytest.raises(ConfigError, match="detector_run"):
        config("regions=detected")
    with pytest.raises(ConfigError, match="whole images"):
        config(*CASCADE, "regions=annotated")


def test_every_predicted_box_is_a_region_without_a_subject(config: Config) -> None:
    labels = read_split(config().dataset, "test")
    random = np.random.default_rng(0)
    found = {}
    for n, image_id in enumerate(labels.image_id):
        xy = random.uniform(5, 50, (n, 3, 2))
        box = np.concatenate([xy.min(1) - 1, xy.max(1) + 1], axis=1)
        found[int(image_id)] = Poses.make(xy, box=box, score=random.uniform(size=n))
    regions = detected_regions(labels, found)
    assert (np.bincount(regions.image, minlength=len(labels)) == np.arange(len(labels))).all()
    np.testing.assert_array_equal(regions.box, np.concatenate([p.box for p in found.values()]))
    np.testing.assert_array_equal(regions.score, np.concatenate([p.score for p in found.values()]))
    assert (regions.subject == -1).all()
    del found[int(labels.image_id[-1])]
    with pytest.raises(DataError, match="do not cover this image"):
        detected_regions(labels, found)


SKELETON = Skeleton("s", ("a", "b", "c"), (), (0, 1, 2), (0.1, 0.1, 0.1), "test")


def batch(score: float) -> Batch:
    """One view, which is its image."""
    box = np.array([[10.0, 10, 60, 60]])
    return Batch(
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8), [], np.eye(3)[None], np.array([7]), box, np.array([score])
    )


@pytest.mark.parametrize(("whole", "wanted"), [(False, 0.5 * 0.75), (True, 0.4 * 0.5 * 0.75)])
def test_rescoring_weights_the_box_by_its_confident_keypoints(whole: bool, wanted: float) -> None:
    """A view's box scores 0.5, its pose 0.4; on annotated boxes the score is the mean of the keypoints alone."""
    pose = Poses.make(np.full((1, 3, 2), 20.0), score=np.array([0.4]), keypoint_score=np.array([[0.9, 0.6, 0.1]]))
    (found,) = Assembly(whole, rescore=0.2).to_source(batch(0.5), [pose])
    assert found.score[0] == pytest.approx(wanted)
    (none,) = Assembly(whole, rescore=0.95).to_source(batch(0.5), [pose])
    assert none.score[0] == 0
    (plain,) = Assembly(whole).to_source(batch(0.5), [pose])
    assert plain.score[0] == pytest.approx(0.2)


def test_duplicate_poses_of_an_image_are_removed_or_score_less() -> None:
    """The same subject in two regions, and another subject."""
    one = Poses.make(
        np.array([[[20.0, 20], [30, 20], [25, 40]]]), score=np.array([0.8]), box=np.array([[15.0, 15, 35, 45]])
    )
    again = replace(one, xy=one.xy + 0.1, score=np.array([0.9]))
    other = replace(one, xy=one.xy + 30, box=one.box + 30, score=np.array([0.7]))

    def poses_of(assembly: Assembly) -> Poses:
        return dict(assembly.by_image([(7, one), (7, again), (7, other)], [7], SKELETON))[7]

    kept = poses_of(Assembly(oks_nms=0.9))
    np.testing.assert_array_equal(kept.score, [0.9, 0.7])
    soft = poses_of(Assembly(oks_nms=0.9, soft=True))
    np.testing.assert_allclose(soft.score[:2], [0.9, 0.7])
    assert soft.score[2] == pytest.approx(0.8 * np.exp(-1 / 0.9), rel=0.05)
    assert len(poses_of(Assembly())) == 3


def test_predictions_of_another_run_become_regions(finder: Run) -> None:
    config = load_config(finder)
    labels = read_split(config.dataset, "test")
    found = Predictions.read(finder.folder / "predictions" / "dots-test.json", labels.skeleton).poses
    assert sum(len(p) for p in found.values()) == len(detected_regions(labels, found))
