"""Angles against SciPy's rotations and Monte Carlo, and against the exact joints of rendered people."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kplab.applications import joint_angles as ja
from kplab.errors import ConfigError, DataError
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton
from kplab.synthetic import motions
from kplab.synthetic.film import film

Named = Callable[[str], Skeleton]
POINTS = st.lists(st.floats(-500, 500), min_size=6, max_size=6).map(lambda v: np.array(v).reshape(3, 2))


@given(POINTS)
def test_an_angle_is_the_arc_cosine(xy: np.ndarray) -> None:
    u, v = xy[0] - xy[1], xy[2] - xy[1]
    lengths = np.linalg.norm(u), np.linalg.norm(v)
    assume(min(lengths) > 1e-3)
    cosine = np.clip(u @ v / lengths[0] / lengths[1], -1, 1)
    # the arc cosine loses digits near 0 and 180 degrees: the cosine is compared
    assert np.cos(np.deg2rad(ja.angle(xy))) == pytest.approx(cosine, abs=1e-9)


def test_an_angle_without_a_limb_is_unknown() -> None:
    assert np.isnan(ja.angle(np.array([[1.0, 1], [1, 1], [2, 2]])))
    assert np.isnan(ja.angle(np.array([[np.nan, 1], [1, 1], [2, 2]])))
    assert ja.angle(np.array([[0.0, 0], [1, 0], [2, 0]])) == 180


@pytest.mark.parametrize("degrees", [40.0, 90.0, 150.0])
@pytest.mark.parametrize("sigma", [(1.0, 1.0, 1.0), (3.0, 0.0, 0.0), (0.5, 2.5, 1.0)])
def test_the_uncertainty_is_that_of_monte_carlo(degrees: float, sigma: tuple[float, float, float]) -> None:
    """40,000 draws: their standard deviation is known to 0.35 %; limbs of 60 and 35 px leave a second order below 3 %."""
    rng = np.random.default_rng(7)
    a = np.deg2rad(degrees + 20)
    xy = np.array(
        [[60 * np.cos(np.deg2rad(20)), 60 * np.sin(np.deg2rad(20))], [0, 0], [35 * np.cos(a), 35 * np.sin(a)]]
    )
    drawn = ja.angle(xy + np.array(sigma)[:, None] * rng.standard_normal((40_000, 3, 2)))
    assert ja.angle(xy) == pytest.approx(degrees)
    assert ja.angle_sigma(xy, np.array(sigma)) == pytest.approx(drawn.std(), rel=0.03)
    assert drawn.mean() == pytest.approx(degrees, abs=0.5)


def test_sigma_of_normal_errors_is_recovered_from_their_median(skeleton: Named) -> None:
    """Also with 5 % gross errors: the median grows by less than 10 %, where the mean would double."""
    arm, rng = skeleton("arm6"), np.random.default_rng(0)
    true = np.linspace(0.5, 3, 6)
    error = np.linalg.norm(true[:, None, None] * rng.standard_normal((6, 20_000, 2)), axis=-1)
    error[:, :1000] = 100
    table = pd.DataFrame({"keypoint": arm.keypoints, "median_px": np.median(error, axis=1)}).sample(
        frac=1, random_state=1
    )
    np.testing.assert_allclose(ja.sigma_of_errors(table, arm) / true, 1.0, atol=0.1)
    with pytest.raises(DataError, match="no error of elbow"):
        ja.sigma_of_errors(table[table.keypoint != "elbow"], arm)
    with pytest.raises(DataError, match="median_px"):
        ja.sigma_of_errors(table.drop(columns="median_px"), arm)


def test_angles_of_a_person_seen_from_the_side_are_those_of_the_joints(skeleton: Named) -> None:
    """The knee of a squat is bent by 115 * depth degrees. Perspective and a view from 4 degrees above leave 2 degrees."""
    depth = np.linspace(0, 1, 9)
    clip = film("person", [motions.squat(d, yaw=90) for d in depth], seed=2)
    coco = skeleton("coco17")
    knees = [j for j in ja.joints_of(coco) if j.name.endswith("knee")]
    degrees, _ = ja.angles(clip.xy, coco, knees)
    # legs are spread by 7 degrees, which the projection shortens
    np.testing.assert_allclose(degrees, np.tile(180 - 115 * depth[:, None], 2), atol=2.0)


def test_other_sides_show_other_angles(skeleton: Named) -> None:
    """What the documentation warns of: from the front the bent knee looks straighter or more bent by tens of degrees."""
    coco = skeleton("coco17")
    clip = film("person", [motions.squat(0.8, yaw) for yaw in (90.0, 0.0)], seed=2)
    knee = [ja.Joint("knee", "left_hip", "left_knee", "left_ankle")]
    side, front = ja.angles(clip.xy, coco, knee)[0][:, 0]
    assert abs(side - 88) < 2
    assert abs(front - 88) > 20


def test_the_table_of_a_predictions_file(skeleton: Named, tmp_path: object) -> None:
    coco = skeleton("coco17")
    clip = film("person", [motions.squat(d) for d in (0.0, 1.0)], seed=2)
    score = np.ones((2, 17))
    score[1, coco.index("left_ankle")] = 0.1
    first = Poses.make(clip.xy[[0, 1]], keypoint_score=score, track=np.array([4, 7]))
    found = Predictions(coco, {3: first, 1: Poses.empty(17)}, files={3: "a.mp4#000003"})
    joints = ja.joints_of(coco)
    table = ja.table(found, joints, 2.0, min_score=0.5, times={3: 0.12})
    assert len(table) == 2 * len(joints) == 16
    assert set(table.file) == {"a.mp4#000003"}
    assert set(table.time) == {0.12}
    row = table[(table.track == 7) & (table.joint == "right_knee")].iloc[0]
    exact, spread = ja.angles(clip.xy[1], coco, joints, 2.0)
    at = [j.name for j in joints].index("right_knee")
    assert (row.degrees, row.sigma) == pytest.approx((exact[at], spread[at]))
    assert np.isnan(table[(table.track == 7) & (table.joint == "left_knee")].degrees).all()
    with pytest.raises(DataError, match="no images"):
        ja.table(Predictions(coco, {}), joints)
    with pytest.raises(ConfigError, match="no keypoint 'left_shoulder'"):
        ja.table(Predictions(skeleton("arm6"), {1: Poses.empty(6)}), joints)


def test_the_weighted_mean_has_the_smallest_error() -> None:
    """Against draws: its standard deviation is the stated one, and below that of the better measurement."""
    rng, sigma = np.random.default_rng(0), np.array([2.0, 5.0])
    drawn = 90 + sigma * rng.standard_normal((20_000, 2))
    mean, spread = ja.combined(drawn, np.broadcast_to(sigma, drawn.shape))
    assert spread[0] == pytest.approx(mean.std(), rel=0.02)
    assert spread[0] < 2
    mean, spread = ja.combined(np.array([[np.nan, 80], [np.nan, np.nan]]), np.array([[1.0, 3], [1, 1]]))
    assert (mean[0], spread[0]) == pytest.approx((80, 3))
    assert np.isnan([mean[1], spread[1]]).all()
