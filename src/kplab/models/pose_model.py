"""Backbone, neck and head in a row: from uint8 views to poses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kplab.errors import ModelError
from kplab.models.auxiliary import AuxiliaryHeatmaps
from kplab.models.backbone import Backbone
from kplab.models.heads.base import Head
from kplab.models.necks import Neck
from kplab.ops.turning import turn
from kplab.structures.poses import Poses
from kplab.structures.predictor import Model
from kplab.structures.sample import Batch


class Targets(NamedTuple):
    """Training targets: those of the head, and those of the auxiliary heatmaps, if there are any."""

    head: Any
    auxiliary: dict[str, Tensor] | None = None


class PoseModel(Model):
    """A network that reads poses from views.

    Args:
        backbone: computes feature maps.
        neck: built for the backbone's channels and strides.
        head: built for the neck's.
        size: (width, height) of the views, pixels.
        channels_last: memory layout of images and feature maps, which is faster for convolutions; results are the same.
        auxiliary: heatmaps that are trained beside the head, built for the neck's maps as well; None: none.
        turns: degrees by which views are turned in prediction as well; the maps are turned back and averaged.

    Raises:
        ModelError: the sides of the view are no multiples of the backbone's largest stride, or the head's outputs are no
            maps that could be turned.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        neck: Neck,
        head: Head,
        size: tuple[int, int],
        channels_last: bool = True,
        auxiliary: AuxiliaryHeatmaps | None = None,
        turns: Sequence[float] | None = (),
    ) -> None:
        super().__init__()
        step = backbone.stride_multiple
        if any(side <= 0 or side % step for side in size):
            near = [max(step, round(side / step) * step) for side in size]
            raise ModelError(
                f"size {list(size)} does not fit backbone '{backbone.name}', "
                f"which needs sides that are multiples of {step}. Use size={near}, for example."
            )
        self.turns = angles(turns)
        if self.turns and (head.heatmap_stride is None or (auxiliary is not None and auxiliary.snap is not None)):
            raise ModelError(
                f"model.turns is {list(self.turns)}, but head '{type(head).__name__}' does not predict by heatmaps alone, which can be "
                "turned. Use model.turns=[], or head=heatmap."
            )
        self.size, self.skeleton = size, head.skeleton
        self.max_poses, self.fixed_size = head.max_poses, head.fixed_size
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.backbone, self.neck, self.head, self.auxiliary = backbone, neck, head, auxiliary
        self.to(memory_format=self.layout)
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor, targets: Any | None = None) -> Any:
        """The outputs of the head, in float32 in every precision of the network.

        Args:
            images: (B, 3, H, W) RGB from 0 to 255, uint8 or float.
            targets: the head's, where it samples around them in training.
        """
        return map_tensors(_to_float32, self.head(self.maps(images), targets))

    def maps(self, images: Tensor) -> list[Tensor]:
        """The feature maps that the head reads, finest first.

        Args:
            images: (B, 3, H, W) RGB from 0 to 255, uint8 or float.
        """
        return self.neck(self.backbone(self.normalised(images)))

    def normalised(self, images: Tensor) -> Tensor:
        """The input of the backbone: scaled to [0, 1], minus the mean, over the standard deviation."""
        scaled = images.to(torch.float32, memory_format=self.layout) / 255
        return (scaled - self.mean) / self.std

    @property
    def networks(self) -> dict[str, Model]:
        """Itself."""
        return {"model": self}

    @property
    def without_flip(self) -> list[str]:
        """The head, where it has no flip test."""
        return [] if self.head.flips else [f"head '{type(self.head).__name__}'"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named losses of a batch; training minimises their sum."""
        return self.losses_of(batch.images, self.encode(batch.poses, batch.size))

    def encode(self, poses: list[Poses], size: tuple[int, int]) -> Targets:
        """Encode the true poses of B views as training targets; see ``Head.encode``."""
        targets = self.head.encode(poses, size)
        return Targets(targets, None if self.auxiliary is None else self.auxiliary.encode(poses, size))

    def shift_targets(self, targets: Targets, by: Tensor) -> Targets:
        """Targets whose keypoints are moved by (B, K, 2) view pixels, differentiable; see ``Head.shift_targets``."""
        moved = self.head.shift_targets(targets.head, by)
        if self.auxiliary is None or targets.auxiliary is None:
            return Targets(moved)
        return Targets(moved, self.auxiliary.shift_targets(targets.auxiliary, by))

    def losses_of(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Named losses of (B, 3, H, W) views with their targets."""
        maps = self.maps(images)
        losses = self.head.loss(map_tensors(_to_float32, self.head(maps, targets.head)), targets.head)
        if self.auxiliary is not None and targets.auxiliary is not None:
            losses["auxiliary_heatmap"] = self.auxiliary.loss(self.auxiliary(maps), targets.auxiliary)
        return losses

    @property
    def snaps(self) -> bool:
        """Whether predicted keypoints are moved to the peaks of auxiliary heatmaps."""
        return self.auxiliary is not None and self.auxiliary.snap is not None

    def outputs(self, images: Tensor, flip_test: bool = False) -> tuple[Any, Tensor | None]:
        """The outputs of the head, and the auxiliary heatmaps where keypoints are moved to their peaks, else None.

        Args:
            images: (B, 3, H, W) RGB from 0 to 255, uint8 or float.
            flip_test: return the means of those of views and mirrored views.
        """
        outputs = self._flipped(images, flip_test)
        if self.turns:
            # no view shows all of a turned one: the mean is over those that do
            total, shown = outputs[0], torch.ones_like(outputs[0][:, :1])
            every = shown
            for degrees in self.turns:
                total = total + turn(self._flipped(turn(images.float(), degrees), flip_test)[0], -degrees)
                shown = shown + turn(every, -degrees)
            outputs = (total / shown, None)
        return outputs

    def _flipped(self, images: Tensor, flip_test: bool) -> tuple[Any, Tensor | None]:
        outputs = self._outputs(images)
        if flip_test:
            head, heatmaps = self._outputs(images.flip(-1))
            back = None if self.auxiliary is None or heatmaps is None else self.auxiliary.unflip(heatmaps)
            outputs = map_tensors(lambda a, b: (a + b) / 2, outputs, (self.head.unflip(head), back))
        return outputs

    def _outputs(self, images: Tensor) -> tuple[Any, Tensor | None]:
        maps = self.maps(images)
        heatmaps = self.auxiliary(maps) if self.auxiliary is not None and self.snaps else None
        return map_tensors(_to_float32, (self.head(maps), heatmaps))

    def decode(self, outputs: tuple[Any, Tensor | None]) -> list[Poses]:
        """One Poses a view, view pixels, from ``outputs``."""
        return self._snapped(self.head.decode(outputs[0]), outputs[1])

    def decode_tensors(self, outputs: tuple[Any, Tensor | None]) -> dict[str, Tensor]:
        """The part of ``decode`` that is part of an exported graph; see ``Head.decode_tensors``."""
        decoded = self.head.decode_tensors(outputs[0])
        return decoded if outputs[1] is None else {**decoded, "auxiliary_heatmaps": outputs[1]}

    def make_poses(self, decoded: dict[str, Tensor]) -> list[Poses]:
        """The part of ``decode`` that follows an exported graph; see ``Head.make_poses``."""
        tensors = {name: value for name, value in decoded.items() if name != "auxiliary_heatmaps"}
        return self._snapped(self.head.make_poses(tensors), decoded.get("auxiliary_heatmaps"))

    def _snapped(self, poses: list[Poses], heatmaps: Tensor | None) -> list[Poses]:
        return poses if self.auxiliary is None or heatmaps is None else self.auxiliary.snapped(poses, heatmaps)

    @property
    def after_graph(self) -> str:
        """What ``make_poses`` does with the outputs of an exported graph, besides leaving out low scores; "" is nothing."""
        snapping = "keypoints snap to the peaks of auxiliary_heatmaps" if self.snaps else ""
        return ", then ".join(step for step in (self.head.after_graph, snapping) if step)

    @property
    def heatmap_stride(self) -> int | None:
        """Stride of the head's heatmaps, view pixels; None if it has none."""
        return self.head.heatmap_stride

    def heatmaps(self, images: Tensor) -> Tensor:
        """(B, K, h, w) map of each keypoint, of (B, 3, H, W) uint8 RGB views."""
        if self.heatmap_stride is None:
            return super().heatmaps(images)
        with predicting(self):
            return self.outputs(images.to(self.device))[0]

    def predict(self, batch: Batch, flip_test: bool = False) -> list[Poses]:
        """Poses of each view, view pixels.

        Args:
            batch: B views; its poses are not read.
            flip_test: average the outputs with those of the mirrored views.
        """
        with predicting(self):
            return self.decode(self.outputs(batch.images.to(self.mean.device), flip_test))


@contextmanager
def predicting(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode is restored afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def _to_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def leaves(outputs: Any) -> list[Tensor]:
    """The tensors of outputs of any structure, in order."""
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, list | tuple):
        return [leaf for part in outputs for leaf in leaves(part)]
    return [outputs] if isinstance(outputs, Tensor) else []


def angles(turns: Any) -> tuple[float, ...]:
    """The angles of ``model.turns``; None is none.

    Raises:
        ModelError: it is no list of finite numbers.
    """
    listed = () if turns is None else turns
    numbers = isinstance(listed, list | tuple) and all(
        isinstance(t, int | float) and not isinstance(t, bool) for t in listed
    )
    if not numbers or not all(math.isfinite(t) for t in listed):
        raise ModelError(f"model.turns is {turns!r}, but is a list of degrees. Use [] or [90, 180, 270], for example.")
    return tuple(float(t) for t in listed)


def map_tensors(function: Callable[..., Any], *outputs: Any) -> Any:
    """Apply a function to the tensors of outputs of one structure: tensors, or dicts, lists and tuples of tensors."""
    first = outputs[0]
    if isinstance(first, dict):
        return {key: map_tensors(function, *(o[key] for o in outputs)) for key in first}
    if isinstance(first, list | tuple):
        return type(first)(map_tensors(function, *parts) for parts in zip(*outputs, strict=True))
    return function(*outputs) if isinstance(first, Tensor) else first
