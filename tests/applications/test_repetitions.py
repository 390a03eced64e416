"""Exact counts of rendered exercises: at several speeds, with the noise of a detector, missing frames and gross errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from kplab.applications import joint_angles as ja
from kplab.applications.repetitions import count
from kplab.errors import ConfigError
from kplab.structures.skeleton import Skeleton
from kplab.synthetic import motions
from kplab.synthetic.film import film

Named = Callable[[str], Skeleton]
LOW, HIGH = 100.0, 155.0


@cache
def squats(period: float, repetitions: int, rate: float = 25.0) -> tuple[np.ndarray, np.ndarray]:
    """Times and exact keypoints of squats, 256 px."""
    times = np.arange(0, period * repetitions + 2, 1 / rate)
    depth = motions.cycles(times, period, repetitions, start=1.0)
    clip = film("person", [motions.squat(d) for d in depth], seed=2, rate=rate, anchor=("left_ankle", "right_ankle"))
    return times, clip.xy


def knees(xy: np.ndarray, coco: Skeleton, sigma: float) -> np.ndarray:
    both = [j for j in ja.joints_of(coco) if j.name.endswith("knee")]
    return ja.combined(*ja.angles(xy, coco, both, sigma))[0]


@pytest.mark.parametrize(("period", "repetitions"), [(0.8, 12), (2.0, 7), (5.0, 3)])
@pytest.mark.parametrize("sigma", [0.0, 1.5, 3.0])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_squats_are_counted_exactly(
    period: float, repetitions: int, sigma: float, missing: float, skeleton: Named
) -> None:
    """Errors of up to 3 px on limbs of 45 px are 4 degrees on a knee; frames are missing at random."""
    times, xy = squats(period, repetitions)
    rng = np.random.default_rng(5)
    noisy = xy + sigma * rng.standard_normal(xy.shape)
    noisy[rng.random(len(xy)) < missing] = np.nan
    found = count(times, knees(noisy, skeleton("coco17"), max(sigma, 1.0)), LOW, HIGH)
    assert (len(found), len(found.partial), found.interrupted) == (repetitions, 0, 0)
    middles = 1 + period * (np.arange(repetitions) + 0.5)
    # the bottom is flat: noise moves the turning point within it
    np.testing.assert_allclose([r.turn for r in found.complete], middles, atol=0.05 + 0.15 * period)
    assert all(r.start < r.turn < r.end for r in found.complete)


def test_gross_errors_of_single_frames_count_nothing(skeleton: Named) -> None:
    """5 % of the frames have a knee that is anywhere."""
    times, xy = squats(2.0, 7)
    degrees, rng = knees(xy, skeleton("coco17"), 1.0), np.random.default_rng(3)
    wrong = rng.permutation(np.arange(2, len(times), 3))[: len(times) // 20]
    degrees[wrong] = rng.uniform(0, 180, len(wrong))
    assert len(count(times, degrees, LOW, HIGH)) == 7


def test_half_squats_are_partial_and_gaps_interrupt() -> None:
    times = np.arange(0, 20, 0.04)
    depth = motions.cycles(times, 2.0, 4, 1.0) + 0.5 * motions.cycles(times, 2.0, 3, 10.0)
    degrees = 175 - 100 * depth
    found = count(times, degrees, LOW, HIGH)
    assert (len(found), len(found.partial), found.interrupted) == (4, 3, 0)
    assert found.partial[0].degrees == pytest.approx(125, abs=0.5)
    # a gap in the second squat, which may hide a rest
    degrees[(times > 3.6) & (times < 4.4)] = np.nan
    found = count(times, degrees, LOW, HIGH)
    assert len(found) == 3
    assert found.interrupted == 2


def test_the_recording_begins_and_ends_at_depth() -> None:
    times = np.arange(0, 8, 0.04)
    degrees = 120 + 55 * np.cos(2 * np.pi * (times / 2 + 0.5))  # begins at the bottom: 3.5 periods of rest to rest
    found = count(times, degrees, LOW, HIGH)
    assert (len(found), found.interrupted) == (3, 2)


def test_rest_may_be_the_small_angle() -> None:
    times = np.arange(0, 12, 0.04)
    jumping = 20 + 130 * motions.cycles(times, 1.0, 9, 1.0)
    assert len(count(times, -jumping, -110, -50)) == 9


def test_empty_and_wrong_input() -> None:
    assert len(count(np.zeros(0), np.zeros(0), LOW, HIGH)) == 0
    assert len(count(np.arange(3.0), np.full(3, np.nan), LOW, HIGH)) == 0
    with pytest.raises(ConfigError, match="low < high"):
        count(np.arange(3.0), np.zeros(3), 150, 100)
    with pytest.raises(ConfigError, match="increasing"):
        count(np.zeros(3), np.zeros(3), LOW, HIGH)
