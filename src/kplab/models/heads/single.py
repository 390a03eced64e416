"""Shared by heads of one pose per view: true poses as tensors, and decoded tensors of one pose."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kplab.errors import ModelError
from kplab.structures.poses import Poses


def subjects(poses: list[Poses], keypoints: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Stack the true pose of each view.

    Args:
        poses: B Poses, view pixels, with at most one instance besides ignored ones.
        keypoints: K.
        device: of the tensors.

    Returns:
        (B, K, 2) float32 view pixels, 0 where unlabelled, and (B, K) bool labelled.

    Raises:
        ModelError: a view has more than one subject.
    """
    xy = np.zeros((len(poses), keypoints, 2))
    labelled = np.zeros((len(poses), keypoints), dtype=bool)
    for i, view in enumerate(poses):
        found = view[~view.ignore]
        if len(found) > 1:
            raise ModelError(
                f"this head predicts 1 pose per view, but a view shows {len(found)}. "
                "Use regions=annotated, or a head of any number of poses."
            )
        if len(found):
            labelled[i] = found.labelled[0]
            xy[i, labelled[i]] = found.xy[0, labelled[i]]
    return torch.from_numpy(xy).to(device, torch.float32), torch.from_numpy(labelled).to(device)


def one_pose_each(xy: Tensor, keypoint_score: Tensor) -> dict[str, Tensor]:
    """The tensors of ``Head.decode_tensors`` with one pose per view; its score is the mean of its keypoints'.

    Args:
        xy: (B, K, 2) view pixels.
        keypoint_score: (B, K) in [0, 1].
    """
    return {
        "keypoints": xy[:, None],
        "keypoint_scores": keypoint_score[:, None],
        "scores": keypoint_score.double().mean(-1, keepdim=True),
    }
