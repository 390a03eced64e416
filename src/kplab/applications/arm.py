"""Robot arms: the angles that keypoints show against those that were commanded, and an alarm where they deviate.

The arm is a chain of joints with known geometry, seen by a calibrated camera. The seen angles are those whose projected
keypoints are nearest to the predicted ones, so that they are angles in space from any side. Their covariance follows from
the errors of the keypoints; it is large for an angle that can hardly be seen from this side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.spatial.transform import Rotation
from scipy.stats import norm

from kplab.errors import ConfigError, DataError


@dataclass(frozen=True)
class Arm:
    """A chain of J joints and the camera that sees it. Keypoint 0 is at the first joint, and keypoint j + 1 at the end of link j.

    Args:
        joints: names.
        axes: (J, 3) unit vector of each joint's axis, in the frame of the link before it; the first in the frame of the base.
        links: (J, 3) from keypoint j to keypoint j + 1 at angle 0 of joint j, in the frame of the link before it.
        base: (3, 3) orientation of the base, in the camera matrix's frame.
        origin: (3,) position of keypoint 0 there.
        projection: (3, 4) from homogeneous points to homogeneous pixels.
    """

    joints: tuple[str, ...]
    axes: np.ndarray
    links: np.ndarray
    base: np.ndarray
    origin: np.ndarray
    projection: np.ndarray

    @classmethod
    def calibrated(
        cls, joints: Sequence[str], axes: np.ndarray, points: np.ndarray, angles: np.ndarray, base: np.ndarray,
        projection: np.ndarray,
    ) -> Arm:  # fmt: skip
        """The arm whose keypoints are at known points when its joints have known angles.

        Args:
            joints: names of J joints.
            axes: see ``Arm``.
            points: (J + 1, 3) keypoints in one position of the arm.
            angles: (J,) degrees in this position.
            base: see ``Arm``.
            projection: see ``Arm``.

        Raises:
            ConfigError: the shapes do not agree.
        """
        j = len(joints)
        for name, array, shape in (
            ("axes", axes, (j, 3)), ("points", points, (j + 1, 3)), ("angles", angles, (j,)), ("base", base, (3, 3)),
            ("projection", projection, (3, 4)),
        ):  # fmt: skip
            if np.shape(array) != shape:
                raise ConfigError(f"an arm of {j} joints needs {name} of shape {shape}, but got {np.shape(array)}.")
        frames = _frames(axes, np.asarray(angles, dtype=np.float64), base)
        links = np.array([frames[i].T @ (points[i + 1] - points[i]) for i in range(j)])
        return cls(tuple(joints), np.asarray(axes, dtype=np.float64), links, base, points[0], projection)

    def points(self, angles: np.ndarray) -> np.ndarray:
        """(..., J + 1, 3) keypoints in space at angles (..., J), degrees."""
        frames = _frames(self.axes, angles, self.base)
        steps = np.einsum("...jab,jb->...ja", frames, self.links)
        start = np.broadcast_to(self.origin, (*steps.shape[:-2], 1, 3))
        return np.concatenate([start, self.origin + steps.cumsum(-2)], axis=-2)

    def project(self, angles: np.ndarray) -> np.ndarray:
        """(..., J + 1, 2) keypoints in the image at angles (..., J), degrees."""
        homogeneous = self.points(angles) @ self.projection[:, :3].T + self.projection[:, 3]
        return homogeneous[..., :2] / homogeneous[..., 2:]


def _frames(axes: np.ndarray, angles: np.ndarray, base: np.ndarray) -> np.ndarray:
    """(..., J, 3, 3) orientation of each link."""
    frame, out = base, []
    for j in range(len(axes)):
        turn = Rotation.from_rotvec(np.deg2rad(angles[..., j, None]) * axes[j]).as_matrix()
        frame = frame @ turn
        out.append(frame)
    return np.stack(out, axis=-3)


def seen_angles(
    arm: Arm, xy: np.ndarray, sigma: float | np.ndarray, start: np.ndarray, steps: int = 30
) -> tuple[np.ndarray, np.ndarray]:
    """The angles whose keypoints are nearest to the predicted ones, weighted by 1 / sigma^2 (Gauss-Newton).

    Args:
        arm: geometry and camera.
        xy: (T, J + 1, 2) predicted keypoints, pixels; NaN where not seen.
        sigma: standard deviation of the keypoints in x and in y, pixels: one number, (J + 1,) or (T, J + 1).
        start: (T, J) degrees to start from, such as the commanded angles: of two positions with the same image, the nearer
            one is found.
        steps: iterations.

    Returns:
        (T, J) degrees, NaN where the keypoints that were seen do not determine an angle; (T, J, J) covariance, degrees^2.

    Raises:
        DataError: the shapes do not agree.
    """
    t, j = start.shape
    if xy.shape != (t, j + 1, 2) or j != len(arm.joints):
        raise DataError(
            f"{xy.shape} keypoints and {start.shape} angles: an arm of {len(arm.joints)} joints needs "
            f"(T, {len(arm.joints) + 1}, 2) and (T, {len(arm.joints)})."
        )
    spread = np.broadcast_to(np.asarray(sigma, dtype=np.float64), (t, j + 1))
    good = np.isfinite(xy).all(-1)
    weight = np.where(good, 1 / spread**2, 0.0)[..., None].repeat(2, -1).reshape(t, -1)
    target, angles = np.nan_to_num(xy).reshape(t, -1), np.array(start, dtype=np.float64)
    for _ in range(steps):
        slope = _jacobian(arm, angles)
        residual = (target - arm.project(angles).reshape(t, -1)) * weight
        inverse, known = _inverse(np.einsum("tpa,tp,tpb->tab", slope, weight, slope))
        change = np.einsum("tab,tpb,tp->ta", inverse, slope, residual)
        # large steps leave the range in which the image depends linearly on the angles
        change *= np.minimum(1.0, 15.0 / np.maximum(np.abs(change).max(-1, keepdims=True), 1e-12))
        angles += np.where(known, change, 0.0)
        if np.abs(change[known]).max(initial=0.0) < 1e-5:
            break
    slope = _jacobian(arm, angles)
    covariance, known = _inverse(np.einsum("tpa,tp,tpb->tab", slope, weight, slope))
    covariance[~known] = np.nan
    covariance.transpose(0, 2, 1)[~known] = np.nan
    return np.where(known, angles, np.nan), covariance


def _jacobian(arm: Arm, angles: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """(T, 2 (J + 1), J) derivatives of the keypoints by the angles, pixels per degree, by central differences."""
    moves = step * np.eye(angles.shape[1])
    both = [(arm.project(angles + move) - arm.project(angles - move)) / (2 * step) for move in moves]
    return np.stack([b.reshape(len(angles), -1) for b in both], axis=-1)


def _inverse(information: np.ndarray, least: float = 1e-6) -> tuple[np.ndarray, np.ndarray]:
    """Inverse (T, J, J) of the information in what it determines, and which angles (T, J) it determines.

    An angle is not determined where it takes part in a direction of which the keypoints tell less than ``least`` per degree^2
    (a standard deviation of 1,000 degrees).
    """
    values, vectors = np.linalg.eigh(information)
    clear = values > least
    inverse = np.einsum("tai,ti,tbi->tab", vectors, np.where(clear, 1 / np.where(clear, values, 1), 0), vectors)
    known = ((vectors**2 * ~clear[:, None]).sum(-1)) < 1e-3
    return inverse, known


def sigmas(covariance: np.ndarray) -> np.ndarray:
    """(T, J) standard deviations of covariances (T, J, J)."""
    return np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))


@dataclass(frozen=True)
class Monitor:
    """Raises an alarm where seen angles deviate from commanded ones by more than their uncertainty.

    Without a recording of the healthy arm the limit assumes that errors are normal and independent from frame to frame. Those
    of a network are not: they depend on the position, and stay for many frames. ``fitted`` assumes neither.

    Args:
        rate: false alarms per joint and frame.
        hold: number of consecutive frames that must deviate in the same direction.
        offset: (J,) deviation without a fault, degrees: what calibration left.
        limit: (J,) standard deviations that each of ``hold`` frames must exceed; None: 2 P(z > limit)^hold = rate.
    """

    rate: float = 1e-4
    hold: int = 3
    offset: np.ndarray | float = 0.0
    limit: np.ndarray | float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or self.hold < 1:
            raise ConfigError(
                f"rate={self.rate} and hold={self.hold}: a rate between 0 and 1 and hold >= 1 are needed."
            )

    def fitted(self, deviation: np.ndarray, sigma: np.ndarray) -> Monitor:
        """The monitor with offset and limit of a recording of the healthy arm, which makes the motions that it will make.

        The limit is the smallest that the rate allows in this recording, counted as if one more frame had exceeded it (split
        conformal prediction).

        Args:
            deviation: (T, J) seen minus commanded angles, degrees; NaN where not seen.
            sigma: (T, J) their standard deviations.

        Raises:
            DataError: the recording is too short for the rate.
        """
        offset = np.nanmedian(deviation, axis=0)
        held = np.sort(Monitor(self.rate, self.hold, offset).held(deviation, sigma), axis=0)
        wanted = int(np.ceil((len(held) + 1) * (1 - self.rate)))
        if wanted > len(held):
            raise DataError(
                f"the recording without a fault has {len(held)} frames, but a rate of {self.rate:g} needs "
                f"{int(np.ceil(1 / self.rate)) - 1}. Record longer, or allow more false alarms."
            )
        return Monitor(self.rate, self.hold, offset, held[wanted - 1])

    def held(self, deviation: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """(T, J) deviation, in standard deviations, that this frame and the ``hold`` - 1 before it have in one direction.

        0 where they have different directions, where the joint was not seen in one of them, and in the first frames.
        """
        z = (deviation - self.offset) / sigma
        out = np.zeros(z.shape)
        if len(z) >= self.hold:
            windows = sliding_window_view(z, self.hold, axis=0)
            both = np.maximum(windows.min(-1), -windows.max(-1))
            out[self.hold - 1 :] = np.where(both > 0, both, 0.0)
        return out

    def alarms(self, deviation: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """(T, J) bool: alarms. A joint that is not seen raises none, see ``uncovered``."""
        normal = norm.isf((self.rate / 2) ** (1 / self.hold))
        return self.held(deviation, sigma) > (normal if self.limit is None else self.limit)


def uncovered(sigma: np.ndarray, limit: float) -> np.ndarray:
    """(T, J) bool: frames in which a joint is not monitored, because it was not seen or its standard deviation is too large.

    Args:
        sigma: (T, J) degrees.
        limit: degrees.
    """
    return ~(sigma <= limit)
