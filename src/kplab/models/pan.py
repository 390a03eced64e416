"""Path aggregation: a feature pyramid with a top-down and a bottom-up pass, as in YOLOv8."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kplab.errors import ModelError
from kplab.models.csp import C2f, Conv
from kplab.models.necks import Neck


class PAN(Neck):
    """Features are passed from coarse maps to fine ones, and from fine maps back to coarse ones.

    With the backbone ``csp`` and the repeats of its scale, this is the neck of YOLOv8.

    Args:
        in_channels: of the backbone's maps.
        strides: of the backbone's maps, finest first.
        channels: of every returned map; None is those of the backbone's maps, as in YOLOv8.
        repeats: bottlenecks of a block: 1 for YOLOv8 n and s, 2 for m, 3 for l and x.
        levels: strides of the maps that are read and returned, at least two, each twice the one before; None is all.

    Raises:
        ModelError: the backbone has no such maps.

    Source: Liu et al., "Path Aggregation Network for Instance Segmentation", 2018; Jocher et al., YOLOv8, 2023.
    """

    def __init__(
        self,
        in_channels: list[int],
        strides: list[int],
        channels: int | None = None,
        repeats: int = 1,
        levels: Sequence[int] | None = (8, 16, 32),
    ) -> None:
        super().__init__()
        wanted = sorted(set(strides if levels is None else levels))
        doubling = all(coarse == 2 * fine for fine, coarse in itertools.pairwise(wanted))
        if len(set(strides)) < len(strides) or len(wanted) < 2 or not doubling or not set(wanted) <= set(strides):
            raise ModelError(
                f"neck 'pan' wants two maps or more whose strides double, such as 8, 16, 32; asked for "
                f"{'all' if levels is None else list(levels)}, and the backbone gives {strides}. "
                "Set neck.levels or backbone.out_indices; for equal strides use neck=simple_pyramid."
            )
        self.chosen = [strides.index(stride) for stride in wanted]
        given = [in_channels[i] for i in self.chosen]
        self.strides = wanted
        self.channels = list(given) if channels is None else [channels] * len(wanted)
        # finest first; the coarsest map enters the top-down pass as the backbone returns it
        above = [*self.channels[1:-1], given[-1]]
        self.down = nn.ModuleList(
            C2f(here + coarse, out, repeats, shortcut=False)
            for here, coarse, out in zip(given, above, self.channels, strict=False)
        )
        self.shrink = nn.ModuleList(Conv(c, c, kernel=3, step=2) for c in self.channels[:-1])
        self.up = nn.ModuleList(
            C2f(fine + here, out, repeats, shortcut=False)
            for fine, here, out in zip(self.channels, above, self.channels[1:], strict=False)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """(B, C_i, H_i, W_i) maps to one (B, channels_j, H_j, W_j) per level, finest first."""
        inner = [maps[i] for i in self.chosen]
        for i in reversed(range(len(self.down))):
            coarse = F.interpolate(inner[i + 1], size=inner[i].shape[-2:], mode="nearest")
            inner[i] = self.down[i](torch.cat([coarse, inner[i]], dim=1))
        out = [inner[0]]
        for shrink, block, here in zip(self.shrink, self.up, inner[1:], strict=True):
            out.append(block(torch.cat([shrink(out[-1]), here], dim=1)))
        return out
