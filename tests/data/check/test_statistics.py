"""The statistics behind the rules: shares that exceed limits, distances, odds and orders with known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.data.check.toy import BEETLE, BODY, beetles, found, permuted, subjects, with_copy

from kplab.data.check import check_labels, chosen_rules, find_rules
from kplab.data.check.appearance import describe
from kplab.data.check.chirality import (
    appearance_features,
    decided,
    log_odds,
    mirror_pairs,
    pair_features,
    prediction_features,
    whole_features,
)
from kplab.data.check.order import best_order
from kplab.data.check.shape import Shape, angle_deviations, closest, energy, misplacement
from kplab.data.check.tails import EXPECTED, upper_limit
from kplab.errors import ConfigError


def test_the_limit_of_an_exponential_tail_is_its_quantile() -> None:
    """Oracle: the quantile of the exponential distribution. 100,000 values: its estimate has an error of about 1 %."""
    values = np.random.default_rng(0).exponential(2.0, 100_000)
    assert upper_limit(values) == pytest.approx(2 * np.log(1 / EXPECTED), rel=0.03)


def test_wrong_values_hardly_move_the_limit() -> None:
    rng = np.random.default_rng(0)
    clean = rng.exponential(1.0, 2000)
    wrong = np.concatenate([clean, np.full(100, 50.0)])
    assert upper_limit(clean) <= upper_limit(wrong) < 1.2 * upper_limit(clean)
    assert upper_limit(clean[:19]) == np.inf


def test_deviations_do_not_depend_on_place_size_rotation_or_mirroring() -> None:
    """Exact but for the half pixel that is added to distances: subjects are made large."""
    xy = subjects(np.random.default_rng(0), 300) * 100
    shape = Shape.fit(xy)
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    other = (xy[:20] * [-1, 1]) @ turn.T * 2.5 + 1000
    np.testing.assert_allclose(shape.deviations(other), shape.deviations(xy[:20]), atol=0.01)


def test_a_misplaced_keypoint_stands_out_alone() -> None:
    xy = subjects(np.random.default_rng(0), 300)
    shape = Shape.fit(xy)
    xy[0, 3] += 200
    scores = misplacement(shape.deviations(xy))
    assert scores[0].argmax() == 3
    assert scores[0, 3] > 5 * np.nanmax(np.delete(scores[0], 3))


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_odds_tell_exchanged_subjects(share: float) -> None:
    """Also with one in twenty exchanged; and exchanging a subject changes the sign of its features exactly."""
    xy = subjects(np.random.default_rng(0), 200)
    wrong = np.zeros(200, dtype=bool)
    wrong[: int(200 * share)] = True
    xy[wrong] = xy[wrong][:, BEETLE.flip]
    features = whole_features(xy, BEETLE.flip)
    np.testing.assert_allclose(whole_features(xy[:, BEETLE.flip], BEETLE.flip), -features, atol=1e-12)
    odds = log_odds(features)
    assert ((odds < 0) == wrong).all()
    assert np.abs(odds).min() > np.log(99)


def test_odds_by_the_predictions_of_a_weak_model() -> None:
    """Errors of a third of the subject's size, and every tenth prediction with its own sides exchanged."""
    rng = np.random.default_rng(0)
    true = subjects(rng, 200)
    sizes = np.ptp(true, axis=1).max(1)
    predicted = true + rng.normal(0, sizes[:, None, None] / 6, true.shape)
    predicted[::10] = predicted[::10][:, BEETLE.flip]
    predicted[3, 2], predicted[4] = np.nan, np.nan
    score, xy = rng.uniform(0.2, 1, true.shape[:2]), true.copy()
    wrong = np.zeros(200, dtype=bool)
    wrong[rng.choice(np.setdiff1d(np.arange(5, 200), np.arange(0, 200, 10)), 10, replace=False)] = True
    xy[wrong] = xy[wrong][:, BEETLE.flip]
    features = prediction_features(xy, predicted, score, sizes, BEETLE.flip)
    swapped = prediction_features(xy[:, BEETLE.flip], predicted, score, sizes, BEETLE.flip)
    np.testing.assert_allclose(swapped, -features, atol=1e-12)
    odds = log_odds(features)
    assert np.isnan(odds[4])
    assert (odds[wrong] < 0).all()
    # it can't be told whether the label or the prediction is exchanged, and there are twice as many of these
    assert (odds < -np.log(99)).sum() == 0
    predicted[::10] = predicted[::10][:, BEETLE.flip]
    odds = log_odds(prediction_features(xy, predicted, score, sizes, BEETLE.flip))
    assert (odds[wrong] < -np.log(99)).mean() >= 0.9
    assert not (odds[~wrong] < -np.log(99)).any()


