"""What a view shows of poses that reach out of it, and hulls of keypoints."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import poses as any_poses

from kplab.ops import affine
from kplab.structures.poses import Poses

VIEW = (100, 50)
NAN = float("nan")


def one(*points: tuple[float, float], box: tuple[float, ...] = (NAN,) * 4, ignore: bool = False) -> Poses:
    return Poses.make(np.array([points]), box=np.array([box]), area=np.array([77.0]), ignore=np.array([ignore]))


def test_points_outside_become_unlabelled_and_boxes_are_cut_off() -> None:
    poses = one((10, 10), (120, 10), (50, -3), (NAN, NAN), box=(-20, -10, 120, 20)).clipped(VIEW)
    assert poses.visible.tolist() == [[2, 0, 0, 0]]
    np.testing.assert_array_equal(poses.xy[0], [[10, 10], [NAN, NAN], [NAN, NAN], [NAN, NAN]])
    assert poses.box.tolist() == [[0, 0, 100, 20]]
    assert poses.ignore.tolist() == [False]
    assert poses.area.tolist() == [77.0], "the size of the whole subject"


def test_the_view_is_half_open() -> None:
    """A point at x = width is the first one of the view to the right, so that tiles share no point."""
    left, right = (one((100, 25), (0, 0)).clipped(VIEW, (x, 0.0)) for x in (0.0, 100.0))
    assert left.visible.tolist() == [[0, 2]]
    assert right.visible.tolist() == [[2, 0]]
    assert len(one((50, 50)).clipped(VIEW)) == 0
    assert len(one((0, 49.999)).clipped(VIEW)) == 1


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((90, 0, 140, 20), True),  # a fifth of it is seen
        ((96, 0, 146, 20), False),  # 8 %
        ((95, 0, 145, 20), True),  # just a tenth
        ((98.5, 0, 104, 20), False),  # 1.5 px wide, though more than a quarter
        ((100, 0, 150, 20), False),  # beside it
        ((200, 0, 250, 20), False),
        ((NAN,) * 4, False),
    ],
)
def test_subjects_without_a_point_in_view_are_ignored_or_gone(box: tuple[float, ...], kept: bool) -> None:
    poses = one((120, 10), (130, 10), box=box).clipped(VIEW)
    assert len(poses) == kept
    assert poses.ignore.all()
    assert not poses.labelled.any()


def test_of_a_crowd_any_part_stays() -> None:
    """A thin slice of a wide crowd shows people all the same, and is to be no negative."""
    crowd = one((NAN, NAN), box=(97, 0, 500, 50), ignore=True)
    assert crowd.clipped(VIEW).box.tolist() == [[97, 0, 100, 50]]
    assert len(crowd.clipped((98, 50))) == 0


def test_a_point_in_view_keeps_its_subject_whatever_the_box() -> None:
    poses = one((99.5, 10), box=(99, 0, 150, 20)).clipped(VIEW)
    assert (poses.box.tolist(), poses.ignore.tolist()) == ([[99, 0, 100, 20]], [False])
    outside = one((99.5, 10), box=(101, 0, 150, 20)).clipped(VIEW)
    assert np.isnan(outside.box).all(), "no part of the box is in view"
    assert outside.ignore.tolist() == [False]


@given(any_poses(3, (200, 150)), st.floats(-50, 250), st.floats(-50, 250), st.floats(0.1, 3))
def test_clipping_agrees_with_a_loop_and_twice_is_once(poses: Poses, dx: float, dy: float, scale: float) -> None:
    moved = poses.transform(affine.translation(dx, dy) @ affine.scaling(scale, scale))
    once = moved.clipped(VIEW)
    labelled = [(float(x), float(y)) for x, y in moved.xy.reshape(-1, 2) if 0 <= x < 100 and 0 <= y < 50]
    assert [tuple(map(float, p)) for p in once.xy[once.labelled]] == labelled
    box = once.box[np.isfinite(once.box).all(1)]
    assert ((box >= 0) & (box <= [100, 50, 100, 50])).all()
    assert (once.labelled.any(1) != once.ignore).all()
    twice = once.clipped(VIEW)
    for name in ("xy", "visible", "box", "ignore"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(once, name))


def test_tracks_stay_with_their_instances() -> None:
    poses = Poses.make(np.arange(12.0).reshape(3, 2, 2), track=np.array([4, -1, 0]))
    assert Poses.make(poses.xy).track.tolist() == [-1, -1, -1]
    assert poses[[2, 0]].track.tolist() == [0, 4]
    assert Poses.concat([poses, poses[[0]], Poses.empty(2)]).track.tolist() == [4, -1, 0, 4]
    moved = poses.transform(affine.mirror(20.0)).permute_keypoints(np.array([1, 0]))
    assert moved.track.tolist() == [4, -1, 0]
    # (0, 1), (2, 3) | (4, 5), (6, 7) | (8, 9), (10, 11): the view shows the last two
    assert poses.clipped((20, 20), (4.0, 4.0)).track.tolist() == [-1, 0]
    with pytest.raises(ValueError, match=r"Poses\.track has shape \(2,\)"):
        Poses.make(poses.xy, track=np.array([1, 2]))


def test_nobody_is_in_an_empty_view() -> None:
    assert len(Poses.empty(4).clipped(VIEW)) == 0


def test_a_hull_is_padded_by_its_longer_side_and_at_least_some_pixels() -> None:
    """Unlabelled keypoints don't count, and without any there is no hull."""
    poses = Poses.make(np.array([[(10, 10), (30, 20)], [(5, 5), (NAN, NAN)], [(NAN, NAN), (NAN, NAN)]]))
    none = [NAN] * 4
    np.testing.assert_array_equal(poses.extent(), [[10, 10, 30, 20], [5, 5, 5, 5], none])
    np.testing.assert_allclose(poses.extent(0.1), [[8, 8, 32, 22], [5, 5, 5, 5], none])
    np.testing.assert_allclose(poses.extent(0.1, 3.0), [[7, 7, 33, 23], [2, 2, 8, 8], none])
