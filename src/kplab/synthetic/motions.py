"""Poses as functions of time for ``film``: exercises of a person, and motions whose angles are known exactly."""

from __future__ import annotations

import numpy as np

from kplab.synthetic.figure import Pose


def cycles(times: np.ndarray, period: float, count: int, start: float = 0.0) -> np.ndarray:
    """(T,) depth of ``count`` repetitions: 0 at rest, 1 at the middle of each, a raised cosine; 0 before and after.

    Args:
        times: (T,) seconds.
        period: seconds of a repetition.
        count: number of repetitions.
        start: of the first, seconds.
    """
    phase = (times - start) / period
    return np.where((phase >= 0) & (phase <= count), 0.5 - 0.5 * np.cos(2 * np.pi * phase), 0.0)


def squat(depth: float, yaw: float = 65.0) -> Pose:
    """A squat: the knees are bent by 115 degrees at depth 1.

    Args:
        depth: 0 standing to 1.
        yaw: of the view, degrees: 0 is the front, 90 the person's left side.
    """
    lean = 4 + 34 * depth
    leg = {"swing": 98 * depth + lean, "lift": 7.0, "roll": 0.0, "bend": 115 * depth}
    arm = {"swing": 20 + 65 * depth + lean, "lift": 8.0, "roll": 0.0, "bend": 8.0}
    return _person(yaw, lean, arm, arm, leg, leg)


def warrior(knee: float = 85.0, arms: float = 90.0) -> Pose:
    """The pose "warrior II" of yoga, from the front: one knee bent, arms spread, trunk upright.

    Args:
        knee: bend of the left knee, degrees; 85 is the pose.
        arms: lift of the right arm, degrees; 90 is horizontal.
    """
    left = {"swing": 0.0, "lift": 75.0, "roll": 90.0, "bend": knee}
    right = {"swing": 0.0, "lift": 38.0, "roll": 0.0, "bend": 2.0}
    arm = {"swing": 0.0, "lift": 90.0, "roll": 0.0, "bend": 3.0}
    return _person(0.0, 0.0, arm, {**arm, "lift": arms}, left, right)


def _person(
    yaw: float, lean: float, left_arm: dict[str, float], right_arm: dict[str, float], left_leg: dict[str, float],
    right_leg: dict[str, float],
) -> Pose:  # fmt: skip
    return {
        "view": {"yaw": yaw, "pitch": 4.0, "roll": 0.0}, "trunk": {"lean": lean}, "left_arm": left_arm,
        "right_arm": right_arm, "left_leg": left_leg, "right_leg": right_leg,
    }  # fmt: skip
