"""The backbone of YOLOv8: cross-stage partial blocks, in five sizes.

Source: Jocher et al., YOLOv8, 2023 (widths, depths and norms); Wang et al., "CSPNet", 2020; He et al., "Spatial Pyramid
Pooling", 2014.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kplab.errors import ModelError
from kplab.models.backbone import load_weights

#: scale: (factor on repeats, factor on widths, largest width before it)
SCALES = {
    "n": (0.33, 0.25, 1024),
    "s": (0.33, 0.50, 1024),
    "m": (0.67, 0.75, 768),
    "l": (1.0, 1.0, 512),
    "x": (1.0, 1.25, 512),
}
WIDTHS = [64, 128, 256, 512, 1024]
REPEATS = [0, 3, 6, 6, 3]


class Conv(nn.Sequential):
    """Convolution, batch normalisation, SiLU; the side of the map is divided by the step.

    Args:
        before: channels in.
        after: channels out.
        kernel: side, odd.
        step: stride.
    """

    def __init__(self, before: int, after: int, kernel: int = 1, step: int = 1) -> None:
        super().__init__(
            nn.Conv2d(before, after, kernel, step, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(after, eps=1e-3, momentum=0.03),
            nn.SiLU(inplace=True),
        )


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, with or without a shortcut."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.body = nn.Sequential(Conv(channels, channels, 3), Conv(channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return x + self.body(x) if self.shortcut else self.body(x)


class C2f(nn.Module):
    """A chain of bottlenecks on half of the channels; the outputs of all of them are concatenated.

    Args:
        before: channels in.
        after: channels out.
        repeats: bottlenecks.
        shortcut: whether each adds its input.
    """

    def __init__(self, before: int, after: int, repeats: int, shortcut: bool) -> None:
        super().__init__()
        half = after // 2
        self.split = Conv(before, 2 * half)
        self.chain = nn.ModuleList(Bottleneck(half, shortcut) for _ in range(repeats))
        self.join = Conv((2 + repeats) * half, after)

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) to (B, after, H, W)."""
        parts = list(self.split(x).chunk(2, dim=1))
        for link in self.chain:
            parts.append(link(parts[-1]))
        return self.join(torch.cat(parts, dim=1))


class SPPF(nn.Module):
    """The map concatenated with its maxima over 5, 9 and 13 cells."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = Conv(channels, channels // 2)
        self.pool = nn.MaxPool2d(kernel_size=5, stride=1, padding=2)
        self.join = Conv(channels // 2 * 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        parts = [self.narrow(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.join(torch.cat(parts, dim=1))


class CSP(nn.Module):
    """The backbone of YOLOv8, with the attributes of ``kplab.models.backbone.Backbone``.

    Args:
        scale: n, s, m, l or x.
        pretrained: must be false, since no weights are published.
        out_indices: indices of the returned maps: 1 to 4 for strides 4, 8, 16 and 32. Stages after the last one are not built.
        checkpoint: local file of weights, of an earlier kplab run.
        size: (width, height) of the views; any multiple of the largest stride.

    Attributes:
        channels, strides, stride_multiple, mean, std, started_from: as of ``Backbone``; images are only scaled to [0, 1].

    Raises:
        ModelError: an option is wrong, or the checkpoint doesn't fit.
    """

    def __init__(
        self,
        scale: str = "n",
        pretrained: bool = False,
        out_indices: Sequence[int] = (2, 3, 4),
        checkpoint: str | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if scale not in SCALES:
            raise ModelError(f"backbone 'csp' has scales {', '.join(SCALES)}, but got '{scale}'.")
        wanted = sorted(set(out_indices))
        if not wanted or not set(wanted) <= {1, 2, 3, 4}:
            raise ModelError(
                f"backbone 'csp' has maps 1 to 4, of strides 4, 8, 16 and 32, but got out_indices {wanted}."
            )
        self.name = f"csp_{scale}"
        if pretrained:
            raise ModelError(
                f"backbone '{self.name}' is configured with published weights (pretrained: true), but there are none for it. "
                "Use backbone.pretrained=false, and backbone.checkpoint=FILE to start from weights that kplab trained."
            )
        depth, width, most = SCALES[scale]
        widths = [math.ceil(min(c, most) * width / 8) * 8 for c in WIDTHS[: wanted[-1] + 1]]
        stages: list[nn.Module] = []
        for i, (before, after) in enumerate(zip([3, *widths], widths, strict=False)):
            blocks: list[nn.Module] = [Conv(before, after, kernel=3, step=2)]
            if REPEATS[i]:
                blocks.append(C2f(after, after, max(round(REPEATS[i] * depth), 1), shortcut=True))
            if i == len(WIDTHS) - 1:
                blocks.append(SPPF(after))
            stages.append(nn.Sequential(*blocks))
        self.net = nn.Sequential(*stages)
        self.out_indices = wanted
        self.channels = [widths[i] for i in wanted]
        self.strides = [2 ** (i + 1) for i in wanted]
        self.stride_multiple = max(self.strides)
        self.mean, self.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        self.started_from = load_weights(self.net, self.name, Path(checkpoint)) if checkpoint else None

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) images in [0, 1] to one (B, C_i, H / stride_i, W / stride_i) per map, finest first."""
        maps = []
        x = images
        for i, stage in enumerate(self.net):
            x = stage(x)
            if i in self.out_indices:
                maps.append(x)
        return maps
