"""Pairs of predictions and true instances: against brute force, and rules that each case shows."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kplab.metrics.matching import match
from kplab.ops.oks import oks
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton

SKELETON = Skeleton("tri", ("nose", "left", "right"), (), (0, 2, 1), (0.05, 0.1, 0.1), "test")
SHAPE = np.array([[0.0, 0.0], [-10.0, 20.0], [10.0, 20.0]])


def at(*corners: tuple[float, float], **more: object) -> Poses:
    """Instances of one shape at these places."""
    return Poses.make(SHAPE + np.array(corners, dtype=float).reshape(-1, 1, 2), **more)


def truth_at(*corners: tuple[float, float], **more: object) -> Poses:
    n = len(corners)
    box = at(*corners).extent()
    return at(*corners, **{"area": np.full(n, 400.0), "box": box, **more})


def said(*poses: Poses) -> Predictions:
    return Predictions(SKELETON, dict(enumerate(poses, start=1)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_assignment_is_the_best_of_all(seed: int, n: int, m: int):
    rng = np.random.default_rng(seed)
    area = rng.uniform(100, 900, m)
    true = Poses.make(rng.uniform(0, 100, (m, 3, 2)), rng.integers(1, 3, (m, 3)), area=area)
    found = Poses.make(rng.uniform(0, 100, (n, 3, 2)), score=rng.uniform(size=n))
    cost = np.linalg.norm(found.xy[:, None] - true.xy[None], axis=-1).mean(-1) / np.sqrt(area)
    few, many = (cost, m) if n <= m else (cost.T, n)
    best = min(few[np.arange(len(few)), list(p)[: len(few)]].sum() for p in permutations(range(many)))
    table = match({1: true}, said(found), SKELETON).keypoints
    by_instance = table.groupby("instance")
    got = (by_instance["error_px"].mean() / np.sqrt(by_instance["area"].first())).dropna()
    assert len(got) == min(n, m)
    assert got.sum() == pytest.approx(best)


def test_rows_say_what_was_paired():
    true = truth_at((0, 0), (100, 0))
    found = at((101, 0), (3, 4), score=np.array([0.9, 0.4]), keypoint_score=np.array([[0.1, 0.2, 0.3]] * 2))
    matching = match({1: true}, said(found), SKELETON, files={1: "a.png"})
    table = matching.keypoints
    assert list(table["error_px"].round(9)) == [5, 5, 5, 1, 1, 1]
    assert list(table["score"]) == [0.4] * 3 + [0.9] * 3
    assert list(table["keypoint"]) == ["nose", "left", "right"] * 2
    assert list(table["keypoint_score"]) == [0.1, 0.2, 0.3] * 2
    assert set(table["file"]) == {"a.png"}
    own = oks(found.xy, true.xy, true.visible, true.area, SKELETON.sigma_array)
    assert table["oks"].tolist() == [own[1, 0]] * 3 + [own[0, 1]] * 3
    first = table.iloc[1]
    assert (first.true_x, first.true_y, first.x, first.y) == (-10, 20, -7, 24)
    assert (first.box_longer_side, first.box_diagonal) == (20, np.hypot(20, 20))


def test_far_is_an_error_and_none_is_missed():
    true = truth_at((0, 0), (50, 0))
    matching = match({1: true}, said(at((3000, 0))), SKELETON)
    assert matching.images[["n_instances", "n_matched", "n_missed", "n_extra"]].to_numpy().tolist() == [[2, 1, 1, 0]]
    errors = matching.keypoints.groupby("instance")["error_px"].mean()
    assert np.isnan(errors[0])
    assert errors[1] == pytest.approx(2950)
    gated = match({1: true}, said(at((3000, 0))), SKELETON, min_oks=0.1)
    assert gated.images[["n_matched", "n_missed", "n_extra"]].to_numpy().tolist() == [[0, 2, 1]]


def test_gated_pair_does_not_take_a_good_prediction():
    """Without the gate the cheapest sum is taken; a pair that the gate forbids must not push another one out."""
    true = truth_at((0, 0), (40, 0))
    found = at((0, 2), (-300, 0))
    gated = match({1: true}, said(found), SKELETON, min_oks=0.5).keypoints
    assert gated.groupby("instance")["matched"].first().tolist() == [True, False]
    assert gated["error_px"].dropna().tolist() == pytest.approx([2, 2, 2])


def test_images_without_predictions_are_missed_and_strangers_refused():
    true = {1: truth_at((0, 0)), 7: truth_at((0, 0), (9, 9))}
    matching = match(true, said(at((0, 0))), SKELETON)
    assert matching.images.set_index("image_id")["n_missed"].to_dict() == {1: 0, 7: 2}
    strangers = Predictions(SKELETON, {9: at((0, 0))}, files={9: "b.png"})
    with pytest.raises(ValueError, match=r"1 of 1 predicted images .* image 9 \(b.png\)"):
        match(true, strangers, SKELETON)
    with pytest.raises(ValueError, match="the truth has no images"):
        match({}, said(), SKELETON)


def test_ignored_and_unlabelled_are_not_matched():
    visible = np.array([[2, 2, 2], [2, 2, 2], [0, 0, 0]])
    true = truth_at((0, 0), (200, 0), (400, 0), visible=visible, ignore=np.array([True, False, False]))
    matching = match({1: true}, said(at((0, 0))), SKELETON)
    assert set(matching.keypoints["instance"]) == {1}
    assert matching.keypoints["error_px"].tolist() == pytest.approx([200] * 3)


def test_best_scores_take_part():
    true = truth_at((0, 0))
    found = at((0, 0), (1, 0), (2, 0), score=np.array([0.1, 0.5, 0.9]))
    for more, want in ({"max_dets": 2}, 1), ({"min_score": 0.6}, 2), ({"min_score": 0.1}, 0), ({}, 0):
        table = match({1: true}, said(found), SKELETON, **more).keypoints
        assert table["error_px"].tolist() == [want] * 3, more


def test_leaving_points_out_does_not_win():
    true = truth_at((0, 0))
    lazy = np.stack([SHAPE + np.array([[0, 0], [np.nan] * 2, [np.nan] * 2]), SHAPE + np.array([6.0, 0.0])])
    table = match({1: true}, said(Poses.make(lazy)), SKELETON).keypoints
    assert table["error_px"].tolist() == [6, 6, 6]
    alone = match({1: true}, said(Poses.make(lazy[:1])), SKELETON).keypoints
    assert alone["matched"].all()
    assert alone["error_px"].isna().tolist() == [False, True, True]


def test_unlabelled_keypoints_do_not_count():
    true = truth_at((0, 0), visible=np.array([[2, 0, 0]]))
    found = np.stack([SHAPE + np.array([[0, 0], [500, 0], [500, 0]]), SHAPE + np.array([5.0, 0.0])])
    table = match({1: true}, said(Poses.make(found)), SKELETON).keypoints
    assert table["error_px"].iloc[0] == 0
    assert table["error_px"].iloc[1:].isna().all()


def test_what_cannot_be_matched_is_said():
    with pytest.raises(ValueError, match=r"image 1 \(a.png\): a true instance has area nan"):
        match({1: at((0, 0))}, said(at((0, 0))), SKELETON, files={1: "a.png"})
    other = Skeleton("two", ("a", "b"), (), (0, 1), (0.1, 0.1), "test")
    with pytest.raises(ValueError, match="predictions are of a, b, but skeleton 'tri'"):
        match({1: truth_at((0, 0))}, Predictions(other, {}), SKELETON)
