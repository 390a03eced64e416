"""Behaviour on walks whose distances, times, visits and encounters are known exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kplab.applications.behaviour import Behaviour, Measures
from kplab.applications.trajectories import Trajectories, times_at, times_in
from kplab.applications.zones import Circle, Polygon
from kplab.errors import ConfigError, DataError
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.synthetic.arena import INSECT, Arena, Walk

#: A square of side 100 at 50 px/s, and a line of 180 px at 30 px/s: corners are reached at multiples of 0.1 s.
SQUARE = Walk([(50, 50), (150, 50), (150, 150), (50, 150), (50, 50)], 50.0, rest=1.0)
LINE = Walk([(30, 200), (210, 200)], 30.0)
ARENA = Arena([SQUARE, LINE], seed=1)
TIMES = np.arange(131) / 10
ALL = {n + 1: float(t) for n, t in enumerate(TIMES)}


def behaviour(predictions: Predictions, times: dict[int, float] | None = None, **how: object) -> Behaviour:
    paths = Trajectories.of(predictions, times or ALL, "thorax", ("abdomen", "head"))
    return Measures(**how).measure(paths)  # type: ignore[arg-type]


def test_distance_speed_and_heading_are_exact() -> None:
    """Truth is that of the walks; equality is up to rounding (coordinates of frames at corners are exact)."""
    found = behaviour(ARENA.predictions(TIMES)).identities.set_index("track")
    np.testing.assert_allclose(found.distance_px, [400, 180], rtol=1e-12)
    np.testing.assert_allclose(found.max_speed_px_s, [50, 30], rtol=1e-9)
    np.testing.assert_allclose(found.mean_speed_px_s, [400 / 13, 180 / 13], rtol=1e-12)
    np.testing.assert_allclose(found.observed_s, 13, rtol=1e-12)
    np.testing.assert_allclose(found.turned_deg, [270, 0], atol=1e-9)  # three right turns, clockwise on the screen
    assert found[["frames_missing", "gaps"]].to_numpy().sum() == 0
    scaled = behaviour(ARENA.predictions(TIMES), unit_per_px=0.2, unit="mm").identities
    np.testing.assert_allclose(scaled.distance_mm, [80, 36], rtol=1e-12)


def test_walks_are_what_they_state() -> None:
    place, heading, walked = SQUARE.at(np.array([0.0, 1.0, 2.0, 3.5, 4.0, 6.0, 99.0]))
    np.testing.assert_allclose(place, [[50, 50], [50, 50], [100, 50], [150, 50], [150, 50], [150, 150], [50, 50]])
    np.testing.assert_allclose(np.rad2deg(heading[[0, 4, 5]]), [0, 90, 90])
    np.testing.assert_allclose(walked, [0, 0, 50, 100, 100, 200, 400])


def test_insects_are_drawn_at_their_keypoints() -> None:
    """Where an insect is, the frame differs from one in which it has left; elsewhere beyond its shadow it does not."""
    arena = Arena([Walk([(60, 60), (190, 190)], 1000.0)], seed=2)
    change = np.abs(arena.frame(0.0).astype(int) - arena.frame(1.0).astype(int)).max(-1)
    for time in (0.0, 1.0):
        x, y = np.floor(arena.poses(time).xy[0]).astype(int).T
        assert (change[y, x] > 25).all()
    assert change[:20, 200:].max() == 0


def test_time_and_visits_in_zones() -> None:
    """The line crosses x = 75 at 1.5 s and x = 120 at 3 s: 1.5 s. The square's walker passes its left side and corners."""
    band = Polygon("band", [(75, 180), (120, 180), (120, 220), (75, 220)])
    corner = Circle("corner", (150.0, 50.0), 25.0)
    found = behaviour(ARENA.predictions(TIMES), zones=[band, corner]).zones.set_index(["track", "zone"])
    # crossings lie on frames, so that half a frame interval is the largest error of each end
    assert found.loc[(1, "band"), "time_s"] == pytest.approx(1.5, abs=0.1)
    assert found.loc[(1, "band"), "visits"] == 1
    assert found.loc[(1, "band"), "first_s"] == pytest.approx(1.5, abs=0.11)
    # 25 px at 50 px/s before and after a rest of one second
    assert found.loc[(0, "corner"), "time_s"] == pytest.approx(2.0, abs=0.1)
    assert (found.loc[(0, "band"), "time_s"], found.loc[(0, "band"), "visits"]) == (0, 0)
    assert np.isnan(found.loc[(0, "band"), "first_s"])
    start = Circle("start", (50.0, 50.0), 20.0)
    again = behaviour(ARENA.predictions(TIMES), zones=[start]).zones
    assert again.visits.tolist() == [2, 0]


