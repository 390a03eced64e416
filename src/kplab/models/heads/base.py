"""The contract of all heads: a family of keypoint detector is one subclass of ``Head``.

``decode(ideal(encode(poses)))`` returns the poses up to the error of the representation. One test suite applies this round
trip to every head, and it measures the best accuracy that a representation allows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kplab.errors import ModelError
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton


@dataclass(frozen=True)
class HeadInputs:
    """What a head is constructed for: the feature maps, the view and the keypoints.

    Attributes:
        in_channels: channels of each feature map, finest first.
        strides: stride of each feature map, pixels.
        size: (width, height) of the view, pixels.
        skeleton: names and symmetry of the K keypoints.
    """

    in_channels: list[int]
    strides: list[int]
    size: tuple[int, int]
    skeleton: Skeleton

    def level(self, head: str, index: int, key: str = "head.level") -> int:
        """The index of a feature map as a number from 0; negative ones count from the coarsest.

        Args:
            head: name of the head, for the message.
            key: of the config that states the index, for the message.

        Raises:
            ModelError: there is no such map.
        """
        if not -len(self.strides) <= index < len(self.strides):
            raise ModelError(
                f"head '{head}' reads map {index}, but the neck gives {len(self.strides)} (strides {self.strides}). "
                f"Change {key}."
            )
        return index % len(self.strides)


class Head(nn.Module, ABC):
    """Computes outputs from feature maps and decodes them into poses.

    A subclass takes ``inputs: HeadInputs`` first, then its options as keywords with defaults; these are the keys of its
    ``conf/head/<name>.yaml``. T (targets) and O (outputs) are types of the subclass: tensors, or dicts and lists of
    tensors, on the device of the head.

    Args:
        inputs: the feature maps, the view and the skeleton.
    """

    #: Largest number of poses of one view; None is any number.
    max_poses: int | None = None

    #: Whether the head works with views of the constructor's size only, because its layers or its coordinates depend on it.
    fixed_size: bool = False

    #: Whether ``forward`` computes a single view, by shapes that don't depend on values; set for export.
    static: bool = False

    #: What ``make_poses`` does with the outputs of an exported graph, besides leaving out low scores; "" is nothing.
    after_graph: str = ""

    #: Smallest score of a pose that ``make_poses`` keeps.
    min_score: float = 0.0

    #: Whether ``shift_targets`` is implemented.
    shifts_targets: bool = False

    flip: Tensor

    def __init__(self, inputs: HeadInputs) -> None:
        super().__init__()
        self.skeleton, self.size = inputs.skeleton, inputs.size
        self.register_buffer("flip", torch.from_numpy(self.skeleton.flip_array), persistent=False)

    @property
    def device(self) -> torch.device:
        """The device of the parameters, on which targets are created."""
        return next(self.parameters()).device

    @property
    def flips(self) -> bool:
        """Whether ``unflip`` is implemented, which the flip test needs."""
        return type(self).unflip is not Head.unflip

    @property
    def heatmap_stride(self) -> int | None:
        """Stride of the outputs, view pixels, if they are (B, K, h, w) maps, one a keypoint; else None."""
        return None

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse views of another size than the constructor's; ``encode`` of heads with ``fixed_size`` calls it.

        Args:
            size: (width, height) of the views, pixels.

        Raises:
            ModelError: the size differs.
        """
        if tuple(size) != tuple(self.size):
            raise ModelError(
                f"head '{type(self).__name__}' is built for views of {self.size[0]}x{self.size[1]} pixels, but got "
                f"{size[0]}x{size[1]}. Use views of one size for training and prediction, without a window."
            )

    def check_map(self, features: Tensor, stride: int) -> None:
        """Refuse a feature map of views of another size; ``forward`` of heads with ``fixed_size`` calls it.

        Args:
            features: (B, C, h, w).
            stride: of the map, pixels.

        Raises:
            ModelError: the map has another number of rows or columns than the constructor's size gives.
        """
        cells = tuple(-(-side // stride) for side in self.size)
        got = (features.shape[-1], features.shape[-2])
        if got != cells:
            raise ModelError(
                f"head '{type(self).__name__}' is built for maps of {cells[0]}x{cells[1]} cells (views of {self.size[0]}x"
                f"{self.size[1]} pixels), but got {got[0]}x{got[1]}. Use views of one size for training and prediction."
            )

    @abstractmethod
    def encode(self, poses: list[Poses], size: tuple[int, int]) -> Any:
        """Encode the true poses of B views as training targets.

        Args:
            poses: B true Poses, view pixels. Instances with ``ignore`` are neither positives nor negatives.
            size: (width, height) of the views, pixels; it may differ from the constructor's unless ``fixed_size``.

        Returns:
            T.

        Raises:
            ModelError: a view has more poses than ``max_poses``, or the size is refused.
        """

    @abstractmethod
    def forward(self, maps: list[Tensor], targets: Any | None = None) -> Any:
        """Compute the outputs from feature maps.

        Args:
            maps: (B, C_i, H / stride_i, W / stride_i) each, finest first.
            targets: T in training, around which two-stage heads sample proposals; other heads ignore them.

        Returns:
            O.
        """

    @abstractmethod
    def loss(self, outputs: Any, targets: Any) -> dict[str, Tensor]:
        """Named scalar losses, whose sum training minimises; finite, with a gradient, even if nothing is labelled."""

    def decode(self, outputs: Any) -> list[Poses]:
        """Decode outputs into one Poses a view, view pixels, with scores in [0, 1].

        A head implements ``decode_tensors``, and ``make_poses`` where the default does not suffice. One that overrides this
        method instead can't be exported.
        """
        return self.make_poses(self.decode_tensors(outputs))

    def decode_tensors(self, outputs: Any) -> dict[str, Tensor]:
        """The part of ``decode`` that is part of an exported graph: tensors of B views from outputs.

        Returns:
            by name, for at most P poses of each view: ``keypoints`` (B, P, K, 2) view pixels, ``keypoint_scores`` (B, P, K),
            ``scores`` (B, P), below ``min_score`` where there is no pose, and, where the head predicts boxes, ``boxes``
            (B, P, 4) xyxy view pixels. A head whose poses are assembled by ``make_poses`` may return other tensors.

        Raises:
            ModelError: the head can't be exported.
        """
        raise ModelError(
            f"head '{type(self).__name__}' can't be exported: it has its own 'decode' instead of 'decode_tensors'."
        )

    def make_poses(self, decoded: dict[str, Tensor]) -> list[Poses]:
        """The part of ``decode`` that follows an exported graph: one Poses a view from the tensors of ``decode_tensors``."""
        arrays = {name: tensor.double().cpu().numpy() for name, tensor in decoded.items()}
        kept = arrays["scores"] >= self.min_score
        return [
            Poses.make(
                arrays["keypoints"][i, keep],
                score=arrays["scores"][i, keep],
                keypoint_score=arrays["keypoint_scores"][i, keep],
                box=arrays["boxes"][i, keep] if "boxes" in arrays else None,
            )
            for i, keep in enumerate(kept)
        ]

    @abstractmethod
    def ideal(self, targets: Any) -> Any:
        """Outputs that decode exactly to the targets, as far as the representation allows."""

    def representable(self, poses: Poses, size: tuple[int, int]) -> np.ndarray:
        """Which true instances of a view the representation can return; all of them by default.

        If all instances of a view are representable, so is every subset of them.

        Args:
            poses: N instances, view pixels.
            size: (width, height) of the view, pixels.

        Returns:
            (N,) bool.
        """
        return np.ones(len(poses), dtype=bool)

    def round_trip_error(self, poses: Poses) -> np.ndarray:
        """Upper bound of the keypoint error of ``decode(ideal(encode(poses)))``, by default a twentieth of a pixel.

        Args:
            poses: N instances, view pixels.

        Returns:
            (N,) view pixels.
        """
        return np.full(len(poses), 0.05)

    def unflip(self, outputs: Any) -> Any:
        """Mirror the outputs of mirrored views back and permute their keypoints, so that both can be averaged.

        Returns:
            O.

        Raises:
            ModelError: the head has no flip test.
        """
        raise ModelError(f"head '{type(self).__name__}' has no flip test. Use flip_test=false.")

    def candidates(self, outputs: Any) -> tuple[Tensor, Tensor]:
        """All boxes that the outputs contain, before any selection, with which a cascade trains its detector.

        Returns:
            (B, A, 4) xyxy, view pixels, with gradients; and (B, A) scores in [0, 1].

        Raises:
            ModelError: the head predicts no boxes.
        """
        raise ModelError(f"head '{type(self).__name__}' has no candidates. Use model.boxes=jittered.")

    def shift_targets(self, targets: Any, by: Tensor) -> Any:
        """Targets whose keypoints are moved, differentiable with respect to ``by``; see ``shifts_targets``.

        Args:
            targets: T of B views with one pose each.
            by: (B, K, 2) displacements, view pixels; 0 for unlabelled keypoints.

        Returns:
            T.

        Raises:
            ModelError: the head can't move its targets.
        """
        raise ModelError(f"head '{type(self).__name__}' can't move its targets. Use model.boxes=jittered.")
