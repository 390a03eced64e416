"""Necks against torchvision, published sizes, and light thrown on one cell."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from kplab.errors import ModelError
from kplab.models.backbone import Backbone
from kplab.models.necks import FPN, Neck, Select, SimplePyramid, Upsample
from kplab.tasks import compose

STRIDES = [4, 8, 16, 32]
CHANNELS = [8, 12, 16, 24]


def pyramid(strides: list[int] = STRIDES, channels: list[int] = CHANNELS, views: int = 1) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(views, c, 128 // s, 192 // s, generator=random) for c, s in zip(channels, strides, strict=True)]


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())


def test_fpn_is_torchvisions() -> None:
    """With the same weights; ours adds a fresh batch normalisation, in eval a division by sqrt(1 + eps), and a ReLU."""
    torch.manual_seed(0)
    neck = FPN(CHANNELS, STRIDES, channels=10).eval()
    reference = FeaturePyramidNetwork(CHANNELS, 10)
    with torch.no_grad():
        for i, stride in enumerate(STRIDES):
            reference.inner_blocks[i][0].load_state_dict(neck.lateral[i].state_dict())
            reference.layer_blocks[i][0].weight.copy_(neck.out[str(stride)][0].weight)
            reference.layer_blocks[i][0].bias.zero_()
    maps = pyramid()
    wanted = reference({str(i): m for i, m in enumerate(maps)}).values()
    for ours, theirs in zip(neck(maps), wanted, strict=True):
        assert torch.allclose(ours, (theirs / (1 + 1e-5) ** 0.5).relu(), atol=1e-5)


def test_published_fpn_is_torchvisions_whole() -> None:
    """No norm, and every other cell of the coarsest map above it."""
    torch.manual_seed(0)
    neck = FPN(CHANNELS, STRIDES, channels=10, norm=False, pool=True)
    assert neck.strides == [4, 8, 16, 32, 64]
    reference = FeaturePyramidNetwork(CHANNELS, 10, LastLevelMaxPool())
    for i, stride in enumerate(STRIDES):
        reference.inner_blocks[i][0].load_state_dict(neck.lateral[i].state_dict())
        reference.layer_blocks[i][0].load_state_dict(neck.out[str(stride)].state_dict())
    maps = [m[..., :-1, :] if i == 3 else m for i, m in enumerate(pyramid())]  # an odd number of rows
    wanted = reference({str(i): m for i, m in enumerate(maps)}).values()
    for ours, theirs in zip(neck(maps), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
    bound = (3 / (10 * 9)) ** 0.5  # kaiming_uniform_ with a = 1
    assert bound * 0.9 < float(neck.out["4"].weight.abs().max()) <= bound


def test_fpn_gives_and_builds_only_the_levels_asked_for() -> None:
    torch.manual_seed(0)
    whole = FPN(CHANNELS, STRIDES, channels=10).eval()
    some = FPN(CHANNELS, STRIDES, channels=10, levels=[32, 8]).eval()
    assert some.strides == [8, 32]
    for i, stride in enumerate(STRIDES[1:]):
        some.lateral[i].load_state_dict(whole.lateral[i + 1].state_dict())
        if stride in some.strides:
            some.out[str(stride)].load_state_dict(whole.out[str(stride)].state_dict())
    full = whole(pyramid())
    given = some(pyramid())
    assert torch.equal(given[0], full[1])
    assert torch.equal(given[1], full[3])
    torch.stack([m.sum() for m in given]).sum().backward()
    assert all(p.grad is not None for p in some.parameters())


@pytest.mark.parametrize(
    ("neck", "strides", "channels"),
    [
        (FPN(CHANNELS, STRIDES, 10), STRIDES, CHANNELS),
        (FPN(CHANNELS, STRIDES, 10, [4]), STRIDES, CHANNELS),
        (Upsample(CHANNELS, STRIDES, layers=3, channels=10), STRIDES, CHANNELS),
        (Upsample([16] * 3, [16] * 3, layers=2, channels=10), [16] * 3, [16] * 3),
        (SimplePyramid([16] * 3, [16] * 3, 10), [16] * 3, [16] * 3),
        (SimplePyramid([16] * 3, [16] * 3, 10, [4, 32]), [16] * 3, [16] * 3),
        (Select(CHANNELS, STRIDES, 1), STRIDES, CHANNELS),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Neck) else "",
)
def test_what_lies_in_one_place_comes_out_there(neck: Neck, strides: list[int], channels: list[int]) -> None:
    """Change the maps over one 32 px square: each output changes there, and nowhere beyond its kernels' reach."""
    neck = neck.eval()
    dark = pyramid(strides, channels)
    lit = [m.clone() for m in dark]
    for m, stride in zip(lit, strides, strict=True):
        m[..., 64 // stride : 96 // stride, 96 // stride : 128 // stride] += 5
    for before, after, stride, width in zip(neck(dark), neck(lit), neck.strides, neck.channels, strict=True):
        assert before.shape == (1, width, 128 // stride, 192 // stride)
        rows, columns = torch.nonzero((before != after).any(1)[0], as_tuple=True)
        for found, start in ((rows, 64), (columns, 96)):
            middle = float(found.min() + found.max() + 1) / 2 * stride
            # one-sided reach: a 3x3 convolution here, three transposed 4x4 convolutions there
            assert abs(middle - (start + 16)) <= stride
            assert float(found.max() - found.min() + 1) * stride <= 32 + 2 * 32 + 2 * stride


def test_deconvolutions_make_the_published_simple_baseline() -> None:
    """ResNet-50 with three deconvolutions and a 1x1 convolution to 17 maps has 34.0 M parameters."""
    backbone = Backbone("resnet50", False, [1, 2, 3, 4])
    neck = Upsample(backbone.channels, backbone.strides)
    assert neck.strides == [4]
    total = parameters(backbone, neck, nn.Conv2d(neck.channels[0], 17, 1))
    assert total / 1e6 == pytest.approx(34.0, abs=0.05)
    spread = [m.weight.std().item() for m in neck.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert spread == pytest.approx([0.001] * 3, rel=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FPN([384] * 3, [16] * 3), r"gives \[16, 16, 16\]. Use neck=simple_pyramid"),
        (lambda: FPN([8, 8], [4, 16]), r"strides double.*gives \[4, 16\]"),
        (lambda: FPN(CHANNELS, STRIDES, levels=[64]), r"maps of strides \[64\].*it can return \[4, 8, 16, 32\]"),
        (lambda: SimplePyramid(CHANNELS, STRIDES), r"gives \[4, 8, 16, 32\]. Use neck=fpn"),
        (lambda: SimplePyramid([384], [16], levels=[2]), r"it can return \[4, 8, 16, 32\]"),
        (lambda: Upsample([384], [14], layers=2), r"2 doublings of a map of stride 14.*neck.layers"),
        (lambda: Select([8], [4], level=1), r"map 1, but the backbone gives 1"),
    ],
)
def test_strides_that_a_neck_cannot_use_are_refused(make: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make()  # type: ignore[operator]


def test_every_preset_builds() -> None:
    from hydra.utils import instantiate

    folder = Path(__file__).resolve().parents[2] / "conf" / "neck"
    for file in sorted(folder.glob("*.yaml")):
        strides = [16] * 3 if file.stem == "simple_pyramid" else STRIDES
        neck = instantiate(compose("train", [f"neck={file.stem}"]).neck, _convert_="all")(
            in_channels=[16] * len(strides), strides=strides
        )
        maps = neck(pyramid(strides, [16] * len(strides), views=2))
        assert [(m.shape[1], 128 // m.shape[2]) for m in maps] == list(zip(neck.channels, neck.strides, strict=True))
