"""The path aggregation neck on any pyramid."""

from __future__ import annotations

import pytest
import torch

from kplab.errors import ModelError
from kplab.models.backbone import Backbone
from kplab.models.pan import PAN


def maps(strides: list[int], channels: list[int], size: tuple[int, int] = (96, 64)) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, c, size[1] // s, size[0] // s, generator=random).requires_grad_()
        for c, s in zip(channels, strides, strict=True)
    ]


def test_walk_by_hand() -> None:
    torch.manual_seed(0)
    neck = PAN([8, 12, 16], [8, 16, 32]).eval()
    fine, middle, coarse = maps([8, 16, 32], [8, 12, 16])

    def double(m: torch.Tensor) -> torch.Tensor:
        return m.repeat_interleave(2, -1).repeat_interleave(2, -2)

    down = neck.down[1](torch.cat([double(coarse), middle], dim=1))
    first = neck.down[0](torch.cat([double(down), fine], dim=1))
    second = neck.up[0](torch.cat([neck.shrink[0](first), down], dim=1))
    third = neck.up[1](torch.cat([neck.shrink[1](second), coarse], dim=1))
    for ours, wanted in zip(neck([fine, middle, coarse]), (first, second, third), strict=True):
        assert torch.equal(ours, wanted)


@pytest.mark.parametrize("channels", [None, 10])
@pytest.mark.parametrize("levels", [None, [8, 16], [32, 16, 8]])
def test_every_map_given_depends_on_every_map_used(channels: int | None, levels: list[int] | None) -> None:
    strides, widths = [4, 8, 16, 32], [6, 8, 12, 16]
    neck = PAN(widths, strides, channels=channels, levels=levels)
    used = sorted(levels or strides)
    assert neck.strides == used
    assert neck.channels == ([widths[strides.index(s)] for s in used] if channels is None else [10] * len(used))
    given = maps(strides, widths)
    out = neck(given)
    assert [tuple(m.shape[1:]) for m in out] == [
        (c, 64 // s, 96 // s) for c, s in zip(neck.channels, used, strict=True)
    ]
    for m in out:
        gradients = torch.autograd.grad(m.square().sum(), given, retain_graph=True, allow_unused=True)
        assert [g is not None and bool((g != 0).any()) for g in gradients] == [s in used for s in strides]


def test_it_stands_on_timms_networks() -> None:
    backbone = Backbone("resnet18", pretrained=False, out_indices=[1, 2, 3, 4])
    neck = PAN(backbone.channels, backbone.strides, levels=[8, 16, 32])
    with torch.no_grad():
        out = neck(backbone(torch.zeros(1, 3, 64, 64)))
    assert [m.shape[-1] for m in out] == [8, 4, 2]


@pytest.mark.parametrize(
    ("strides", "levels"),
    [([16, 16, 16], None), ([8, 32], None), ([32], None), ([4, 8, 16], [8, 16, 32]), ([4, 8, 16, 32], [4, 16])],
)
def test_what_is_no_pyramid_is_refused(strides: list[int], levels: list[int] | None) -> None:
    with pytest.raises(ModelError, match="strides double"):
        PAN([8] * len(strides), strides, levels=levels)
