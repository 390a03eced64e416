"""Angles at joints from three keypoints each, with the uncertainty that follows from the errors of the keypoints.

The angle is the one in the image. It equals the angle of the joint in space where both limbs are parallel to the image
plane; seen from another side it is another angle, and its uncertainty does not contain this difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kplab.errors import DataError
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton

#: The median of the distance of a point with independent normal errors of standard deviation 1 in x and y: sqrt(2 ln 2).
MEDIAN_DISTANCE = 1.1774100225154747


@dataclass(frozen=True)
class Joint:
    """An angle: between the limbs from ``middle`` to ``first`` and to ``last``.

    Args:
        name: of the angle.
        first: name of a keypoint.
        middle: name of the keypoint of the joint.
        last: name of a keypoint.
    """

    name: str
    first: str
    middle: str
    last: str

    def rows(self, skeleton: Skeleton) -> list[int]:
        """Indices of its three keypoints.

        Raises:
            ConfigError: the skeleton lacks one of them.
        """
        return [skeleton.index(name) for name in (self.first, self.middle, self.last)]


_SIDES = [
    joint
    for side in ("left", "right")
    for joint in (
        Joint(f"{side}_elbow", f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist"),
        Joint(f"{side}_shoulder", f"{side}_hip", f"{side}_shoulder", f"{side}_elbow"),
        Joint(f"{side}_hip", f"{side}_shoulder", f"{side}_hip", f"{side}_knee"),
        Joint(f"{side}_knee", f"{side}_hip", f"{side}_knee", f"{side}_ankle"),
    )
]
#: Angles of people (COCO, LSP, MPII, CrowdPose) and of the arm of ``arm6``.
JOINTS = (*_SIDES, Joint("elbow", "shoulder", "elbow", "wrist"), Joint("shoulder", "base", "shoulder", "elbow"))


def joints_of(skeleton: Skeleton) -> list[Joint]:
    """Those of ``JOINTS`` whose keypoints a skeleton has."""
    return [joint for joint in JOINTS if {joint.first, joint.middle, joint.last} <= set(skeleton.keypoints)]


def angle(xy: np.ndarray) -> np.ndarray:
    """Angle at the middle of three points.

    Args:
        xy: (..., 3, 2) first, middle and last point.

    Returns:
        (...) degrees in [0, 180]; NaN where a point is NaN or a limb has no length.
    """
    u, v = xy[..., 0, :] - xy[..., 1, :], xy[..., 2, :] - xy[..., 1, :]
    cross, dot = u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0], (u * v).sum(-1)
    degrees = np.rad2deg(np.abs(np.arctan2(cross, dot)))
    return np.where((u != 0).any(-1) & (v != 0).any(-1), degrees, np.nan)


def angle_sigma(xy: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Standard deviation of the angle at the middle of three points, to first order.

    var = s1^2 / |u|^2 + s3^2 / |v|^2 + s2^2 |n_u / |u| - n_v / |v||^2, with the limbs u and v from the middle, and the unit
    vectors n_u and n_v at right angles to them. The error of the angle is normal while the errors of the points are small
    to the limbs (below a fifth); near 0 and 180 degrees it is folded at these ends.

    Args:
        xy: (..., 3, 2) first, middle and last point.
        sigma: (..., 3) standard deviation of each point in x and in y, same unit.

    Returns:
        (...) degrees.
    """
    u, v = xy[..., 0, :] - xy[..., 1, :], xy[..., 2, :] - xy[..., 1, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        # the derivative of a limb's direction by its end; turning it by 90 degrees changes no length below
        du, dv = (limb / (limb**2).sum(-1, keepdims=True) for limb in (u, v))
        parts = [(du**2).sum(-1), ((du - dv) ** 2).sum(-1), (dv**2).sum(-1)]
        return np.rad2deg(np.sqrt((np.stack(parts, -1) * np.asarray(sigma) ** 2).sum(-1)))


def sigma_of_errors(per_keypoint: pd.DataFrame, skeleton: Skeleton) -> np.ndarray:
    """Standard deviation of each keypoint in x and in y, from the measured pixel errors of a run.

    sigma = median distance / sqrt(2 ln 2), as for normal errors: the median does not follow a few gross errors, which such a
    number can't describe. It holds for subjects of the size of those that were scored.

    Args:
        per_keypoint: table of scores with columns keypoint and median_px.
        skeleton: names of the keypoints.

    Returns:
        (K,) pixels.

    Raises:
        DataError: the table lacks a column or a keypoint, or a keypoint has no error.
    """
    if not {"keypoint", "median_px"} <= set(per_keypoint.columns):
        raise DataError("the scores have no 'median_px' for each keypoint. Evaluate the run again.")
    found = per_keypoint.set_index("keypoint")["median_px"].reindex(list(skeleton.keypoints))
    lacking = [str(name) for name in found.index[~(found > 0)]]
    if lacking:
        raise DataError(f"the scores have no error of {', '.join(lacking)}. Give their standard deviation yourself.")
    return found.to_numpy(dtype=np.float64) / MEDIAN_DISTANCE


def angles(
    xy: np.ndarray, skeleton: Skeleton, joints: Sequence[Joint], sigma: float | np.ndarray = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Angles of joints and their standard deviations.

    Args:
        xy: (..., K, 2) keypoints, pixels.
        skeleton: names of the keypoints.
        joints: J angles.
        sigma: standard deviation of the keypoints in x and in y, pixels: one number, (K,), or (..., K).

    Returns:
        two (..., J) in degrees.
    """
    rows = np.array([joint.rows(skeleton) for joint in joints])
    spread = np.broadcast_to(np.asarray(sigma, dtype=np.float64), xy.shape[:-1])
    three = xy[..., rows, :]
    return angle(three), angle_sigma(three, spread[..., rows])


def combined(degrees: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of several measurements of one angle, weighted by 1 / sigma^2; NaN is left out.

    Args:
        degrees: (..., M) measurements, such as left and right knee of a squat.
        sigma: (..., M) standard deviations.

    Returns:
        two (...): mean and standard deviation; NaN where there is no measurement.
    """
    good = np.isfinite(degrees) & np.isfinite(sigma) & (sigma > 0)
    weight = np.where(good, 1 / np.where(good, sigma, 1) ** 2, 0)
    total = weight.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (np.where(good, degrees, 0) * weight).sum(-1) / total
        return mean, np.where(total > 0, 1 / np.sqrt(total), np.nan)


def table(
    predictions: Predictions, joints: Sequence[Joint], sigma: float | np.ndarray = 1.0, min_score: float = 0.0,
    times: Mapping[int, float] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Angles of all instances of a predictions file, one row for each instance and joint.

    Args:
        predictions: of images or of the frames of a video.
        joints: angles to measure.
        sigma: standard deviation of the keypoints in x and in y, pixels: one number or (K,).
        min_score: an angle with a keypoint of a lower score is NaN.
        times: image id to seconds, where known.

    Returns:
        columns image_id, file, time, instance, track, joint, degrees, sigma.
    """
    parts = []
    for image_id in sorted(predictions.poses):
        poses = predictions.poses[image_id]
        xy = np.where((poses.keypoint_score >= min_score)[..., None], poses.xy, np.nan)
        degrees, spread = angles(xy, predictions.skeleton, joints, sigma)
        parts.append(
            pd.DataFrame(
                {
                    "image_id": image_id,
                    "file": predictions.files.get(image_id, ""),
                    "time": np.nan if times is None else times.get(image_id, np.nan),
                    "instance": np.repeat(np.arange(len(poses)), len(joints)),
                    "track": np.repeat(poses.track, len(joints)),
                    "joint": [joint.name for joint in joints] * len(poses),
                    "degrees": degrees.ravel(),
                    "sigma": spread.ravel(),
                }
            )
        )
    if not parts:
        raise DataError("the predictions have no images. Predict images or a video first.")
    return pd.concat(parts, ignore_index=True)
