"""Scores: summary, tables, card, and the files that they are written to and read from."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kplab.errors import ScoreError
from kplab.metrics.coco_ap import accumulate
from kplab.metrics.score import NOT_STATED, Scores, ScoreSettings, score
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton

SKELETON = Skeleton("tri", ("nose", "left", "right"), (), (0, 2, 1), (0.05, 0.1, 0.1), "guessed")
SHAPE = np.array([[0.0, 0.0], [-10.0, 20.0], [10.0, 20.0]])
FILES = {1: "a.png", 2: "b.png", 3: "c.png"}


def truth() -> dict[int, Poses]:
    """Two subjects in image 1, one and a crowd in image 2, none in image 3; boxes are 20 x 20."""
    two = SHAPE + np.array([[50.0, 50.0], [150.0, 50.0]])[:, None]
    box = np.concatenate([two.min(1), two.max(1)], axis=1)
    one = Poses.make(two, np.array([[2, 2, 2], [2, 1, 0]]), area=np.full(2, 400.0), box=box)
    other = Poses.make(two, area=np.full(2, 2000.0), box=box, ignore=np.array([False, True]))
    return {1: one, 2: other, 3: Poses.empty(3)}


def predictions(shift: float = 2.0, **card: object) -> Predictions:
    found = {
        i: Poses.make(np.nan_to_num(p.xy) + np.array([shift, 0.0]), box=p.box) for i, p in truth().items() if i < 3
    }
    found[2] = found[2][[0]]
    return Predictions(SKELETON, found, {"boxes": "given", "flip_test": False, "sha256": "p" * 8, **card})


SOURCES = {"dataset": "toy", "split": "test", "area_source": "segment", "box_source": "annotation", "truth_hash": "t"}


def scores(found: Predictions | None = None, **settings: object) -> Scores:
    return score(
        truth(), found or predictions(), SKELETON, files=FILES, settings=ScoreSettings(**settings), sources=SOURCES
    )


def test_truth_fed_back_is_perfect():
    s = scores(predictions(0.0)).summary
    assert (s["AP"], s["AR"], s["mean_px"], s["pck@0.05"], s["auc"]) == (1.0, 1.0, 0.0, 1.0, 1.0)
    assert (s["n_images"], s["n_instances"], s["n_missed"], s["n_extra"]) == (3, 3, 0, 0)


def test_figures_of_a_known_shift():
    s = scores(nme_pair="left-right").summary
    assert s["n_keypoints"] == 3 + 2 + 3
    assert s["mean_px"] == pytest.approx(2)
    assert s["rmse_px"] == pytest.approx(2)
    assert s["nme"] == pytest.approx(0.1)
    assert s["nme_left_out"] == 1
    assert (s["pck@0.05"], s["pck@0.1"]) == (0.0, 1.0)
    assert s["auc"] == pytest.approx(0.5)
    assert 0 < s["AP"] < 1


def test_image_without_an_entry_is_missed():
    found = predictions(0.0)
    del found.poses[2]
    s = scores(found)
    assert (s.summary["n_instances"], s.summary["n_missed"], s.summary["n_keypoints_missed"]) == (3, 1, 3)
    assert s.summary["AR"] == pytest.approx(2 / 3)
    assert s.summary["pck@0.2"] == pytest.approx(5 / 8)
    assert s.summary["mean_px"] == 0
    assert s.per_image.set_index("image_id")["n_missed"].to_dict() == {1: 0, 2: 1, 3: 0}
    nothing = scores(Predictions(SKELETON, {})).summary
    assert (nothing["AP"], nothing["n_missed"], nothing["pck@0.2"]) == (0.0, 3, 0.0)
    assert np.isnan(nothing["mean_px"])


def test_predictions_of_other_images_are_refused():
    found = predictions()
    found.poses[44] = found.poses[1]
    with pytest.raises(ValueError, match="image 44"):
        scores(found)


def test_visible_only_scores_v2_alone():
    """Image 1's second subject has one seen and one hidden keypoint; the hidden one is put 500 px off."""
    found = predictions(0.0)
    found.poses[1].xy[1, 1] += 500
    assert scores(found).summary["mean_px"] == pytest.approx(np.hypot(500, 500) / 8)
    assert scores(found).summary["AP"] < 1
    seen = scores(found, visibility="visible").summary
    assert (seen["mean_px"], seen["AP"], seen["n_keypoints"]) == (0, 1.0, 7)
    with pytest.raises(ValueError, match="visibility is 'all'"):
        ScoreSettings(visibility="all")


def test_card_states_the_conditions():
    card = scores(max_dets=5, pck_normalizer="box_diagonal").card
    want = {
        "skeleton": "tri",
        "sigmas": [0.05, 0.1, 0.1],
        "sigma_source": "guessed",
        "boxes": "given",
        "flip_test": False,
        "max_dets": 5,
        "visibility": "labelled",
        "pck_normalizer": "box_diagonal",
        "predictions_hash": "p" * 8,
        "n_images": 3,
        **SOURCES,
    }
    assert {key: card[key] for key in want} == want
    bare = score(truth(), Predictions(SKELETON, {}), SKELETON, files=FILES).card
    assert bare["boxes"] == bare["dataset"] == bare["truth_hash"] == NOT_STATED


