"""Compares a pose with a template: which joint differs, by how much, and what to correct."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kplab.applications.joint_angles import Joint, angles
from kplab.errors import DataError
from kplab.structures.skeleton import Skeleton


@dataclass(frozen=True)
class Comparison:
    """A pose beside its template.

    Args:
        aligned: (K, 2) the template, moved onto the pose; NaN where it has no keypoint.
        distance: (K,) from keypoint to template, as a share of the template's size (root mean square distance of its
            keypoints from their centre).
        degrees: (J,) angles of the pose.
        difference: (J,) angle of the pose minus that of the template, degrees.
        sigma: (J,) standard deviation of the difference, degrees.
        joints: the J angles.
    """

    aligned: np.ndarray
    distance: np.ndarray
    degrees: np.ndarray
    difference: np.ndarray
    sigma: np.ndarray
    joints: tuple[Joint, ...]

    @property
    def mean_distance(self) -> float:
        """Mean of the distances."""
        return float(np.nanmean(self.distance))

    def comparable(self, limit: float = 0.5) -> bool:
        """Whether the pose resembles the template enough for advice: the mean distance is at most this share of its size."""
        return self.mean_distance <= limit

    def wrong(self, tolerance: float = 10.0, confidence: float = 2.0) -> np.ndarray:
        """(J,) bool: the angle differs by more than a tolerance, also after ``confidence`` standard deviations.

        Args:
            tolerance: degrees that are accepted.
            confidence: standard deviations that are subtracted from the difference.
        """
        return np.abs(self.difference) - confidence * self.sigma > tolerance

    def advice(self, tolerance: float = 10.0, confidence: float = 2.0) -> list[str]:
        """What to correct, the largest difference first; empty where every angle that was seen is right.

        Args:
            tolerance: see ``wrong``.
            confidence: see ``wrong``.
        """
        order = np.argsort(-np.abs(np.nan_to_num(self.difference)), kind="stable")
        out = []
        for j in order[self.wrong(tolerance, confidence)[order]].tolist():
            what = "bend" if self.difference[j] > 0 else "straighten"
            if self.joints[j].name.endswith("shoulder"):
                what = "lower" if self.difference[j] > 0 else "raise"
                out.append(f"{what} the {_side(self.joints[j])}arm by {self._amount(j)}")
            else:
                out.append(f"{what} the {self.joints[j].name.replace('_', ' ')} by {self._amount(j)}")
        return out

    def _amount(self, j: int) -> str:
        return f"{abs(self.difference[j]):.0f}° (±{self.sigma[j]:.0f}°)"


def _side(joint: Joint) -> str:
    return next((f"{side} " for side in ("left", "right") if joint.name.startswith(side)), "")


def procrustes(xy: np.ndarray, template: np.ndarray, rotate: bool = True) -> np.ndarray:
    """The similarity map that moves a template onto a pose with the least squared distance; it never mirrors.

    Args:
        xy: (K, 2) keypoints; NaN where not seen.
        template: (K, 2) keypoints of the template; NaN where it has none.
        rotate: False: translation and scale only, so that a pose that leans differs from an upright template.

    Returns:
        (3, 3) map of the template's frame to the pose's.

    Raises:
        DataError: fewer than two different keypoints are in both.

    Source: Umeyama, Least-squares estimation of transformation parameters between two point patterns, PAMI 1991.
    """
    both = np.isfinite(xy).all(-1) & np.isfinite(template).all(-1)
    a, b = template[both], xy[both]
    if both.sum() < 2 or not np.ptp(a, axis=0).any():
        raise DataError(
            f"a pose and its template have {int(both.sum())} keypoints in common, but two different ones are needed. "
            "Lower min_score, or use a template of the same keypoints."
        )
    ma, mb = a.mean(0), b.mean(0)
    u, s, vt = np.linalg.svd((b - mb).T @ (a - ma))
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    turn = (u * sign) @ vt if rotate else np.eye(2)
    variance = ((a - ma) ** 2).sum()
    size = (s @ sign if rotate else ((b - mb) * (a - ma)).sum()) / variance
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = size * turn, mb - size * turn @ ma
    return matrix


def compare(
    xy: np.ndarray, template: np.ndarray, skeleton: Skeleton, joints: Sequence[Joint], sigma: float | np.ndarray = 0.0,
    template_sigma: float | np.ndarray = 0.0, rotate: bool = False,
) -> Comparison:  # fmt: skip
    """Compare a pose with a template.

    Args:
        xy: (K, 2) keypoints of the pose; NaN where not seen.
        template: (K, 2) keypoints of the template.
        skeleton: names of the keypoints.
        joints: the angles to compare.
        sigma: standard deviation of the pose's keypoints in x and in y, pixels: one number or (K,).
        template_sigma: that of the template's keypoints; 0 for an exact template.
        rotate: see ``procrustes``.
    """
    matrix = procrustes(xy, template, rotate)
    aligned = template @ matrix[:2, :2].T + matrix[:2, 2]
    centre = np.nanmean(aligned, axis=0)
    size = np.sqrt(np.nanmean(((aligned - centre) ** 2).sum(-1)))
    degrees, spread = angles(xy, skeleton, joints, sigma)
    wanted, own = angles(template, skeleton, joints, template_sigma)
    distance = np.linalg.norm(xy - aligned, axis=-1) / size
    return Comparison(aligned, distance, degrees, degrees - wanted, np.hypot(spread, own), tuple(joints))
