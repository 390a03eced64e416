"""A constant-velocity Kalman filter of image points, as array operations over any number of points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Motion:
    """Estimated positions and velocities of P points. Both coordinates of a point have the same variances.

    Args:
        xy: (P, 2) position, pixels; NaN for a point that was never measured.
        velocity: (P, 2) pixels per second.
        variance: (P, 3): variance of the position, covariance of position and velocity, variance of the velocity.
    """

    xy: np.ndarray
    velocity: np.ndarray
    variance: np.ndarray

    @classmethod
    def start(cls, xy: np.ndarray, noise: float, speed: float) -> Motion:
        """The state after one measurement, with unknown velocities.

        Args:
            xy: (P, 2) measured positions, pixels; NaN where there is none.
            noise: standard deviation of a measured coordinate, pixels.
            speed: standard deviation of a component of the unknown velocity, pixels per second.
        """
        variance = np.tile([noise**2, 0.0, speed**2], (len(xy), 1))
        return cls(np.array(xy, dtype=np.float64), np.zeros_like(xy, dtype=np.float64), variance)

    def predicted(self, seconds: float, density: float) -> Motion:
        """The state some time later.

        The acceleration is white noise, which adds density * [t**3 / 3, t**2 / 2, t] to the three variances.

        Args:
            seconds: t, time that passes.
            density: power spectral density of the acceleration, pixels**2 / s**3: the variance that a component of the
                velocity gains in a second.
        """
        t = seconds
        position, covariance, velocity = self.variance.T
        variance = np.stack(
            [
                position + 2 * t * covariance + t**2 * velocity + density * t**3 / 3,
                covariance + t * velocity + density * t**2 / 2,
                velocity + density * t,
            ],
            axis=1,
        )
        return Motion(self.xy + t * self.velocity, self.velocity, variance)

    def updated(self, xy: np.ndarray, noise: float, speed: float) -> Motion:
        """The state after a measurement. Points without one stay; points that are measured first start.

        Args:
            xy, noise, speed: see ``start``.
        """
        measured = np.isfinite(xy).all(1)
        known = np.isfinite(self.xy).all(1)
        position, covariance, velocity = self.variance.T
        total = position + noise**2
        gain, velocity_gain = position / total, covariance / total
        residual = xy - self.xy
        filtered = Motion(
            self.xy + gain[:, None] * residual,
            self.velocity + velocity_gain[:, None] * residual,
            np.stack([(1 - gain) * position, (1 - gain) * covariance, velocity - velocity_gain * covariance], axis=1),
        )
        first = Motion.start(xy, noise, speed)
        # a new point of a moving subject moves as the subject does
        if known.any():
            first.velocity[:] = self.velocity[known].mean(0)
        return self.where(~measured, filtered.where(known, first))

    def where(self, kept: np.ndarray, other: Motion) -> Motion:
        """These points where ``kept`` (P,) is true, and those of the other state elsewhere."""
        rows = kept[:, None]
        return Motion(
            np.where(rows, self.xy, other.xy),
            np.where(rows, self.velocity, other.velocity),
            np.where(rows, self.variance, other.variance),
        )