def test_text_shows_pixels_beside_ap():
    lines = scores(nme_pair="left-right").text().splitlines()
    heads = [line for line in lines if re.search(r"\bAP\b", line)]
    assert heads
    assert all("mean_px" in line and "median_px" in line for line in heads)
    row = lines[lines.index(heads[0]) + 1].split()
    assert float(row[heads[0].split().index("mean_px") + 1]) == pytest.approx(2.0)
    nothing = scores(Predictions(SKELETON, {})).text()
    assert "3 missed" in nothing
    assert "nan" not in nothing.lower()


def test_files_restore_everything(tmp_path: Path):
    groups = {1: "007", 2: "007", 3: "b"}
    found = predictions()
    del found.poses[2]
    s = score(truth(), found, SKELETON, files=FILES, settings=ScoreSettings(), sources=SOURCES, name="x", groups=groups)
    path = s.write(tmp_path / "scores", "toy-test")
    assert {p.name for p in path.parent.iterdir()} == {
        "toy-test" + e for e in (".json", ".instances.parquet", ".keypoints.parquet", ".images.csv", ".matches.npz")
    }
    back = Scores.read(path)
    assert back.name == "x"
    assert back.card == s.card
    assert back.summary == pytest.approx(s.summary, nan_ok=True)
    for name in ("per_keypoint", "per_image", "per_instance", "keypoints"):
        pd.testing.assert_frame_equal(getattr(back, name), getattr(s, name), check_dtype=False, check_exact=False)
    assert back.per_image["group"].tolist() == ["007", "007", "b"]
    assert accumulate(back.matches) == {key: s.summary[key] for key in accumulate(back.matches)}
    assert "NaN" not in path.read_text()
    json.loads(path.read_text(), parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    (path.parent / "toy-test.matches.npz").unlink()
    with pytest.raises(ScoreError, match=r"toy-test.matches.npz is missing"):
        Scores.read(path)


@pytest.mark.parametrize("ending", [".instances.parquet", ".keypoints.parquet", ".images.csv", ".matches.npz"])
def test_files_of_two_evaluations_are_not_mixed(tmp_path: Path, ending: str):
    one, two = scores().write(tmp_path / "one", "s"), scores(predictions(3.0)).write(tmp_path / "two", "s")
    ids = [json.loads(path.read_text())["evaluation"] for path in (one, two)]
    assert ids[0] != ids[1]
    assert json.loads(scores().write(tmp_path / "again", "s").read_text())["evaluation"] == ids[0], "of equal content"
    one.with_name("s" + ending).write_bytes(two.with_name("s" + ending).read_bytes())
    with pytest.raises(ScoreError, match=f"s{ending} is of evaluation {ids[1]}, but s.json of {ids[0]}"):
        Scores.read(one)


def test_order_of_images_and_predictions_does_not_matter():
    found = predictions(3.0)
    want = scores(found).summary
    mixed = replace(found, poses={i: found.poses[i] for i in (2, 1)})
    mixed.poses[1] = replace(found.poses[1], score=np.array([0.3, 0.8]))[[1, 0]]
    found.poses[1].score[:] = [0.3, 0.8]
    turned = {i: truth()[i] for i in (3, 2, 1)}
    got = score(turned, mixed, SKELETON, files=FILES, settings=ScoreSettings()).summary
    assert got == pytest.approx(scores(found).summary)
    assert got["mean_px"] == pytest.approx(want["mean_px"])


def test_nothing_to_score_but_crowds():
    only = {2: truth()[2][[1]]}
    s = score(only, Predictions(SKELETON, {}), SKELETON, files=FILES)
    assert (s.summary["AP"], s.summary["n_instances"]) == (-1, 0)
    assert "0 instances" in s.text()


def test_a_long_table_of_keypoints_is_cut_to_the_hardest(tmp_path: Path) -> None:
    """Ten rows, the largest error first, and the file that has all of them."""
    names = tuple(f"p{i:02d}" for i in range(21))
    many = Skeleton("many", names, (), tuple(range(21)), (0.1,) * 21, "made up")
    xy = np.arange(42.0).reshape(1, 21, 2)
    true = {1: Poses.make(xy, np.full((1, 21), 2), area=np.array([900.0]))}
    shift = np.stack([np.arange(21.0), np.zeros(21)], axis=1)
    text = score(true, Predictions(many, {1: Poses.make(xy + shift)}), many, files={1: "a.png"}).text(
        tmp_path / "s.json"
    )
    assert re.findall(r"^ *(p\d\d) ", text, re.MULTILINE) == [f"p{i}" for i in range(20, 10, -1)]
    assert f"the 10 hardest of 21 keypoints; all of them: per_keypoint in {tmp_path}/s.json" in text
    assert "hardest" not in scores().text()
