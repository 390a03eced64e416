"""One-Euro smoothing of keypoints over time: strong where they rest, weak where they move."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kplab.errors import ConfigError
from kplab.structures.frames import Frame


@dataclass
class Filtered:
    """The state of the filter of one track.

    Args:
        raw: (K, 2) last measured positions, pixels; NaN where a keypoint was not filtered yet.
        xy: (K, 2) last filtered positions.
        speed: (K, 2) filtered derivatives, pixels per second.
        time: (K,) of the last measurement, seconds.
    """

    raw: np.ndarray
    xy: np.ndarray
    speed: np.ndarray
    time: np.ndarray


class OneEuro:
    """Smooths the keypoints of each track by the One-Euro filter: a stage that needs ``Poses.track``.

    alpha(c) = 1 / (1 + 1 / (2 pi c t));  speed = low-pass of (x - x_before) / t at ``derivative_cutoff``;
    x_filtered = low-pass of x at the cutoff  min_cutoff + beta * abs(speed)

    with t the time since the last frame that has the keypoint. x_before is the measured position, not the filtered one.
    Each coordinate of each keypoint has a filter of its own. Boxes are not changed, nor are poses without a track and
    keypoints below ``min_score``, except those that were filled in (``Poses.visible`` 1).

    Args:
        min_cutoff: cutoff frequency of a keypoint at rest, Hz; smaller is smoother.
        beta: increase of the cutoff with speed, Hz per pixel per second; larger lags less.
        derivative_cutoff: cutoff frequency of the speed, Hz.
        min_score: keypoints of lower score are left as they are.
        max_gap: seconds without a keypoint after which its filter starts anew.

    Raises:
        ConfigError: a frequency is not positive, or another option is negative.

    Source: Casiez et al., "1€ Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive Systems", 2012.
    """

    def __init__(
        self,
        min_cutoff: float = 1.0,
        beta: float = 0.5,
        derivative_cutoff: float = 1.0,
        min_score: float = 0.0,
        max_gap: float = 0.25,
    ) -> None:
        if min_cutoff <= 0 or derivative_cutoff <= 0 or beta < 0 or max_gap < 0:
            raise ConfigError(
                f"smooth.min_cutoff ({min_cutoff}) and smooth.derivative_cutoff ({derivative_cutoff}) must be positive, and "
                f"smooth.beta ({beta}) and smooth.max_gap ({max_gap}) at least 0."
            )
        self.min_cutoff, self.beta, self.derivative_cutoff = min_cutoff, beta, derivative_cutoff
        self.min_score, self.max_gap = min_score, max_gap
        self.states: dict[int, Filtered] = {}

    def push(self, frame: Frame) -> list[Frame]:
        """The frame with smoothed keypoints."""
        poses = frame.poses
        self.states = {t: s for t, s in self.states.items() if frame.time - s.time.max() <= self.max_gap}
        xy = poses.xy.copy()
        for row in np.flatnonzero(poses.track >= 0):
            usable = poses.labelled[row] & ((poses.keypoint_score[row] >= self.min_score) | (poses.visible[row] == 1))
            xy[row] = self._filter(int(poses.track[row]), poses.xy[row], usable, frame.time)
        return [replace(frame, poses=replace(poses, xy=xy))]

    def flush(self) -> list[Frame]:
        """Nothing: no frame is kept back."""
        return []

    def _filter(self, track: int, xy: np.ndarray, usable: np.ndarray, time: float) -> np.ndarray:
        """(K, 2) smoothed keypoints, where they are usable."""
        nothing = np.full_like(xy, np.nan)
        state = self.states.get(track) or Filtered(nothing, nothing, np.zeros_like(xy), np.full(len(xy), -np.inf))
        elapsed = np.where(np.isfinite(state.time), time - state.time, np.inf)[:, None]
        known = usable[:, None] & (elapsed <= self.max_gap)
        t = np.where(known, elapsed, 1.0)
        derivative = np.where(known, (xy - state.raw) / t, 0.0)
        speed = np.where(known, state.speed + smoothing(self.derivative_cutoff, t) * (derivative - state.speed), 0.0)
        alpha = smoothing(self.min_cutoff + self.beta * np.abs(speed), t)
        smooth = np.where(known, state.xy + alpha * (xy - state.xy), xy)
        used = usable[:, None]
        self.states[track] = Filtered(
            np.where(used, xy, state.raw),
            np.where(used, smooth, state.xy),
            np.where(used, speed, state.speed),
            np.where(usable, time, state.time),
        )
        return np.where(used, smooth, xy)


def smoothing(cutoff: np.ndarray | float, seconds: np.ndarray | float) -> np.ndarray:
    """Weight of a new sample in a first-order low-pass filter.

    Args:
        cutoff: Hz.
        seconds: between the samples.

    >>> round(float(smoothing(1.0, 1 / 30)), 10)
    0.1731707195
    """
    return np.asarray(1 / (1 + 1 / (2 * np.pi * np.asarray(cutoff) * seconds)))