def test_features_of_a_pair_are_odd() -> None:
    xy = subjects(np.random.default_rng(0), 20)
    for p, (a, b) in enumerate(mirror_pairs(BEETLE.flip)):
        order = np.arange(7)
        order[[a, b]] = [b, a]
        np.testing.assert_allclose(
            pair_features(xy[:, order], BEETLE.flip, p), -pair_features(xy, BEETLE.flip, p), atol=1e-12
        )


def test_nothing_is_reported_where_position_does_not_tell_left_from_right() -> None:
    """Half of the subjects are seen from below: neither side is the right one."""
    xy = subjects(np.random.default_rng(0), 200)
    xy[::2] = xy[::2][:, BEETLE.flip]
    odds = log_odds(whole_features(xy, BEETLE.flip))
    assert np.nanmin(odds) > -np.log(99)


def test_odds_are_calibrated() -> None:
    """Oracle: the odds that the data are drawn with. One feature x of a correct subject is normal around m = 0.5 with deviation
    1, so that its log odds are 2 m x = x; 4,000 subjects determine the scale to about a tenth.
    """
    x = np.random.default_rng(0).normal(0.5, 1.0, (4000, 1))
    odds = log_odds(x)
    np.testing.assert_allclose(odds, x[:, 0], rtol=0.3, atol=0.01)


def test_looks_are_no_evidence_where_they_depend_on_the_view() -> None:
    odds = np.where(np.arange(100) < 8, -9.0, 9.0)
    assert np.isnan(decided(odds)).all()
    odds[7] = 9.0
    np.testing.assert_array_equal(decided(odds), odds)


def test_patches_have_the_colours_around_their_keypoints() -> None:
    """Oracle: OpenCV's 8-bit L, a and b of black, white and red; left minus right changes sign when a pair is exchanged."""
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    pixels[:, 40:] = 255
    pixels[40:] = (255, 0, 0)
    xy = np.array([[[10.0, 10], [70, 10], [40, 50], [90, 10]], [[10, 10], [np.nan] * 2, [np.nan] * 2, [np.nan] * 2]])
    found = describe(pixels, xy)
    np.testing.assert_allclose(found[0, :3, :3], [[0, 128, 128], [255, 128, 128], [136, 208, 195]], atol=1)
    np.testing.assert_allclose(found[0, :3, 3:], 0, atol=1e-6)
    assert np.isnan(found[0, 3]).all(), "outside the image"
    assert np.isnan(found[1]).all(), "one keypoint has no extent"
    flip = (1, 0, 2, 3)
    features = appearance_features(found, flip)
    np.testing.assert_allclose(appearance_features(found[:, flip], flip), -features)
    assert np.abs(features[0]).max() > 0


def test_pairs_that_come_close_on_some_subjects_are_known() -> None:
    """Of 1,000 subjects, six (the subject itself and five others, 0.5 %) may be closer: the seventh smallest distance counts."""
    rng = np.random.default_rng(0)
    xy = np.stack([np.zeros((1000, 2)), np.zeros((1000, 2))], axis=1)
    xy[:, 1, 0] = rng.permutation(np.arange(1000)) + 1
    assert closest(xy, np.full(1000, 10.0))[0, 1] == pytest.approx(0.7)
    assert closest(xy[:19], np.full(19, 10.0))[0, 1] == 0, "too few to know"