def test_zones_that_divide_the_plane_divide_the_time() -> None:
    halves = [Polygon("left", [(-1, -1), (100.05, -1), (100.05, 300), (-1, 300)])]
    halves.append(Polygon("right", [(100.05, -1), (300, -1), (300, 300), (100.05, 300)]))
    noisy = ARENA.predictions(TIMES, sigma=3.0, missing=0.2)
    found = behaviour(noisy, zones=halves)
    total = found.zones.groupby("track").time_s.sum()
    np.testing.assert_allclose(total, found.identities.observed_s, rtol=1e-12)
    np.testing.assert_allclose(found.zones.groupby("track").share.sum(), 1, rtol=1e-12)


def test_gaps_are_stated_and_not_filled() -> None:
    """The line's walker is missing from 2.0 to 3.9 s: 2.1 s and 63 px between the frames around the gap."""
    predictions = ARENA.predictions(TIMES)
    for n in range(20, 40):
        predictions.poses[n + 1] = predictions.poses[n + 1][[0]]
    found = behaviour(predictions).identities.set_index("track").loc[1]
    assert (found.frames_missing, found.gaps) == (20, 1)
    assert found.longest_gap_s == pytest.approx(2.1)
    assert found.gap_distance_px == pytest.approx(63)
    assert found.distance_px == pytest.approx(180 - 63)
    assert found.observed_s == pytest.approx(13 - 2.1)
    assert found.missing_s == pytest.approx(2.1)
    # frames that the recording lacks are a gap of both
    lacking = replace(predictions, poses={i: p for i, p in ARENA.predictions(TIMES).poses.items() if not 21 <= i <= 40})
    both = behaviour(lacking, {i: ALL[i] for i in lacking.poses}).identities
    assert both.gaps.tolist() == [1, 1]
    # both walk straight on meanwhile
    np.testing.assert_allclose(both.distance_px, [345, 117], rtol=1e-12)
    np.testing.assert_allclose(both.gap_distance_px, [55, 63], rtol=1e-12)


def test_a_visit_continues_over_a_gap_and_short_absences_can_be_ignored() -> None:
    """In, unseen, in: one visit. In, out for 0.2 s, in: two, or one with min_absence=0.3."""
    x = np.array([0, 0, 9, 9, np.nan, 9, 0, 0, 9, 9, 0, 0, 0, 0, 9], dtype=float)
    poses = {i + 1: Poses.make(np.full((1, 3, 2), v), track=[0]) for i, v in enumerate(x)}
    predictions = Predictions(INSECT, poses)
    times = {i + 1: i / 10 for i in range(len(x))}
    zone = Circle("z", (9.0, 9.0), 2.0)
    for least, visits in ((0.0, 3), (0.35, 2), (9.0, 1)):
        found = behaviour(predictions, times, zones=[zone], min_absence=least)
        assert found.zones.visits.tolist() == [visits], least


def test_noise_is_no_movement_with_a_minimum_step() -> None:
    """Noise of 1 px adds to the path of a walker, and to that of one that rests; min_step=5 removes nearly all of it."""
    rest = Arena([SQUARE, Walk([(200, 60), (200.001, 60)], 1.0)], seed=1)
    predictions = rest.predictions(TIMES, sigma=1.0)
    raw, kept = (behaviour(predictions, min_step=s).identities.distance_px.to_numpy() for s in (0, 5))
    assert raw[1] > 150  # expected: 130 steps of sigma * sqrt(pi)
    assert kept[1] < 12
    assert abs(kept[0] - 400) < 25 < raw[0] - 400


def test_subjects_near_each_other() -> None:
    """Two walkers on one line meet: their distance is |200 - 50 t| px, below 42.5 from 3.15 to 4.85 s,
    half way between frames, where the sum is exact.
    """
    meeting = Arena([Walk([(20, 100), (220, 100)], 25.0), Walk([(220, 100), (20, 100)], 25.0)])
    found = behaviour(meeting.predictions(TIMES[:81]), {i: ALL[i] for i in range(1, 82)}, near=42.5).pairs.iloc[0]
    assert found.near_s == pytest.approx(1.7)
    assert (found.encounters, found.together_s) == (1, pytest.approx(8.0))
    assert found.min_distance_px == pytest.approx(0, abs=1e-9)


