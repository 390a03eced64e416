"""Necks: compute the maps that heads read from those of a backbone, finest first.

A neck may not assume a pyramid: the maps of a ViT have equal strides. Each neck documents which strides it accepts.
"""

from __future__ import annotations

import itertools
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from kplab.errors import ModelError


class Neck(nn.Module):
    """Base class of the modules between a backbone and a head.

    Attributes:
        channels: of each returned map, finest first.
        strides: of each returned map, pixels.
    """

    channels: list[int]
    strides: list[int]


class Select(Neck):
    """One of the backbone's maps, as it is.

    Args:
        in_channels: of the backbone's maps.
        strides: of the backbone's maps, finest first.
        level: which map; 0 is the finest, -1 the coarsest.
    """

    def __init__(self, in_channels: list[int], strides: list[int], level: int = -1) -> None:
        super().__init__()
        if not -len(strides) <= level < len(strides):
            raise ModelError(
                f"neck 'select' is configured for map {level}, but the backbone gives {len(strides)} (strides {strides}). "
                "Change neck.level or backbone.out_indices."
            )
        self.level = level
        self.channels, self.strides = [in_channels[level]], [strides[level]]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """(B, C_i, H_i, W_i) maps to a list of one of them."""
        return [maps[self.level]]


class Upsample(Neck):
    """Transposed convolutions on the coarsest map: the deconvolution head of SimpleBaseline, without its last layer.

    Args:
        in_channels: of the backbone's maps.
        strides: of the backbone's maps, finest first.
        layers: number of doublings; 3 lead from stride 32 to 4, and 2 from a ViT's 16 to 4.
        channels: of every layer.

    Source: Xiao et al., "Simple Baselines for Human Pose Estimation and Tracking", 2018.
    """

    def __init__(self, in_channels: list[int], strides: list[int], layers: int = 3, channels: int = 256) -> None:
        super().__init__()
        factor = 2**layers
        if layers < 1 or strides[-1] % factor:
            raise ModelError(
                f"neck 'upsample' is configured for {layers} doublings of a map of stride {strides[-1]}. "
                f"Set neck.layers between 1 and {max(strides[-1].bit_length() - 1, 1)}."
            )
        widths = [in_channels[-1]] + [channels] * layers
        steps: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            deconvolution = nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1, bias=False)
            nn.init.normal_(deconvolution.weight, std=0.001)
            steps += [deconvolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.steps = nn.Sequential(*steps)
        self.channels, self.strides = [channels], [strides[-1] // factor]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """(B, C_i, H_i, W_i) maps to a list of one, doubled ``layers`` times."""
        return [self.steps(maps[-1])]


class FPN(Neck):
    """Feature pyramid: coarse maps are upsampled and added to finer ones, top down.

    Args:
        in_channels: of the backbone's maps.
        strides: of the backbone's maps, finest first, each twice the one before.
        channels: of every returned map.
        levels: strides of the returned maps; None is all. Layers that only finer maps need are not built.
        norm: batch normalisation and ReLU after each convolution; false is as published.
        pool: return one more map, every other cell of the coarsest.

    Source: Lin et al., "Feature Pyramid Networks for Object Detection", 2017; batch normalisation is added, for
    training from random weights.
    """

    def __init__(
        self,
        in_channels: list[int],
        strides: list[int],
        channels: int = 128,
        levels: list[int] | None = None,
        norm: bool = True,
        pool: bool = False,
    ) -> None:
        super().__init__()
        if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(strides)):
            raise ModelError(
                f"neck 'fpn' wants maps whose strides double, such as 4, 8, 16, 32, but the backbone gives {strides}. "
                "Use neck=simple_pyramid for equal strides, or choose others by backbone.out_indices."
            )
        wanted = _levels("fpn", levels, strides)
        self.start = strides.index(wanted[0])
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, kernel_size=1) for c in in_channels[self.start :])
        smooth = _smooth if norm else _plain
        self.out = nn.ModuleDict({str(stride): smooth(channels) for stride in wanted})
        self.pool = pool
        self.strides = [*wanted, 2 * wanted[-1]] if pool else wanted
        self.channels = [channels] * len(self.strides)
        self.inner_strides = strides[self.start :]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """(B, C_i, H_i, W_i) maps to one (B, channels, H_j, W_j) a wanted level, finest first."""
        given: list[Tensor] = []
        above: Tensor | None = None
        for lateral, m, stride in zip(
            reversed(self.lateral), reversed(maps[self.start :]), reversed(self.inner_strides), strict=True
        ):
            here = lateral(m)
            if above is not None:
                here = here + F.interpolate(above, size=here.shape[-2:], mode="nearest")
            above = here
            if str(stride) in self.out:
                given.insert(0, self.out[str(stride)](here))
        return [*given, given[-1][..., ::2, ::2]] if self.pool else given


class SimplePyramid(Neck):
    """A pyramid out of the last of a ViT's maps, which all have one stride s: strides s/4, s/2, s and 2s.

    Args:
        in_channels: of the backbone's maps.
        strides: of the backbone's maps, all equal.
        channels: of every returned map.
        levels: strides of the returned maps; None is all four.

    Source: Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection" (ViTDet), 2022; batch
    normalisation takes the place of the paper's layer normalisation.
    """

    def __init__(
        self, in_channels: list[int], strides: list[int], channels: int = 128, levels: list[int] | None = None
    ) -> None:
        super().__init__()
        if len(set(strides)) != 1 or strides[0] % 4:
            raise ModelError(
                f"neck 'simple_pyramid' wants equal strides divisible by 4, such as a ViT's 16, 16, 16, "
                f"but the backbone gives {strides}. Use neck=fpn for a pyramid."
            )
        width, stride = in_channels[-1], strides[0]

        def doubled(before: int, after: int) -> nn.Module:
            return nn.ConvTranspose2d(before, after, kernel_size=2, stride=2)

        half, quarter = width // 2, width // 4
        resize = {
            stride // 4: (
                nn.Sequential(doubled(width, half), nn.BatchNorm2d(half), nn.GELU(), doubled(half, quarter)),
                quarter,
            ),
            stride // 2: (doubled(width, half), half),
            stride: (nn.Identity(), width),
            stride * 2: (nn.MaxPool2d(kernel_size=2, stride=2), width),
        }
        self.strides = _levels("simple_pyramid", levels, list(resize))
        self.channels = [channels] * len(self.strides)
        self.branches = nn.ModuleList(
            nn.Sequential(
                resize[s][0],
                nn.Conv2d(resize[s][1], channels, kernel_size=1, bias=False),
                nn.BatchNorm2d(channels),
                _smooth(channels),
            )
            for s in self.strides
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """(B, C_i, H, W) maps of one stride to one (B, channels, H_j, W_j) a wanted level, finest first."""
        return [branch(maps[-1]) for branch in self.branches]


def _smooth(channels: int) -> nn.Sequential:
    """A 3x3 convolution that smooths the blocks of nearest-neighbour upsampling."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def _plain(channels: int) -> nn.Conv2d:
    """A 3x3 convolution, initialised as in torchvision's pyramid."""
    convolution = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    nn.init.zeros_(cast(Tensor, convolution.bias))
    return convolution


def _levels(neck: str, wanted: list[int] | None, possible: list[int]) -> list[int]:
    """The strides of the returned maps, finest first."""
    if wanted is None:
        return list(possible)
    if not wanted or not set(wanted) <= set(possible):
        raise ModelError(
            f"neck '{neck}' is configured for maps of strides {list(wanted)}, but here it can return {possible}. "
            "Set neck.levels to some of these, or to null for all."
        )
    return sorted(set(wanted))
