"""Coordinates by classification: per keypoint one distribution over x and one over y, with bins finer than a pixel."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from kplab.errors import ModelError
from kplab.models.heads.base import Head, HeadInputs
from kplab.models.heads.single import one_pose_each, subjects
from kplab.ops import heatmap
from kplab.structures.poses import Poses


class SimCCHead(Head):
    """A convolution from one feature map to K maps, and two linear layers from each map to bins of x and of y.

    Targets are ``{"x": (B, K, bins), "y": (B, K, bins), "weight": (B, K)}``, outputs logits
    ``{"x": (B, K, bins), "y": (B, K, bins)}``. The centre of bin i is at (i + 0.5) / split_ratio pixels.

    Args:
        split_ratio: bins per pixel.
        sigma: of the Gaussian labels, bins; None is sqrt(side / 8) at 2 bins per pixel, which gives the 4.9, 5.7 and 6.9
            that are usual for sides of 192, 256 and 384 pixels.
        level: index of the feature map; -1 is the coarsest.

    Source: Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation", 2022; labels
    are not rounded to bins here.
    """

    max_poses = 1
    fixed_size = True

    def __init__(
        self,
        inputs: HeadInputs,
        *,
        split_ratio: float = 2.0,
        sigma: float | None = None,
        level: int = -1,
    ) -> None:
        super().__init__(inputs)
        if split_ratio <= 0 or (sigma is not None and sigma <= 0):
            raise ModelError(
                f"head 'simcc' needs split_ratio > 0 and sigma > 0 or null, but got {split_ratio} and {sigma}. "
                "2 and null are usual."
            )
        self.split_ratio = split_ratio
        self.level = inputs.level("simcc", level)
        self.bins = (round(self.size[0] * split_ratio), round(self.size[1] * split_ratio))
        self.sigmas = [sigma or math.sqrt(side / 8) * split_ratio / 2 for side in self.size]
        self.stride = inputs.strides[self.level]
        cells = (-(-self.size[0] // self.stride), -(-self.size[1] // self.stride))
        self.to_maps = nn.Conv2d(inputs.in_channels[self.level], len(self.skeleton), kernel_size=1)
        self.to_x, self.to_y = (nn.Linear(cells[0] * cells[1], bins) for bins in self.bins)
        start_from_positions(self.to_x, cells, axis=0)
        start_from_positions(self.to_y, cells, axis=1)

    def encode(self, poses: list[Poses], size: tuple[int, int]) -> dict[str, Tensor]:
        """Encode keypoints as Gaussians around un-rounded positions, normalised to a sum of 1 over the bins.

        A keypoint has weight 0, and empty labels, where it is unlabelled, or outside the view by more than 3 sigma.
        """
        self.check_size(size)
        xy, labelled = subjects(poses, len(self.skeleton), self.device)
        uv = xy * self.split_ratio
        reach = 3 * torch.tensor(self.sigmas, device=uv.device)
        inside = ((uv >= -reach) & (uv <= torch.tensor(self.bins, device=uv.device) + reach)).all(-1)
        weight = (labelled & inside).float()
        axes = {}
        for axis, name in enumerate("xy"):
            # far outside, a Gaussian vanishes and can't be normalised
            u = torch.where(weight > 0, uv[..., axis], self.bins[axis] / 2)
            label = heatmap.gaussian_axis(u, self.sigmas[axis], self.bins[axis])
            axes[name] = label / label.sum(-1, keepdim=True) * weight[..., None]
        return {**axes, "weight": weight}

    def forward(self, maps: list[Tensor], targets: Any | None = None) -> dict[str, Tensor]:
        """Logits of both axes."""
        chosen = maps[self.level]
        self.check_map(chosen, self.stride)
        features = self.to_maps(chosen).flatten(-2)
        return {"x": self.to_x(features), "y": self.to_y(features)}

    def loss(self, outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Divergence of the predicted distributions from the labels, nats, mean over labelled keypoints, for each axis.

        KL(label || softmax(logits)); 0 is perfect, and uniform distributions cost about 3.
        """
        weight = targets["weight"]
        count = weight.sum().clamp_min(1)
        losses = {}
        for name in "xy":
            label = targets[name]
            log = outputs[name].log_softmax(-1)
            divergence = (torch.xlogy(label, label) - label * log).sum(-1)
            losses[f"simcc_{name}"] = (divergence * weight).sum() / count
        return losses

    def decode_tensors(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Decode the peaks of both distributions, refined between bins.

        The score is the geometric mean of their two probabilities, divided by that of an ideal label, at most 1.
        """
        xy, score = [], []
        for name, sigma in zip("xy", self.sigmas, strict=True):
            log = outputs[name].log_softmax(-1)
            u, bin_ = heatmap.refined_peaks_1d(log)
            xy.append(u / self.split_ratio)
            score.append(log.gather(-1, bin_[..., None]).squeeze(-1).exp() / heatmap.ideal_peak_1d(sigma))
        return one_pose_each(torch.stack(xy, dim=-1), (score[0] * score[1]).sqrt().clamp(0, 1))

    def ideal(self, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Logits whose softmax is the label; uniform without a label."""
        return {name: targets[name].clamp_min(torch.finfo(torch.float32).tiny).log() for name in "xy"}

    def unflip(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keypoints permuted, and x reversed. Averaging such logits is the geometric mean of the distributions."""
        return {"x": outputs["x"].flip(-1)[:, self.flip], "y": outputs["y"][:, self.flip]}


def start_from_positions(layer: nn.Linear, cells: tuple[int, int], axis: int) -> None:
    """Initialise a layer so that each cell of the map is connected to the bins at its position.

    weight[bin, cell] = exp(-d**2 / 2) / sqrt(other side), d the distance of bin and cell in cells, plus a little noise.
    From random weights, a few hundred images do not suffice to learn the positions of the cells: the layer overfits.

    Args:
        layer: from the flattened map (rows of ``cells[0]``) to bins; changed in place.
        cells: (width, height) of the map.
        axis: 0 where the bins are of x, 1 of y.
    """
    bins, width = layer.out_features, cells[0]
    index = torch.arange(cells[0] * cells[1])
    cell = (index % width if axis == 0 else index // width) + 0.5
    place = (torch.arange(bins) + 0.5) * cells[axis] / bins
    distance = place[:, None] - cell
    with torch.no_grad():
        layer.weight.copy_(torch.exp(-(distance**2) / 2) / math.sqrt(cells[1 - axis]))
        layer.weight.add_(torch.randn_like(layer.weight) * 0.001)
        layer.bias.zero_()