def test_identities_are_needed_and_unique() -> None:
    predictions = ARENA.predictions(TIMES[:5])
    times = {i: ALL[i] for i in predictions.poses}
    poses = {i: replace(p, track=np.array([0, 0])) for i, p in predictions.poses.items()}
    with pytest.raises(DataError, match="identity 0 occurs 2 times in image 1"):
        behaviour(replace(predictions, poses=poses), times)
    without = {i: replace(p, track=np.array([-1, -1])) for i, p in predictions.poses.items()}
    with pytest.raises(DataError, match="no identities"):
        behaviour(replace(predictions, poses=without), times)
    one = Trajectories.of(replace(predictions, poses=without), times, "thorax", one_subject=True)
    assert one.track.tolist() == [0]
    assert one.notes == ("5 poses of lower score beside the subject are left out",)
    mixed = {i: replace(p, track=np.array([4, -1])) for i, p in predictions.poses.items()}
    assert Trajectories.of(replace(predictions, poses=mixed), times, "thorax").notes == (
        "5 poses without an identity are left out",
    )
    with pytest.raises(ConfigError, match="no keypoint 'wing'"):
        Trajectories.of(predictions, times, "wing")
    with pytest.raises(DataError, match="differ from each other"):
        Trajectories.of(predictions, dict.fromkeys(times, 1.0), "thorax")


def test_times_of_frames(tmp_path: Path) -> None:
    predictions = ARENA.predictions(TIMES[:3])
    assert times_at(predictions, 10) == {1: 0.0, 2: 0.1, 3: 0.2}
    with pytest.raises(DataError, match=r"clip\.mp4#000123"):
        times_at(replace(predictions, files={1: "a.jpg"}), 10)
    table = tmp_path / "keypoints.csv"
    rows = [(name, 0, k, i / 7) for i, name in enumerate(predictions.files.values()) for k in INSECT.keypoints]
    pd.DataFrame(rows, columns=["file", "instance", "keypoint", "time_s"]).to_csv(table, index=False)
    assert times_in(predictions, table) == pytest.approx({1: 0, 2: 1 / 7, 3: 2 / 7})
    with pytest.raises(DataError, match="has no time of image 3"):
        times_in(replace(predictions, files={1: "arena.mp4#000000", 2: "arena.mp4#000001", 3: "x"}), table)
    with pytest.raises(DataError, match=r"missing\.csv"):
        times_in(predictions, tmp_path / "missing.csv")


def test_tables_are_written(tmp_path: Path) -> None:
    predictions = ARENA.predictions(TIMES, missing=0.1).write(tmp_path / "predictions.json")
    read = Predictions.read(predictions, INSECT)
    found = behaviour(read, zones=[Circle("zone", (60.0, 60.0), 30.0)], near=50)
    frames, identities, *_ = found.write(tmp_path / "tables")
    again = pd.read_parquet(frames)
    pd.testing.assert_frame_equal(again, found.frames)
    unseen = again.x_px.isna()
    assert 0 < unseen.sum() < len(again)
    assert (again.in_zone.isna() == unseen).all()
    assert pd.read_csv(identities).distance_px.tolist() == pytest.approx(found.identities.distance_px.tolist())


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=3, max_size=7),
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), min_size=1, max_size=20),
)
def test_polygons_agree_with_opencv(corners: list[tuple[int, int]], cells: list[tuple[int, int]]) -> None:
    """Filled by OpenCV's even-odd rule on a fine grid, at points that lie off all sides."""
    polygon = Polygon("p", corners)
    points = np.array(cells) + np.array([0.37, 0.61])
    mask = np.zeros((21 * 64, 21 * 64), np.uint8)
    cv2.fillPoly(mask, [np.array(corners, np.int32) * 64], 255)
    edge = np.zeros_like(mask)
    cv2.polylines(edge, [np.array(corners, np.int32) * 64], True, 255, 5)
    column, row = np.floor(points * 64).astype(int).T
    clear = edge[row, column] == 0
    assert (polygon.contains(points) == (mask[row, column] > 0))[clear].all()


def test_bad_zones_and_measures_are_refused() -> None:
    with pytest.raises(ConfigError, match="three or more corners"):
        Polygon("p", [(0, 0), (1, 1)])
    with pytest.raises(ConfigError, match="radius -1"):
        Circle("c", (0, 0), -1)
    with pytest.raises(ConfigError, match="Give each its own"):
        Measures(zones=[Circle("c", (0, 0), 1), Circle("c", (9, 9), 1)])
    with pytest.raises(ConfigError, match="unit_per_px"):
        Measures(unit_per_px=0)
    assert not Circle("c", (0, 0), 1).contains(np.full((2, 2), np.nan)).any()
    assert not Polygon("p", [(0, 0), (9, 0), (9, 9)]).contains(np.full((2, 2), np.nan)).any()
