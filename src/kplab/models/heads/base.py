"""The one contract that every family of keypoint detector keeps.

``decode(ideal(encode(poses)))`` gives the poses back up to the error that the representation itself makes: it tests every
head with one suite, and measures the ceiling that a representation sets on accuracy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kplab.errors import ModelError
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton


class Head(nn.Module, ABC):
    """What stands on a neck's feature maps and speaks in poses.

    Constructors take their own options first and, from ``tasks/build.py``, the keywords ``in_channels: list[int]``,
    ``strides: list[int]`` (of the neck's maps, finest first), ``size: tuple[int, int]`` (width, height of the view) and
    ``skeleton: Skeleton``.

    T (targets) and O (outputs) are a head's own types: tensors, or dicts of tensors on the head's device.
    """

    #: How many poses one view can hold; None is any number.
    max_poses: int | None = None

    #: Whether ``shift_targets`` moves targets along with a crop.
    shifts_targets: bool = False

    skeleton: Skeleton

    @property
    def device(self) -> torch.device:
        """Where the head's parameters live; targets are made there."""
        return next(self.parameters()).device

    @property
    def flips(self) -> bool:
        """Whether there is a flip test."""
        return type(self).unflip is not Head.unflip

    @abstractmethod
    def encode(self, poses: list[Poses], size: tuple[int, int]) -> Any:
        """What the network should say of B views.

        Args:
            poses: B true Poses, view pixels. Instances marked ``ignore`` are never positives and never negatives.
            size: (width, height) of the views, pixels.
        """

    @abstractmethod
    def forward(self, maps: list[Tensor], targets: Any | None = None) -> Any:
        """Outputs from the neck's maps. Two-stage heads sample proposals around targets in training; others ignore them."""

    @abstractmethod
    def loss(self, outputs: Any, targets: Any) -> dict[str, Tensor]:
        """Named scalar losses; training minimises their sum. Finite, with a gradient, even where nothing is labelled."""

    @abstractmethod
    def decode(self, outputs: Any) -> list[Poses]:
        """One Poses a view, view pixels, scores in [0, 1]."""

    @abstractmethod
    def ideal(self, targets: Any) -> Any:
        """What a perfect network would say."""

    def representable(self, poses: Poses) -> np.ndarray:
        """Which true instances of a view the representation can give back; all, unless a head says otherwise.

        Where they all hold, they hold in any part of the scene as well.

        Args:
            poses: N instances, view pixels.

        Returns:
            (N,) bool.
        """
        return np.ones(len(poses), dtype=bool)

    def unflip(self, outputs: Any) -> Any:
        """Outputs of mirrored views, mirrored back and renamed, so that they can be averaged with the plain ones.

        Raises:
            ModelError: the head has no flip test.
        """
        raise ModelError(f"head '{type(self).__name__}' has no flip test. Use flip_test=false.")

    def candidates(self, outputs: Any) -> tuple[Tensor, Tensor]:
        """Every box that the outputs could speak of, for a cascade that trains its detector through them.

        Returns:
            (B, A, 4) xyxy, view pixels, with gradients; and (B, A) scores in [0, 1].

        Raises:
            ModelError: the head has none.
        """
        raise ModelError(f"head '{type(self).__name__}' has no candidates. Use detector.boxes=jittered.")

    def shift_targets(self, targets: Any, by: Tensor) -> Any:
        """Targets after each keypoint moved a little, differentiable, where ``shifts_targets`` is true.

        Args:
            targets: of B views with one pose each.
            by: (B, K, 2) view pixels; 0 for unlabelled keypoints.
        """
        raise ModelError(f"head '{type(self).__name__}' can't move its targets.")
