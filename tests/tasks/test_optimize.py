"""Optimizers and schedules against values computed by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from kplab.errors import ConfigError
from kplab.models.backbone import Backbone
from kplab.tasks.training.optimize import adamw_cosine, sgd_linear, sgd_steps


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def test_sgd_linear_is_yolos_recipe() -> None:
    """Only kernels decay; rates and momentum at the start, in the warm-up, at its end, and at the end of training."""
    net = model()
    optimizer, schedule = sgd_linear(net, 1000, lr=0.01, momentum=0.937, weight_decay=5e-4, warmup=0.1, final=0.01)
    shapes = [[tuple(p.shape) for p in g["params"]] for g in optimizer.param_groups]
    assert shapes == [[(4, 3, 3, 3), (2, 4, 1, 1)], [(4,)], [(4,), (4,), (2,)]]
    assert optimizer.param_groups[1]["params"][0] is net[1].weight
    assert [g["weight_decay"] for g in optimizer.param_groups] == [5e-4, 0, 0]
    assert all(g["nesterov"] for g in optimizer.param_groups)
    seen = []
    for _ in range(1001):
        seen.append([(g["lr"], g["momentum"]) for g in optimizer.param_groups])
        optimizer.step()
        schedule.step()

    def falling(step: int) -> float:
        return 0.01 * (1 - 0.99 * step / 1000)

    for step, kernels, biases, momentum in (
        (0, 0.0, 0.1, 0.8),
        (50, falling(50) / 2, (0.1 + falling(50)) / 2, 0.8685),
        (100, falling(100), falling(100), 0.937),
        (600, falling(600), falling(600), 0.937),
        (1000, 1e-4, 1e-4, 0.937),
    ):
        assert [s[0] for s in seen[step]] == pytest.approx([kernels, kernels, biases], abs=1e-12)
        assert [s[1] for s in seen[step]] == pytest.approx([momentum] * 3, abs=1e-12)


def test_sgd_steps_is_torchvisions_recipe() -> None:
    """340 steps of 46 epochs: the rate at the start, in the warm-up, at its end, and after each drop; all weights decay."""
    net = model()
    net[0].requires_grad_(False)
    optimizer, schedule = sgd_steps(net, 46_000, lr=0.02, warmup=1 / 46)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == 4
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 1e-4, False)
    rate = schedule.lr_lambdas[0]
    for step, factor in (
        (0, 0.001),
        (500, 0.5005),
        (1000, 1),
        (35_999, 1),
        (36_000, 0.1),
        (43_000, 0.01),
        (46_000, 0.01),
    ):
        assert rate(step) == pytest.approx(factor, rel=1e-9)
    assert group["lr"] == pytest.approx(0.02 * 0.001)


def test_a_resumed_sgd_linear_continues_exactly() -> None:
    straight, first, second = (sgd_linear(model(), 100, warmup=0.2) for _ in range(3))
    for optimizer, schedule in (straight, first):
        for _ in range(10):
            optimizer.step()
            schedule.step()
    second[0].load_state_dict(first[0].state_dict())
    second[1].load_state_dict(first[1].state_dict())
    for optimizer, schedule in (straight, second):
        for _ in range(3):
            optimizer.step()
            schedule.step()
    for a, b in zip(straight[0].param_groups, second[0].param_groups, strict=True):
        assert (a["lr"], a["momentum"]) == (b["lr"], b["momentum"])


def test_sgd_linear_solves_a_linear_regression() -> None:
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    x = torch.randn(64, 3)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3
    optimizer, schedule = sgd_linear(net, 300, lr=0.02, warmup=0.1)
    for _ in range(300):
        loss = ((net(x) - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert float(loss.detach()) < 1e-4


def test_parts_of_a_model_have_rates_of_their_own() -> None:
    net = nn.ModuleDict({"detector": model(), "subject": nn.ModuleDict({"transformer": model(), "neck": model()})})
    optimizer, schedule = adamw_cosine(net, 100, lr=1e-2, warmup=0.1, rates={"transformer": 0.1, "subject": 0.5})
    rate = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert len(rate) == len(list(net.parameters()))

    def rates(part: nn.Module) -> set[float]:
        return {round(rate[id(p)], 12) for p in part.parameters()}

    # at the first of ten steps of warm-up
    assert [rates(p) for p in (net["detector"], net["subject"]["transformer"], net["subject"]["neck"])] == [
        {1e-3},
        {1e-4},
        {5e-4},
    ]
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert all((decays[id(p)] > 0) == (p.ndim > 1) for p in net.parameters())
    for _ in range(10):
        optimizer.step()
        schedule.step()
    assert sorted({round(g["lr"], 12) for g in optimizer.param_groups}) == [1e-3, 5e-3, 1e-2]
    with pytest.raises(ValueError, match="names decoder, but the model has no such part"):
        adamw_cosine(net, 100, rates={"decoder": 0.1})


def test_frozen_parts_keep_their_weights_to_the_bit_and_then_learn() -> None:
    """Also with weight decay, and after a resume in the middle of the frozen steps."""
    torch.manual_seed(0)
    images = torch.randn(4, 3, 8, 8)

    def made() -> tuple[nn.ModuleDict, torch.optim.Optimizer, Any]:
        torch.manual_seed(1)
        net = nn.ModuleDict({"backbone": nn.Conv2d(3, 4, 3), "head": nn.Conv2d(4, 1, 1)})
        return net, *adamw_cosine(net, 10, lr=0.1, weight_decay=0.5, warmup=0.1, frozen_until={"backbone": 0.3})

    def step(net: nn.ModuleDict, optimizer: torch.optim.Optimizer, schedule: Any) -> torch.Tensor:
        optimizer.zero_grad()
        net["head"](net["backbone"](images)).square().mean().backward()
        optimizer.step()
        schedule.step()
        return net["backbone"].weight.detach().clone()

    straight = made()
    start, head = straight[0]["backbone"].weight.detach().clone(), straight[0]["head"].weight.detach().clone()
    seen = [step(*straight) for _ in range(6)]
    assert [torch.equal(weights, start) for weights in seen] == [True, True, True, False, False, False]
    assert not torch.equal(straight[0]["head"].weight, head)

    first, second = made(), made()
    for _ in range(2):
        step(*first)
    for one, other in zip(second, first, strict=True):
        one.load_state_dict(other.state_dict())
    assert torch.equal([step(*second) for _ in range(4)][-1], seen[-1])
    for wrong, message in (({"tail": 0.1}, "frozen_until names tail"), ({"backbone": 2}, "backbone: 2, but fractions")):
        with pytest.raises(ConfigError, match=message):
            adamw_cosine(straight[0], 10, frozen_until=wrong)


def test_learning_rates_by_depth() -> None:
    """Names of timm's stages are parts of the model."""
    net = nn.ModuleDict({"backbone": Backbone("tf_efficientnet_lite0")})
    rates = {"backbone.net.blocks.0": 0.1, "backbone.net.blocks": 0.5}
    optimizer, _ = adamw_cosine(net, 10, lr=1.0, warmup=0, rates=rates)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    stages = net["backbone"].net
    assert [rate[id(next(part.parameters()))] for part in (stages.conv_stem, *stages.blocks)] == [1.0, 0.1, *[0.5] * 6]
