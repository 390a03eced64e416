"""The stages of OpenPose, which refine confidence maps and part affinity fields, in both published layouts."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class JointStages(nn.Module):
    """Both branches in each stage; each branch reads the outputs of both branches of the stage before (CVPR 2017).

    Stage 1: three 3x3 convolutions, a 1x1 to four times the width, and the output. Later: five 7x7, a 1x1, the output.

    Args:
        features: channels of the shared features F.
        width: of the stages; 128 is published.
        fields: channels of the fields.
        maps: channels of the confidence maps; the last is the background.
        stages: number of stages; 6 is published.
        norm: batch normalisation after each hidden convolution; the published network has none.
    """

    def __init__(self, features: int, width: int, fields: int, maps: int, stages: int, norm: bool) -> None:
        super().__init__()

        def branch(stage: int, outputs: int) -> nn.Sequential:
            if stage == 0:
                kernels, before, middle = [3] * 3, features, 4 * width
            else:
                kernels, before, middle = [7] * 5, features + fields + maps, width
            layers = [conv(before if i == 0 else width, width, k, norm, nn.ReLU) for i, k in enumerate(kernels)]
            return nn.Sequential(*layers, conv(width, middle, 1, norm, nn.ReLU), last(middle, outputs))

        self.paf = nn.ModuleList(branch(s, fields) for s in range(stages))
        self.heat = nn.ModuleList(branch(s, maps) for s in range(stages))
        for stage in self.heat:
            _start_at_background(cast(nn.Sequential, stage))

    def forward(self, features: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(B, F, h, w) to the fields and the maps of every stage."""
        fields: list[Tensor] = []
        maps: list[Tensor] = []
        for paf, heat in zip(self.paf, self.heat, strict=True):
            inputs = torch.cat([features, fields[-1], maps[-1]], 1) if fields else features
            fields.append(paf(inputs))
            maps.append(heat(inputs))
        return fields, maps


class PafFirstStages(nn.Module):
    """Stages of fields, then stages of maps that read the last fields (TPAMI 2019, the BODY_25 network).

    Each stage: five blocks of three 3x3 convolutions whose outputs are concatenated, a 1x1, and the output; PReLU. The
    first stage of either kind has 3/4 of the width, and half the channels before its output.

    Args:
        features: channels of the shared features F.
        width: of the stages; 128 is published.
        fields: channels of the fields.
        maps: channels of the confidence maps; the last is the background.
        stages: numbers of stages of fields and of maps; (4, 2) is published.
        norm: batch normalisation after each hidden convolution; the published network has none.
    """

    def __init__(self, features: int, width: int, fields: int, maps: int, stages: tuple[int, int], norm: bool) -> None:
        super().__init__()

        def stage(first: bool, before: int, outputs: int) -> nn.Sequential:
            inner, middle = (width * 3 // 4, 2 * width) if first else (width, 4 * width)
            blocks = [DenseBlock(before if i == 0 else 3 * inner, inner, norm) for i in range(5)]
            return nn.Sequential(*blocks, conv(3 * inner, middle, 1, norm, nn.PReLU), last(middle, outputs))

        self.paf = nn.ModuleList(stage(s == 0, features + (fields if s else 0), fields) for s in range(stages[0]))
        self.heat = nn.ModuleList(stage(s == 0, features + fields + (maps if s else 0), maps) for s in range(stages[1]))
        for part in self.heat:
            _start_at_background(cast(nn.Sequential, part))

    def forward(self, features: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(B, F, h, w) to the fields and the maps of every stage."""
        fields: list[Tensor] = []
        maps: list[Tensor] = []
        for paf in self.paf:
            fields.append(paf(torch.cat([features, *fields[-1:]], 1)))
        for heat in self.heat:
            maps.append(heat(torch.cat([features, *maps[-1:], fields[-1]], 1)))
        return fields, maps


class DenseBlock(nn.Module):
    """Three 3x3 convolutions in a row: the outputs of all, concatenated."""

    def __init__(self, before: int, width: int, norm: bool) -> None:
        super().__init__()
        self.steps = nn.ModuleList(conv(before if i == 0 else width, width, 3, norm, nn.PReLU) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, h, w) to (B, 3 width, h, w)."""
        outputs = []
        for step in self.steps:
            x = step(x)
            outputs.append(x)
        return torch.cat(outputs, 1)


def conv(before: int, after: int, kernel: int, norm: bool, activation: type[nn.ReLU] | type[nn.PReLU]) -> nn.Sequential:
    """A convolution that keeps the size, with normalisation and activation."""
    layer = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=not norm)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    steps: list[nn.Module] = [nn.BatchNorm2d(after)] if norm else []
    return nn.Sequential(layer, *steps, nn.PReLU(after) if activation is nn.PReLU else nn.ReLU(inplace=True))


def last(before: int, outputs: int) -> nn.Conv2d:
    """A 1x1 convolution whose initial outputs are nearly 0."""
    layer = nn.Conv2d(before, outputs, kernel_size=1)
    nn.init.normal_(layer.weight, std=0.001)
    nn.init.zeros_(cast(Tensor, layer.bias))
    return layer


def _start_at_background(stage: nn.Sequential) -> None:
    """Initialise the maps as background, which the first steps would otherwise have to learn."""
    with torch.no_grad():
        cast(Tensor, stage[-1].bias)[-1] = 1.0