def test_an_angle_at_a_foreshortened_edge_counts_less() -> None:
    xy = subjects(np.random.default_rng(0), 100)
    xy[0, 0] = xy[0, 1] + (xy[0, 0] - xy[0, 1])[::-1] * [1, -1]  # the nose turned by 90 degrees around the neck
    short = xy.copy()
    short[0, 0] = short[0, 1] + (short[0, 0] - short[0, 1]) / 10
    sizes = Shape.fit(xy).sizes(xy)
    (_, as_is), (_, shorter) = (angle_deviations(points, sizes, BEETLE.edges) for points in (xy, short))
    assert as_is[0, :3].min() > 10, "the angles at the neck between the nose and the other three keypoints"
    assert shorter[0, :3].max() < 2.5
    np.testing.assert_allclose(as_is[1:], shorter[1:], rtol=0.1, atol=0.05)


def test_the_order_of_points_is_restored() -> None:
    """Up to the sides, which distances hardly tell."""
    rng = np.random.default_rng(0)
    xy = subjects(rng, 300)
    shape = Shape.fit(xy)
    flip = np.array(BEETLE.flip)
    for i in range(20):
        shuffle = rng.permutation(7)
        order, value = best_order(xy[i][shuffle], shape)
        restored = shuffle[order]
        assert ((restored == np.arange(7)) | (restored == flip)).all()
        assert value <= 1.5 * energy(shape.deviations(xy[i : i + 1]))[0], "a side may be exchanged"


def test_few_subjects_give_no_statistics(tmp_path: Path) -> None:
    """Five subjects: no warnings of outliers, and no crash."""
    labels = beetles(tmp_path, 5)
    permuted(labels, 2, list(labels.skeleton.flip))
    for group in ("limbs", "identity", "tracks"):
        assert found(group, {"all": labels}, deep=False) == []


def test_subjects_side_by_side_are_not_twice(tmp_path: Path) -> None:
    assert len(found("subject-twice", {"all": with_copy(beetles(tmp_path), 5, 3.0)}, deep=False)) == 1
    assert found("subject-twice", {"all": with_copy(beetles(tmp_path), 5, 30.0)}, deep=False) == []


def test_two_tracks_that_are_exchanged_for_good_are_reported_once_each(tmp_path: Path) -> None:
    labels = beetles(tmp_path, 60)
    labels.group[:] = "video"
    labels.poses.track[:] = 0
    labels.poses.xy[:] = BODY + [100, 100] + np.arange(60)[:, None, None] * [2, 1]
    labels.poses.xy[30:] += [150, 0]
    assert [f.instance for f in found("track-jump", {"all": labels}, deep=False)] == [30]


def test_rules_are_chosen_by_name_and_group() -> None:
    every = find_rules()
    assert set(chosen_rules(["geometry"])) == {name for name, rule in every.items() if rule.group == "geometry"}
    assert set(chosen_rules(["geometry", "flip-pairs"], ["box-large"])) >= {"flip-pairs", "box-small"}
    assert "box-large" not in chosen_rules(["geometry"], ["box-large"])
    with pytest.raises(ConfigError, match="no rule or group of rules is called geomtry"):
        chosen_rules(["geomtry"])


def test_before_a_training_only_facts_are_checked(tmp_path: Path) -> None:
    labels = beetles(tmp_path)
    permuted(labels, 5, list(labels.skeleton.flip))
    report = check_labels(labels)
    assert all(rule.training for rule in report.rules.values())
    assert not any(rule.group in ("limbs", "identity", "tracks", "balance") for rule in report.rules.values())
