"""Drawing of frames of a stream: trails lie where the tracks were, colours stay with tracks, captions say what is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from kplab.structures.frames import Frame
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton
from kplab.viz.poses import track_colour
from kplab.viz.tracks import FrameDrawing, keep_evenly

SKELETON = Skeleton("s", ("a",), (), (0,), (0.1,), "test")


def frame(position: int, tracks: tuple[int, ...] = (3,)) -> Frame:
    """Each track moves to the right on a row of its own, 5 px a frame."""
    xy = np.array([[[20.5 + 5 * position, 40.5 + 60 * row]] for row in range(len(tracks))]).reshape(-1, 1, 2)
    poses = Poses.make(xy, track=np.array(tracks, dtype=np.int64))
    return Frame(position, str(position), position / 25, poses, np.zeros((200, 200, 3), dtype=np.uint8))


def test_trails_lie_where_the_tracks_were() -> None:
    """Four frames back and no further, up to the disc of the keypoint, also behind frames that were followed and not drawn."""
    drawing = FrameDrawing(SKELETON, trails=4, captions=())
    for position in range(20):
        drawing.follow(frame(position, (3, 5)))
    picture = drawing.draw(frame(19, (3, 5)))
    for row, track in ((40, 3), (100, 5)):
        line = (np.abs(picture[row].astype(int) - track_colour(track)) < 40).all(1)  # smooth edges
        assert line[20 + 5 * 15 : 20 + 5 * 19 - 4].all()
        assert not line[: 20 + 5 * 15 - 2].any()
    drawing.follow(frame(20, ()))
    assert not drawing.draw(frame(20, ())).any() or set(drawing.trails) == {3, 5}
    for position in range(21, 26):
        drawing.follow(frame(position, ()))
    assert drawing.trails == {}
    assert not drawing.draw(frame(25, ())).any()


def test_colours_stay_with_tracks() -> None:
    """Whatever the order of the instances; without a track the colours are those of sides."""
    for tracks in ((3, 4), (4, 3)):
        drawing = FrameDrawing(SKELETON, captions=())
        shown = frame(0, tracks)
        drawing.follow(shown)
        picture = drawing.draw(shown)
        for row, track in zip((40, 100), tracks, strict=True):
            assert tuple(picture[row, 20]) == track_colour(track)
    assert track_colour(-1) not in {track_colour(t) for t in range(6)}


@pytest.mark.parametrize(("captions", "there"), [((), False), (("score",), True), (("track",), True)])
def test_captions_are_chosen(captions: tuple[str, ...], there: bool) -> None:
    drawing = FrameDrawing(SKELETON, captions=captions)
    shown = frame(3)
    drawing.follow(shown)
    # above the instance, whose disc ends before
    assert drawing.draw(shown)[15:32].any() == there


@pytest.mark.parametrize("count", [1, 3, 12])
def test_frames_are_kept_evenly(count: int) -> None:
    """For every length between one and two times as many, all at one stride from the first."""
    kept, stride = [], 1
    for position in range(1000):
        keeps, stride = keep_evenly(position, stride, count)
        kept = [p for p in kept if p % stride == 0] + [position] * keeps
        assert kept == list(range(0, position + 1, stride))
        assert min(count, position + 1) <= len(kept) <= 2 * count
