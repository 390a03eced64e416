"""One-Euro smoothing and gap filling: published formulas, exact motions, and two flies with noise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from kplab.applications.overlay import jitter
from kplab.config import conf_dir
from kplab.data.formats import sleap
from kplab.errors import ConfigError
from kplab.structures.frames import Frame, Stage, process
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton
from kplab.tasks.inference.tracking.filling import GapFilling
from kplab.tasks.inference.tracking.smoothing import OneEuro

NAN = float("nan")


def frames(values: Sequence[float], rate: float = 30, track: int = 0, score: float = 1.0) -> list[Frame]:
    """Frames of one pose with one keypoint at (value, -value)."""
    out = []
    for i, value in enumerate(values):
        poses = Poses.make(
            np.array([[[value, -value]]]),
            keypoint_score=np.array([[score]]),
            box=np.array([[value, -value, value + 1, 1 - value]]),
            track=np.array([track]),
        )
        out.append(Frame(i, f"#{i}", i / rate, poses))
    return out


def values(stage: Stage, given: list[Frame]) -> list[float]:
    """x of the keypoint in each frame; y must be its negative."""
    found = [f.poses.xy[0, 0] if len(f.poses) else np.full(2, NAN) for f in process(given, [stage])]
    assert [x for x, _ in found] == pytest.approx([-y for _, y in found], nan_ok=True)
    return [float(x) for x, _ in found]


def test_one_euro_is_the_published_filter() -> None:
    """Values of the published formula at 30 Hz, computed apart: a step without beta, a ramp with it."""
    step = values(OneEuro(min_cutoff=1, beta=0), frames([0, 1, 1, 1, 1]))
    assert step == pytest.approx([0, 0.173171, 0.316353, 0.434741, 0.532627], abs=1e-6)
    ramp = values(OneEuro(min_cutoff=1, beta=0.5), frames([0, 1, 2, 3, 4]))
    assert ramp == pytest.approx([0, 0.429703, 1.287295, 2.334928, 3.422399], abs=1e-6)
    assert values(OneEuro(), frames([7.0] * 5)) == [7.0] * 5


def test_the_interval_of_time_counts() -> None:
    """Half the rate is the same as no frame in between."""
    slow = values(OneEuro(1, 0), frames([0, 1, 1], rate=15))
    missing = [f for f in frames([0, NAN, 1, NAN, 1])]
    assert values(OneEuro(1, 0), missing)[::2] == pytest.approx(slow)


def test_a_gap_starts_the_filter_anew() -> None:
    given = frames([0, 0, NAN, NAN, 1, 1])
    assert values(OneEuro(1, 0, max_gap=0.2), given)[4] < 1
    assert values(OneEuro(1, 0, max_gap=0.05), given)[4:] == [1, 1]


def test_what_is_not_smoothed() -> None:
    """Poses without a track, and keypoints of low score unless they were filled in; tracks have states of their own."""
    ramp = [0.0, 1, 2, 3]
    assert values(OneEuro(), frames(ramp, track=-1)) == ramp
    low = frames(ramp, score=0.2)
    assert values(OneEuro(min_score=0.3), low) == ramp
    filled = [replace(f, poses=replace(f.poses, visible=np.ones((1, 1), np.uint8))) for f in low]
    assert values(OneEuro(min_score=0.3), filled)[1] < 1
    two = [
        replace(a, poses=Poses.concat([a.poses, b.poses]))
        for a, b in zip(frames(ramp), frames([9.0] * 4, track=1), strict=True)
    ]
    both = [f.poses.xy[:, 0, 0].tolist() for f in process(two, [OneEuro()])]
    assert [x for x, _ in both] == values(OneEuro(), frames(ramp))
    assert [x for _, x in both] == [9.0] * 4


@pytest.mark.parametrize(("method", "power"), [("linear", 1), ("cubic", 3)])
def test_a_filled_motion_is_exact(method: str, power: int) -> None:
    """Of the degree of the method, with frames at unequal times; the delay is the one that is stated."""
    times = np.cumsum([0.1, 0.2, 0.1, 0.3, 0.1, 0.2, 0.2, 0.1])
    given = [replace(f, time=t) for f, t in zip(frames((2 * times) ** power), times, strict=True)]
    for i in (2, 3, 4):
        given[i] = replace(given[i], poses=Poses.empty(1))
    stage = GapFilling(max_gap=3, method=method)
    counts = [len(stage.push(f)) for f in given[:5]]
    assert counts == [0, 0, 0, 1, 1] if method == "linear" else [0, 0, 0, 0, 1]
    out = list(process(given, [GapFilling(max_gap=3, method=method)]))
    assert [f.index for f in out] == list(range(8))
    assert [f.poses.xy[0, 0, 0] for f in out] == pytest.approx((2 * times) ** power)
    for i, frame in enumerate(out):
        marks = (frame.poses.score[0], frame.poses.keypoint_score[0, 0], frame.poses.visible[0, 0])
        assert marks == ((0, 0, 1) if i in (2, 3, 4) else (1, 1, 2))
        assert frame.poses.track.tolist() == [0]
    if method == "linear":
        assert out[3].poses.box[0, 0] == pytest.approx(2 * times[3])


def test_what_is_not_filled() -> None:
    """Longer gaps, ends of tracks, and other tracks; a missing keypoint of a pose is filled in that pose."""
    assert np.isnan(values(GapFilling(max_gap=2), frames([NAN, 0, NAN, NAN, NAN, 4, NAN]))).sum() == 5
    assert values(GapFilling(max_gap=3), frames([0, NAN, NAN, NAN, 4])) == [0, 1, 2, 3, 4]
    one, other = frames([0.0]), frames([4.0], track=1)
    apart = [one[0], replace(one[0], index=1, time=0.1, poses=Poses.empty(1)), replace(other[0], index=2, time=0.2)]
    assert [len(f.poses) for f in process(apart, [GapFilling()])] == [1, 0, 1]


def test_keypoints_of_low_score_are_replaced_where_they_can_be() -> None:
    given = frames([0, 50, 2, 50])
    for i in (1, 3):
        given[i] = replace(given[i], poses=replace(given[i].poses, keypoint_score=np.array([[0.1]])))
    assert values(GapFilling(min_score=0.5), given) == [0, 1, 2, 50]
    assert values(GapFilling(), given) == [0, 50, 2, 50]


def test_mistakes_are_told() -> None:
    with pytest.raises(ConfigError, match=r"fill\.max_gap is 0"):
        GapFilling(max_gap=0)
    with pytest.raises(ConfigError, match="Use linear or cubic"):
        GapFilling(method="spline")
    with pytest.raises(ConfigError, match=r"smooth.min_cutoff \(0\)"):
        OneEuro(min_cutoff=0)


def test_noise_on_a_made_up_walk_is_smoothed_without_moving_it() -> None:
    """Rest, then steps to and fro, 200 seconds in all, with noise of 2 px: the mean stays within three standard errors."""
    rng = np.random.default_rng(0)
    times = np.arange(5000) / 25
    true = np.where(times < 100, 0.0, 80 * np.sin(times - 100))
    noisy = true + rng.normal(0, 2, len(true))
    smooth = np.array(values(OneEuro(), frames(list(noisy), rate=25)))
    second = [np.sqrt(np.mean(np.diff(x, 2) ** 2)) for x in (smooth, noisy)]
    assert second[0] < 0.75 * second[1]
    assert np.sqrt(np.mean((smooth - true) ** 2)) < 0.9 * np.sqrt(np.mean((noisy - true) ** 2))
    shift = (smooth - noisy).reshape(-1, 125).mean(1)
    assert abs(shift.mean()) < 3 * shift.std() / np.sqrt(len(shift))
    assert abs(shift.mean()) < 0.03


def path_of(poses: Iterable[Poses], track: int) -> np.ndarray:
    """(T, K, 2) positions of a track; NaN where it is missing."""
    found = [p.xy[p.track == track] for p in poses]
    return np.stack([xy[0] if len(xy) else np.full(xy.shape[1:], np.nan) for xy in found])


def test_noise_on_two_flies_is_smoothed_without_moving_them(real_data: Path) -> None:
    """Noise of 2 px on true poses: less jitter and less error of each fly, and the same mean position."""
    skeleton = Skeleton.from_config(yaml.safe_load((conf_dir() / "skeleton" / "fly13.yaml").read_text()))
    truth = sleap.read_frames(real_data / "sleap_videos" / "clip.slp", skeleton)
    rng = np.random.default_rng(0)
    noisy = {i: replace(p, xy=p.xy + rng.normal(0, 2, p.xy.shape)) for i, p in truth.items()}
    smooth = {f.index: f.poses for f in process((Frame(i, "", i / 25, p) for i, p in noisy.items()), [OneEuro()])}
    shaking = {name: [jitter(path_of(p.values(), t)) for t in (0, 1)] for name, p in (("n", noisy), ("s", smooth))}
    assert (np.divide(shaking["s"], shaking["n"]) < 0.75).all()
    error = {
        name: np.nanmean([np.linalg.norm(p[i].xy - truth[i].xy, axis=-1) for i in truth])
        for name, p in (("n", noisy), ("s", smooth))
    }
    assert error["s"] < 0.85 * error["n"]
    # blocks of a second, since neighbouring frames are alike; three standard errors
    shift = np.array([np.nanmean(smooth[i].xy - noisy[i].xy, (0, 1)) for i in truth]).reshape(60, 25, 2).mean(1)
    assert (np.abs(shift.mean(0)) < 3 * shift.std(0) / np.sqrt(60)).all()
    assert (np.abs(shift.mean(0)) < 0.02).all()
