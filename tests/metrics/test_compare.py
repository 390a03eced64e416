"""The paired bootstrap against analytic figures, and the refusal to compare scores of different conditions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kplab.metrics.compare import EXEMPT, CardMismatch, compare, draw_weights, interval
from kplab.metrics.score import Scores, ScoreSettings, score
from kplab.metrics.statistics import weighted_mean, weighted_median
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton

SKELETON = Skeleton("tri", ("nose", "left", "right"), (), (0, 2, 1), (0.05, 0.1, 0.1), "guessed")
SHAPE = np.array([[0.0, 0.0], [-10.0, 20.0], [10.0, 20.0]])
SOURCES = {"dataset": "toy", "split": "test", "area_source": "segment", "box_source": "annotation", "truth_hash": "t"}


def scores(
    errors: np.ndarray,
    seed: int = 0,
    groups: dict[int, str] | None = None,
    boxes: str = "given",
    flip_test: bool = False,
    sources: dict[str, str] = SOURCES,
    **settings: object,
) -> Scores:
    """One subject an image, all of whose keypoints are off by that image's error, in a direction of its own."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, len(errors))
    offset = errors[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    box = np.array([[-10.0, 0.0, 10.0, 20.0]])
    truth = {i: Poses.make(SHAPE[None], area=np.array([400.0]), box=box) for i in range(1, len(errors) + 1)}
    score_of = np.random.default_rng(seed + 1).uniform(size=(len(errors), 1))
    found = {i: Poses.make(SHAPE[None] + offset[i - 1], score=score_of[i - 1]) for i in truth}
    card = {"boxes": boxes, "flip_test": flip_test}
    return score(
        truth,
        Predictions(SKELETON, found, card),
        SKELETON,
        files={i: f"{i}.png" for i in truth},
        settings=ScoreSettings(**settings),
        sources=sources,
        groups=groups,
    )


def row(table: pd.DataFrame, **where: str) -> pd.Series:
    for key, value in where.items():
        table = table[table[key] == value]
    assert len(table) == 1
    return table.iloc[0]


@pytest.fixture(scope="module")
def errors() -> np.ndarray:
    return np.random.default_rng(0).gamma(4.0, 1.0, 2000)


def test_interval_of_the_mean_is_the_analytic_one(errors: np.ndarray):
    """Every image has equal keypoints, so the standard error of mean_px is sd / sqrt(n). 1.96 se, within 6 %.

    2000 resamples place a 2.5 % quantile to about 3 % of the half width (one standard deviation), each side.
    """
    values = compare({"a": scores(errors)}, resamples=2000).values
    got = row(values, metric="mean_px")
    half = 1.96 * errors.std() / np.sqrt(len(errors))
    assert got.value == pytest.approx(errors.mean(), abs=1e-9)
    assert (got.high - got.low) / 2 == pytest.approx(half, rel=0.06)
    hit = row(values, metric="pck@0.2")
    p = np.mean(errors <= 4)
    assert hit.value == pytest.approx(p)
    assert (hit.high - hit.low) / 2 == pytest.approx(1.96 * np.sqrt(p * (1 - p) / len(errors)), rel=0.06)


def test_interval_covers_the_true_mean_about_95_times_in_100():
    """400 samples of 60 images from a law whose mean is known; binomial sd of the coverage is 1.1 %."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        values = rng.normal(5.0, 2.0, 60)
        low, high = interval(weighted_mean(values, np.arange(60), draw_weights(60, 500, rng)))
        covered += low <= 5.0 <= high
    assert 0.90 <= covered / 400 <= 0.98


def test_identical_runs_do_not_differ(errors: np.ndarray):
    a = scores(errors[:100])
    got = compare({"a": a, "b": scores(errors[:100])}, resamples=200)
    assert not got.differences[["difference", "low", "high"]].to_numpy().any()
    assert got.differences["zero_inside"].all()


def test_pairs_find_a_shift_that_intervals_do_not(errors: np.ndarray):
    """0.1 px worse in every image: unpaired intervals overlap widely, the paired difference is 0.1 exactly."""
    got = compare({"a": scores(errors[:100]), "b": scores(errors[:100] + 0.1)}, resamples=300)
    assert (got.values.groupby("run")["metric"].nunique() == got.values["metric"].nunique()).all()
    a, b = (row(got.values, run=r, metric="mean_px") for r in "ab")
    assert a.high > b.low
    d = row(got.differences, metric="mean_px")
    np.testing.assert_allclose([d.difference, d.low, d.high], -0.1, atol=1e-9)
    assert not d.zero_inside
    assert row(got.differences, metric="AP").difference > 0
    assert got.per_keypoint["b"].to_numpy() == pytest.approx(got.per_keypoint["a"].to_numpy() + 0.1)


def test_ap_and_median_of_resamples(errors: np.ndarray):
    """The value is the one of the summary, and the interval holds it; AP is 0 width where all is perfect."""
    s = scores(errors[:150])
    got = compare({"a": s}, resamples=200).values.set_index("metric")
    for name in ("AP", "mean_px", "median_px", "pck@0.05", "pck@0.1", "pck@0.2"):
        assert got.loc[name, "value"] == pytest.approx(s.summary[name], abs=1e-12), name
        assert got.loc[name, "low"] < got.loc[name, "value"] < got.loc[name, "high"], name
    perfect = compare({"a": scores(np.zeros(20))}, resamples=50).values.set_index("metric")
    assert perfect.loc["AP", ["value", "low", "high"]].tolist() == [1, 1, 1]


def test_weighted_figures_are_those_of_repeated_values():
    rng = np.random.default_rng(5)
    values, image = rng.normal(size=40), rng.integers(0, 8, 40)
    weights = draw_weights(8, 20, rng)
    for r, w in enumerate(weights):
        repeated = np.repeat(values, w[image])
        assert weighted_mean(values, image, weights)[r] == pytest.approx(repeated.mean())
        assert weighted_median(values, image, weights)[r] == pytest.approx(np.median(repeated))
    none = np.zeros((1, 8), dtype=int)
    assert np.isnan(weighted_mean(values, image, none)).all()
    assert np.isnan(weighted_median(values, image, none)).all()


def test_groups_are_drawn_whole():
    """Ten videos of thirty equal frames: the interval is that of ten values, and not of three hundred."""
    errors = np.repeat(np.random.default_rng(4).uniform(1, 5, 10), 30)
    groups = {i + 1: f"video {i // 30}" for i in range(300)}
    by_group = compare({"a": scores(errors, groups=groups)}, resamples=1000)
    by_image = compare({"a": scores(errors)}, resamples=1000)
    assert (by_group.unit, by_image.unit) == ("group", "image")
    wide, narrow = (row(c.values, metric="mean_px") for c in (by_group, by_image))
    ratio = (wide.high - wide.low) / (narrow.high - narrow.low)
    assert ratio == pytest.approx(np.sqrt(30), rel=0.15)
    weights = draw_weights(6, 50, np.random.default_rng(0), np.array(list("aabbbc")))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, [0, 2, 5]].sum(1) == 3).all()


def test_same_seed_same_numbers(errors: np.ndarray):
    runs = {"a": scores(errors[:60]), "b": scores(errors[60:120], seed=9)}
    first, again, other = (compare(runs, resamples=100, seed=s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(first.values, again.values)
    pd.testing.assert_frame_equal(first.differences, again.differences)
    assert not first.values.equals(other.values)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"boxes": "detected"}, "boxes: 'a' has given, 'b' has detected"),
        ({"flip_test": True}, "flip_test: 'a' has False, 'b' has True"),
        ({"max_dets": 5}, "max_dets: 'a' has 20, 'b' has 5"),
        ({"visibility": "visible"}, "visibility: 'a' has labelled, 'b' has visible"),
        ({"pck_normalizer": "pixels"}, "pck_normalizer: 'a' has box_longer_side, 'b' has pixels"),
        ({"sources": SOURCES | {"truth_hash": "u"}}, "truth_hash: 'a' has t, 'b' has u"),
        ({"sources": SOURCES | {"split": "val"}}, "split: 'a' has test, 'b' has val"),
        ({"sources": SOURCES | {"area_source": "0.53 x box"}}, "area_source: 'a' has segment, 'b' has 0.53 x box"),
    ],
)
def test_unlike_cards_are_refused(change: dict, line: str, errors: np.ndarray):
    runs = {"a": scores(errors[:20]), "b": scores(errors[:20], **change)}
    with pytest.raises(CardMismatch, match="force=true") as refusal:
        compare(runs, resamples=10)
    assert line in str(refusal.value)
    assert str(refusal.value).count("'a' has") == 1
    forced = compare(runs, resamples=10, force=True)
    assert forced.forced == [line]
    assert line in forced.text()


def test_other_sigmas_are_refused(errors: np.ndarray):
    a = scores(errors[:20])
    b = replace(a, card=a.card | {"sigmas": [0.1, 0.1, 0.1]})
    with pytest.raises(CardMismatch, match=r"sigmas: 'a' has \[0.05, 0.1, 0.1\], 'b' has \[0.1, 0.1, 0.1\]"):
        compare({"a": a, "b": b}, resamples=10)


def test_a_new_line_of_the_card_is_compared_unless_it_is_exempt(errors: np.ndarray):
    a, b = scores(errors[:20]), scores(errors[:20])
    b = replace(b, card=b.card | {"ensemble": 3})
    with pytest.raises(CardMismatch, match="ensemble: 'a' has None, 'b' has 3"):
        compare({"a": a, "b": b}, resamples=10)
    with pytest.raises(CardMismatch, match="ensemble: 'b' has 3, 'a' has None"):
        compare({"b": b, "a": a}, resamples=10)
    c = replace(a, card=a.card | dict.fromkeys(EXEMPT, "other"))
    assert not compare({"a": a, "c": c}, resamples=10).forced


def test_other_images_are_refused_even_by_force(errors: np.ndarray):
    with pytest.raises(ValueError, match=r"e\.g\. image 21"):
        compare({"a": scores(errors[:20]), "b": scores(errors[:25])}, resamples=10, force=True)
    with pytest.raises(ValueError, match="nothing to compare"):
        compare({})


def test_from_files_alone(tmp_path: Path, errors: np.ndarray):
    groups = {i: f"0{i % 7}" for i in range(1, 41)}
    runs = {"a": scores(errors[:40], groups=groups), "b": scores(errors[40:80], groups=groups)}
    want = compare(runs, resamples=100)
    back = {name: Scores.read(s.write(tmp_path / name, "toy-test")) for name, s in runs.items()}
    got = compare(back, resamples=100)
    pd.testing.assert_frame_equal(got.values, want.values)
    pd.testing.assert_frame_equal(got.differences, want.differences)
    content = json.loads(got.write(tmp_path / "out").read_text())
    assert content["unit"] == "group"
    assert content["values"][0]["value"] == pytest.approx(want.values["value"][0])
    table = pd.read_csv(tmp_path / "out" / "comparison.differences.csv")
    pd.testing.assert_frame_equal(table, want.differences)
    assert "a - b: mean_px" in got.text()
