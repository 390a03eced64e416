"""The protocol of everything that predicts poses, and the base class of those that are torch modules."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kplab.structures.poses import Poses
from kplab.structures.sample import Batch
from kplab.structures.skeleton import Skeleton


@runtime_checkable
class Predictor(Protocol):
    """Predicts the poses of views: a network, a cascade, an exemplar, or an exported graph.

    Attributes:
        skeleton: names of the keypoints.
        size: (width, height) of the views, pixels.
        max_poses: largest number of poses of one view; None is any number.
        flips: whether a flip test is possible.
        device: on which it computes.
    """

    @property
    def skeleton(self) -> Skeleton: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def max_poses(self) -> int | None: ...
    @property
    def flips(self) -> bool: ...
    @property
    def device(self) -> torch.device: ...

    def predict(self, batch: Batch, flip_test: bool = False) -> list[Poses]:
        """One Poses a view, view pixels; the poses of ``batch`` are not read."""
        ...


class Model(nn.Module, ABC):
    """A Predictor that is a torch module: it can be trained, saved and loaded.

    Training minimises the sum of ``losses``, or, where ``one_pass`` is true, calls ``fit`` once with all training views.
    """

    skeleton: Skeleton
    size: tuple[int, int]
    max_poses: int | None = None

    #: Whether the model works with views of ``size`` only, and not with windows of them.
    fixed_size: bool = False

    #: Whether ``fit`` takes the place of ``losses``.
    one_pass: bool = False

    #: Degrees by which views are turned in prediction as well.
    turns: tuple[float, ...] = ()

    @property
    def device(self) -> torch.device:
        """The device of its parameters, or of its buffers if it has none."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    @property
    def without_flip(self) -> list[str]:
        """The parts of the model that have no flip test."""
        return []

    @property
    def flips(self) -> bool:
        """Whether a flip test is possible."""
        return not self.without_flip

    def for_regions(self, kind: str) -> Model:
        """The model for regions of a kind: for given boxes, a cascade returns its pose model."""
        return self

    @property
    def networks(self) -> dict[str, Model]:
        """The networks that it consists of, in the order in which they compute, by name; none if it is no network."""
        return {}

    def without_turns(self) -> None:
        """Predict from views as they are from now on."""
        for model in (self, *self.networks.values()):
            model.turns = ()

    def seen(self, batch: Batch) -> Batch:
        """The batch as the first of its networks reads it."""
        return batch

    @property
    def heatmap_stride(self) -> int | None:
        """Stride of ``heatmaps``, view pixels; None if the model has no map of each keypoint."""
        return None

    def heatmaps(self, images: Tensor) -> Tensor:
        """(B, K, h, w) map of each keypoint, of (B, 3, H, W) uint8 RGB views; see ``heatmap_stride``."""
        raise TypeError(f"{type(self).__name__} has no heatmaps")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named losses of a batch; training minimises their sum."""
        raise TypeError(f"{type(self).__name__} is fitted in one pass and has no losses")

    def fit(self, batches: Iterable[Batch]) -> dict[str, int]:
        """Fit in one pass over the training views; returns counts of what was learnt, for the record."""
        raise TypeError(f"{type(self).__name__} is trained by gradients and not fitted in one pass")

    @abstractmethod
    def predict(self, batch: Batch, flip_test: bool = False) -> list[Poses]:
        """One Poses a view, view pixels; the poses of ``batch`` are not read."""
