"""What is exported: modules from uint8 images to the tensors that poses are made from.

A model is one graph, or two for a cascade: the detector, and the pose model on the crop of one of its boxes. A graph reads
one region of one image of any size, resamples it, normalises the view, computes the network and ``Head.decode_tensors``, and
maps points back to the pixels of the image. It reads one view at a time because a trace records the number of views.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from kplab.errors import ConfigError
from kplab.export.resampling import area_resize, read_crops, read_views
from kplab.models.pose_model import PoseModel, leaves
from kplab.ops import spatial

#: Decoded tensors that are points, in pixel indices of the image; ``boxes`` have continuous coordinates, as in COCO.
POINTS = ("keypoints", "points")
#: Where a graph can end, in order, to find out where it differs from the model.
STAGES = ("input pixels", "network outputs", "decode")


class ViewGraph(nn.Module):
    """From regions of images to decoded tensors.

    Args:
        model: a network; it is copied.
        flip_test: average the outputs with those of mirrored views.
        size: (width, height) in which regions are read before they are resized to the model's; None: the model's.
        stage: of ``STAGES``, where it ends.
    """

    def __init__(
        self, model: PoseModel, flip_test: bool, size: tuple[int, int] | None = None, stage: str = "decode"
    ) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().eval().to(memory_format=torch.contiguous_format)
        self.model.layout = torch.contiguous_format
        self.model.head.static = True
        self.flip_test, self.size, self.stage = flip_test, size or model.size, stage
        self.eval()

    def until(self, stage: str) -> ViewGraph:
        """The same graph up to a stage."""
        return ViewGraph(self.model, self.flip_test, self.size, stage)

    def example(self) -> dict[str, Tensor]:
        """Inputs to trace it with, in the order of ``forward``."""
        width, height = self.size
        images = torch.zeros(1, height + 5, width + 3, 3, dtype=torch.uint8)
        return {"images": images, "regions": torch.tensor([[0.0, 0.0, width + 3.0, height + 5.0]]).double()}

    def forward(self, images: Tensor, regions: Tensor) -> dict[str, Tensor]:
        """Decode a region.

        Args:
            images: (1, H, W, 3) uint8 RGB.
            regions: (1, 4) float64 xyxy, pixels of the image, which becomes the view, with its aspect kept.

        Returns:
            the tensors of ``PoseModel.decode_tensors``, float32, their points and boxes in pixels of the image, and
            ``to_view`` (1, 3): s, tx and ty of x_view = s * x_image + tx, y_view = s * y_image + ty.
        """
        to_view = spatial.crop_views(regions, self.size)
        views = read_views(images, to_view, self.size)
        if self.size != self.model.size:
            views = area_resize(views, self.model.size)
        decoded = self.decoded(views)
        if self.stage != "decode":
            return decoded
        larger = views.new_tensor([a / b for a, b in zip(self.size, self.model.size, strict=True)])
        return in_image(scaled(decoded, larger), to_view)

    def decoded(self, views: Tensor) -> dict[str, Tensor]:
        """(1, 3, H, W) views to the tensors of the stage; decoded ones in pixels of the views."""
        if self.stage == "input pixels":
            return {"pixels": self.model.normalised(views)}
        outputs = self.model.outputs(views, self.flip_test)
        if self.stage == "network outputs":
            return {f"output_{i}": tensor for i, tensor in enumerate(leaves(outputs))}
        return self.model.decode_tensors(outputs)


class CropGraph(ViewGraph):
    """The pose model of a cascade: from a box in a region of an image to decoded tensors.

    Args:
        model: the pose model.
        flip_test: see ``ViewGraph``.
        size: (width, height) of the cascade's view.
        padding: factor on a box's sides before it is cropped.
    """

    def __init__(self, model: PoseModel, flip_test: bool, size: tuple[int, int], padding: float) -> None:
        super().__init__(model, flip_test, size)
        self.padding = padding

    def example(self) -> dict[str, Tensor]:
        """Inputs to trace it with, in the order of ``forward``."""
        return {**super().example(), "crops": torch.tensor([[2.0, 3.0, 40.0, 50.0]]).double()}

    def forward(self, images: Tensor, regions: Tensor, crops: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Decode a crop.

        Args:
            images: (1, H, W, 3) uint8 RGB.
            regions: (1, 4) float64 xyxy, that the detector has read.
            crops: (1, 4) float64 xyxy, the box of a subject, pixels of the image.

        Returns:
            see ``ViewGraph.forward``.
        """
        to_view = spatial.crop_views(regions, self.size)
        view = read_views(images, to_view, self.size)
        boxes = (crops * to_view[:, :1] + to_view[:, [1, 2, 1, 2]]).float()
        to_crop = spatial.crop_views(boxes, self.model.size, self.padding)
        decoded = self.decoded(read_crops(view, to_crop, self.model.size))
        # from the image to a crop: first to the view, then to the crop
        scale, shift = to_crop.double().split((1, 2), dim=1)
        return in_image(decoded, torch.cat([scale * to_view[:, :1], scale * to_view[:, 1:] + shift], dim=1))


def scaled(decoded: dict[str, Tensor], factor: Tensor) -> dict[str, Tensor]:
    """Decoded tensors with points and boxes multiplied by factors (2,) of x and of y."""
    factors = {**dict.fromkeys(POINTS, factor), "boxes": factor.repeat(2)}
    return {name: value * factors[name] if name in factors else value for name, value in decoded.items()}


def in_image(decoded: dict[str, Tensor], to_view: Tensor) -> dict[str, Tensor]:
    """Map decoded tensors from pixels of views to those of the images, with ``to_view`` beside them."""

    def back(points: Tensor) -> Tensor:
        """(N, ..., 2)."""
        one = [1] * (points.dim() - 2)
        return (points - to_view[:, 1:].reshape(-1, *one, 2)) / to_view[:, 0].reshape(-1, *one, 1)

    out = {}
    for name, value in decoded.items():
        if name in POINTS:
            value = back(value.double()) - 0.5
        elif name == "boxes":
            value = back(value.double().unflatten(-1, (2, 2))).flatten(-2)
        out[name] = value.float()
    return {**out, "to_view": to_view.float()}


def in_view(decoded: dict[str, Tensor], to_view: Tensor) -> dict[str, Tensor]:
    """The inverse of ``in_image``: points and boxes of views."""

    def ahead(points: Tensor) -> Tensor:
        """(N, ..., 2)."""
        one = [1] * (points.dim() - 2)
        return points * to_view[:, 0].reshape(-1, *one, 1) + to_view[:, 1:].reshape(-1, *one, 2)

    out = {}
    for name, value in decoded.items():
        if name in POINTS:
            value = ahead(value.double() + 0.5)
        elif name == "boxes":
            value = ahead(value.double().unflatten(-1, (2, 2))).flatten(-2)
        out[name] = value.float()
    return out


def graphs_of(model: Any, flip_test: bool) -> dict[str, ViewGraph]:
    """The graphs of a model by the names of their files.

    Raises:
        ConfigError: the model is no network.
    """
    networks: dict[str, Any] = model.networks
    if networks:
        # the first network reads regions in the view's size; one that follows reads crops of what the first has found
        first, *others = networks
        graphs = {first: ViewGraph(networks[first], flip_test, model.size)}
        for name in others:
            graphs[name] = CropGraph(networks[name], flip_test, model.size, model.padding)
        return graphs
    raise ConfigError(
        f"a model of the kind '{type(model).__name__}' can't be exported: it matches the descriptors of an image with those "
        "of its memory by OpenCV, and is no graph of tensors. Use kplab predict."
    )
