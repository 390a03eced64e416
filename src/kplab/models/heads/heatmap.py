"""One heatmap per keypoint, with a Gaussian at its position: SimpleBaseline, HRNet, ViTPose, decoded as in DARK."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from kplab.errors import ModelError
from kplab.models.heads.base import Head, HeadInputs
from kplab.models.heads.single import one_pose_each, subjects
from kplab.ops import heatmap
from kplab.structures.poses import Poses


class HeatmapHead(Head):
    """A convolution from one feature map to K heatmaps.

    Targets are ``{"heatmap": (B, K, h, w), "weight": (B, K)}``, outputs (B, K, h, w) without an activation.

    Args:
        sigma: of the Gaussians, cells of the map.
        level: index of the feature map; 0 is the finest.
        hidden: channels of a 3x3 convolution before the last layer; 0 is none.
        dark: refine peaks to a fraction of a cell; otherwise the centre of the highest cell is decoded.
        blur: kernel of DARK's smoothing, cells, odd; 0 is none.

    Source: Xiao et al., "Simple Baselines for Human Pose Estimation and Tracking", 2018; Zhang et al.,
    "Distribution-Aware Coordinate Representation for Human Pose Estimation" (DARK), 2020.
    """

    max_poses = 1

    def __init__(
        self,
        inputs: HeadInputs,
        *,
        sigma: float = 2.0,
        level: int = 0,
        hidden: int = 0,
        dark: bool = True,
        blur: int = 11,
    ) -> None:
        super().__init__(inputs)
        if sigma <= 0:
            raise ModelError(f"head 'heatmap' needs sigma > 0, in cells of the map, but got {sigma}. 2 is usual.")
        if blur < 0 or (blur and blur % 2 == 0):
            raise ModelError(f"head 'heatmap' needs an odd blur, or 0 for none, but got {blur}. 11 goes with sigma 2.")
        self.sigma, self.dark, self.blur = sigma, dark, blur
        self.level = inputs.level("heatmap", level)
        self.stride = inputs.strides[self.level]
        width = inputs.in_channels[self.level]
        before: list[nn.Module] = []
        if hidden:
            before = [
                nn.Conv2d(width, hidden, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(hidden),
                nn.ReLU(inplace=True),
            ]
        last = nn.Conv2d(hidden or width, len(self.skeleton), kernel_size=1)
        nn.init.normal_(last.weight, std=0.001)
        nn.init.constant_(cast(Tensor, last.bias), 0.0)
        self.net = nn.Sequential(*before, last)

    def encode(self, poses: list[Poses], size: tuple[int, int]) -> dict[str, Tensor]:
        """Encode keypoints as Gaussians of height 1 around un-rounded positions, over the whole map.

        A keypoint has weight 0, and an empty map, where it is unlabelled, or outside the map by more than 3 sigma.
        """
        xy, labelled = subjects(poses, len(self.skeleton), self.device)
        uv = xy / self.stride
        shape = (size[0] // self.stride, size[1] // self.stride)
        reach = 3 * self.sigma
        inside = ((uv >= -reach) & (uv <= torch.tensor(shape, device=uv.device) + reach)).all(-1)
        weight = (labelled & inside).float()
        return {"heatmap": heatmap.gaussian_map(uv, self.sigma, shape) * weight[..., None, None], "weight": weight}

    def forward(self, maps: list[Tensor], targets: Any | None = None) -> Tensor:
        """(B, K, h, w) heatmaps."""
        return self.net(maps[self.level])

    def loss(self, outputs: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Squared error of the labelled maps, divided by the energy of their Gaussians.

        sum_k w_k sum_cells (p - t)**2 / (pi sigma**2 sum_k w_k)

        Maps of zeros cost 1, whatever the size of the map, sigma, and the share of keypoints that is labelled. (The
        papers' 0.5 mean over all elements counts unlabelled maps and empty cells in its denominator: zeros cost about
        0.002 there, and less the fewer keypoints are labelled.)
        """
        weight = targets["weight"]
        energy = ((outputs - targets["heatmap"]) ** 2).sum((-1, -2))
        scale = math.pi * self.sigma**2 * weight.sum().clamp_min(1)
        return {"heatmap": (energy * weight).sum() / scale}

    def decode_tensors(self, outputs: Tensor) -> dict[str, Tensor]:
        """Decode the peak of each map; its height, clamped to [0, 1], is the keypoint's score."""
        if self.dark:
            uv, value = heatmap.refined_peaks(outputs, self.blur)
        else:
            cell, value = heatmap.peaks(outputs)
            uv = cell + 0.5
        return one_pose_each(uv * self.stride, value.clamp(0, 1))

    def ideal(self, targets: dict[str, Tensor]) -> Tensor:
        """The heatmaps of the targets."""
        return targets["heatmap"]

    def unflip(self, outputs: Tensor) -> Tensor:
        """Maps mirrored and permuted; without a shift, since cell j of a mirrored map corresponds exactly to cell w - 1 - j."""
        return outputs.flip(-1)[:, self.flip]

    @property
    def heatmap_stride(self) -> int:
        """Stride of the outputs, view pixels."""
        return self.stride
