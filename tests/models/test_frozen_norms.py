"""Frozen norms within convolutions: equal to timm's frozen norms behind them."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.layers import freeze_batch_norm_2d

from kplab.models.frozen_norms import FoldedConv2d, freeze_norms


@pytest.mark.parametrize(
    ("name", "all_folded"),
    [
        ("resnet18", True),
        ("tf_efficientnet_lite0", True),  # TensorFlow's padding
        ("mobilenetv3_small_050", True),
        ("regnetx_002", True),
        ("hrnet_w18_small", True),
        ("dla34", True),
        ("ghostnet_050", False),  # the first feature is the output of a convolution
        ("densenet121", False),  # norms in front of convolutions, of concatenated maps
    ],
)
def test_folded_norms_equal_those_of_timm(name: str, all_folded: bool) -> None:
    """Maps, gradients of the weights, and the state, in training mode."""
    torch.manual_seed(0)
    net = timm.create_model(name, features_only=True).train()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.3)
    theirs, ours = freeze_batch_norm_2d(copy.deepcopy(net)), freeze_norms(net, (64, 64))
    assert ours.training
    assert any(isinstance(m, FoldedConv2d) for m in ours.modules())
    assert all(type(m) is not torch.nn.Conv2d for m in ours.modules() if all_folded and getattr(m, "bias", 0) is None)
    state, expected = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[k], expected[k]) for k in state)
    theirs.double(), ours.double()
    images = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    for module in [*ours.modules(), *theirs.modules()]:
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    maps, wanted = ours(images), theirs(images)
    for a, b in zip(maps, wanted, strict=True):
        torch.testing.assert_close(a, b)
    for m in (maps, wanted):
        sum((v**2).mean() for v in m).backward()
    for (k, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=lambda text, k=k: f"{k}: {text}")
    copied = copy.deepcopy(ours)
    with torch.no_grad():
        for p in copied.parameters():
            p.mul_(2)
        for b in copied.buffers():
            b.mul_(2)
    assert all(torch.equal(a, b) for a, b in zip(ours(images), maps, strict=True))


def test_a_norm_behind_an_activation_in_place_stays() -> None:
    """The activation's output is the convolution's own tensor, but no longer its values."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.ReLU(inplace=True), torch.nn.BatchNorm2d(4)
    )
    with torch.no_grad():
        net[2].running_mean.normal_()
        net[2].bias.normal_()
    images = torch.randn(1, 3, 8, 8)
    wanted = copy.deepcopy(net).eval()(images)
    torch.testing.assert_close(freeze_norms(net, (8, 8))(images), wanted)
