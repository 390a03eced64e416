"""Batch normalisation that keeps its statistics, scales and offsets, computed within the convolution before it.

A frozen norm multiplies each channel by a constant and adds one. The convolution that feeds it does the same if its weights are
multiplied and its offset is set, so that no further pass over the maps is needed, neither forward nor backward.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import Conv2dSame, FrozenBatchNormAct2d, freeze_batch_norm_2d, pad_same
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

FROZEN = (FrozenBatchNorm2d, FrozenBatchNormAct2d)
CONVOLUTIONS = (nn.Conv2d, Conv2dSame)


class FoldedNorm(FrozenBatchNormAct2d):
    """What is left of a norm behind the convolution that computes it: its constants, and its activation."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    eps: float

    def __init__(self, norm: nn.Module) -> None:
        super().__init__(len(norm.weight), norm.eps)  # type: ignore[arg-type]
        self.load_state_dict(norm.state_dict())
        self.drop, self.act = getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())

    def constants(self) -> tuple[Tensor, Tensor]:
        """(C,) factors and (C,) offsets of the channels."""
        factor = self.weight * (self.running_var + self.eps).rsqrt()
        return factor, self.bias - self.running_mean * factor

    def forward(self, x: Tensor) -> Tensor:
        """The activation of maps that the convolution has normalised."""
        return self.act(self.drop(x))


class FoldedConv2d(nn.Conv2d):
    """A convolution without an offset of its own that computes the norm behind it; its weights are those without the norm."""

    def __init__(self, conv: nn.Conv2d, norm: FoldedNorm) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            bias=False,
        )
        self.weight = conv.weight
        self.same = isinstance(conv, Conv2dSame)
        self.norm = (norm,)  # a tuple, so that the norm stays registered under its own name alone

    def forward(self, x: Tensor) -> Tensor:
        """Normalised maps."""
        factor, offset = self.norm[0].constants()
        if self.same:
            x = pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation))
        weight = self.weight * factor[:, None, None, None]
        return F.conv2d(x, weight, offset, self.stride, self.padding, self.dilation, self.groups)


def freeze_norms(net: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Freeze all batch normalisations of a network, and fold those that follow a convolution into it.

    Names and values of the state stay, except that frozen norms don't count batches.

    Args:
        net: a network for (B, 3, H, W) images that gives a list of features; it may be changed.
        size: (width, height) of images that it accepts.
    """
    net = freeze_batch_norm_2d(net)
    names = {module: name for name, module in net.named_modules()}
    norms = [module for module in names if isinstance(module, FROZEN)]
    if not norms:
        return net
    # outputs are kept, so that no other one has the same identity; an activation in place changes their version
    made_by: list[tuple[Tensor, int, nn.Conv2d]] = []
    pairs: list[tuple[nn.Conv2d, nn.Module]] = []

    def made(module: nn.Module, _: Any, output: Tensor) -> None:
        made_by.append((output, output._version, module))  # type: ignore[arg-type]

    def read(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        pairs.extend((conv, module) for output, version, conv in made_by if output is x and version == x._version)

    hooks = [m.register_forward_hook(made) for m in names if type(m) in CONVOLUTIONS and m.bias is None]
    hooks += [m.register_forward_pre_hook(read) for m in norms]
    training = net.training
    with torch.no_grad():
        features = net.eval()(torch.zeros(1, 3, size[1], size[0]))
    net.train(training)
    for hook in hooks:
        hook.remove()
    # the output of a convolution may be a feature itself, e.g. of GhostNet's stem
    given = [conv for output, _, conv in made_by if any(output is feature for feature in features)]
    pairs = [(conv, norm) for conv, norm in pairs if conv not in given]
    convs, followers = [c for c, _ in pairs], [n for _, n in pairs]
    for conv, norm in pairs:
        if convs.count(conv) == 1 and followers.count(norm) == 1:
            folded = FoldedNorm(norm)
            net.set_submodule(names[norm], folded)
            net.set_submodule(names[conv], FoldedConv2d(conv, folded))
    return net
