"""Optimisers with their learning-rate schedules; each function is a choice of conf/optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from kplab.errors import ConfigError


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    lr: float = 1.0,
    rates: Mapping[str, float] | None = None,
    frozen_until: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups with weight decay for matrices and kernels only, not for norms and biases.

    Parts of the model are named as in ``transformer``, ``detector.backbone`` or, by depth, ``backbone.net.blocks.0``; of
    several names that match a parameter, the first one counts.

    Args:
        lr: learning rate of parameters that ``rates`` does not name.
        rates: name of a part to a factor on ``lr``.
        frozen_until: name of a part to the fraction of the training up to which its weights are kept; a group has it as
            ``frozen_until``.

    Raises:
        ConfigError: the model has no part of that name, or a fraction is not between 0 and 1.
    """
    if wrong := [f"{part}: {until}" for part, until in (frozen_until or {}).items() if not 0 <= until <= 1]:
        raise ConfigError(f"optimizer.frozen_until has {', '.join(wrong)}, but fractions of a training are 0 to 1.")
    factors = by_parameter(model, "rates", rates or {}, 1.0)
    until = by_parameter(model, "frozen_until", frozen_until or {}, 0.0)
    groups: dict[tuple[float, float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((factors[name], decay, until[name]), []).append(parameter)
    return [
        {"params": parameters, "lr": lr * factor, "weight_decay": decay, "frozen_until": end}
        for (factor, decay, end), parameters in groups.items()
    ]


def by_parameter(model: nn.Module, option: str, parts: Mapping[str, float], default: float) -> dict[str, float]:
    """The value of every trained parameter, from values of parts of the model.

    Raises:
        ConfigError: the model has no part of a name.
    """
    used: set[str] = set()

    def value(name: str) -> float:
        for part in parts:
            if f".{part}." in f".{name}.":
                used.add(part)
                return parts[part]
        return default

    found = {name: value(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
    if unknown := sorted(set(parts) - used):
        raise ConfigError(
            f"optimizer.{option} names {', '.join(unknown)}, but the model has no such part. Its first ones: "
            f"{', '.join(name for name, _ in model.named_children())}."
        )
    return found


def adamw(
    groups: list[dict[str, Any]], steps: int, height: Callable[[int], float], **options: Any
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """AdamW and its schedule; frozen groups have a learning rate of 0, with which AdamW changes no bit of a weight.

    Args:
        groups: of ``parameter_groups``.
        steps: of the whole training.
        height: factor on the learning rate at a step.
        options: of AdamW.
    """
    ends = [group.pop("frozen_until") * steps for group in groups]
    optimizer = built(torch.optim.AdamW, groups, **options)

    def factor(step: int, end: float) -> float:
        return height(step) if step >= end else 0.0

    return optimizer, LambdaLR(optimizer, [partial(factor, end=end) for end in ends])


def built(kind: Callable[..., torch.optim.Optimizer], parameters: Any, **options: Any) -> torch.optim.Optimizer:
    """An optimiser of torch.

    Raises:
        ConfigError: torch refuses an option, such as a negative learning rate.
    """
    try:
        return kind(parameters, **options)
    except ValueError as error:
        raise ConfigError(f"optimizer: {error} (see conf/optimizer)") from None


def dropped(done: float, drops: tuple[float, ...], factor: float) -> float:
    """Factor on the learning rate after a fraction ``done`` of the training: ``factor`` for each drop before it."""
    return factor ** sum(done >= d for d in drops)


def adamw_cosine(
    model: nn.Module,
    steps: int,
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
    warmup: float = 0.05,
    final: float = 0.01,
    rates: Mapping[str, float] | None = None,
    frozen_until: Mapping[str, float] | None = None,
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """AdamW with a linear warm-up, then a cosine decay of the learning rate; stepped every batch.

    Args:
        steps: of the whole training.
        lr: peak learning rate.
        warmup: fraction of the steps with a rising learning rate.
        final: fraction of ``lr`` at the end.
        rates, frozen_until: of parts of the model, see ``parameter_groups``.
    """
    rising = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        progress = min(1.0, (step - rising) / max(1, steps - rising))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    groups = parameter_groups(model, weight_decay, lr, rates, frozen_until)
    return adamw(groups, steps, factor, lr=lr, betas=(betas[0], betas[1]))


def adamw_trapezoid(
    model: nn.Module,
    steps: int,
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
    warmup: int = 50,
    falling: float = 0.4,
    final: float = 0.01,
    rates: Mapping[str, float] | None = None,
    frozen_until: Mapping[str, float] | None = None,
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """AdamW with a linear warm-up, a constant learning rate, and a linear decay; stepped every batch.

    Up to the decay the schedule does not depend on the number of steps, as ``duration`` needs.

    Args:
        steps: of the whole training.
        lr: peak learning rate.
        warmup: steps with a rising learning rate.
        falling: fraction of the steps with a falling learning rate, at the end.
        final: fraction of ``lr`` at the end.
        rates, frozen_until: of parts of the model, see ``parameter_groups``.

    Source: Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", 2024.
    """
    decay = max(1.0, falling * steps)

    def factor(step: int) -> float:
        left = min(1.0, max(0.0, (steps - step) / decay))
        return min(1.0, (step + 1) / max(1, warmup)) * (final + (1 - final) * left)

    groups = parameter_groups(model, weight_decay, lr, rates, frozen_until)
    return adamw(groups, steps, factor, lr=lr, betas=(betas[0], betas[1]))


def adam_steps(
    model: nn.Module,
    steps: int,
    lr: float = 1e-3,
    drops: tuple[float, ...] = (90 / 140, 120 / 140),
    factor: float = 0.1,
    weight_decay: float = 0.0,
    rates: Mapping[str, float] | None = None,
    frozen_until: Mapping[str, float] | None = None,
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Adam (AdamW, with weight decay) whose learning rate is multiplied by ``factor`` at fractions of the training.

    The defaults are SimpleBaseline's: epochs 90 and 120 of 140. HRNet uses 170/210 and 200/210.
    """
    groups = parameter_groups(model, weight_decay, lr, rates, frozen_until)
    return adamw(groups, steps, lambda step: dropped(step / steps, drops, factor), lr=lr)


def sgd_steps(
    model: nn.Module,
    steps: int,
    lr: float = 0.02,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    warmup: float = 0.003,
    start: float = 0.001,
    drops: tuple[float, ...] = (36 / 46, 43 / 46),
    factor: float = 0.1,
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """SGD with momentum, a linear warm-up, and a learning rate multiplied by ``factor`` at fractions of the training.

    The defaults are torchvision's recipe for Keypoint R-CNN: 16 images a step, epochs 36 and 43 of 46. All weights decay.

    Args:
        steps: of the whole training.
        lr: peak learning rate.
        warmup: fraction of the steps with a rising learning rate; torchvision uses 1000 of 340,000.
        start: fraction of ``lr`` at the first step.

    Source: torchvision, references/detection.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = built(torch.optim.SGD, parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)
    rising = max(1, round(warmup * steps))

    def height(step: int) -> float:
        return (start + (1 - start) * min(1.0, step / rising)) * dropped(step / steps, drops, factor)

    return optimizer, LambdaLR(optimizer, height)


def sgd_linear(
    model: nn.Module,
    steps: int,
    lr: float = 0.01,
    momentum: float = 0.937,
    weight_decay: float = 5e-4,
    warmup: float = 0.01,
    final: float = 0.01,
    bias_start: float = 10.0,
    momentum_start: float = 0.8,
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """SGD with Nesterov's momentum, and a learning rate that falls linearly: YOLOv8's recipe.

    In the warm-up, the learning rate rises from 0, that of biases falls from ``bias_start`` times ``lr``, and the
    momentum rises from ``momentum_start``.

    Args:
        steps: of the whole training.
        lr: peak learning rate.
        warmup: fraction of the steps; 3 epochs in YOLOv8.
        final: fraction of ``lr`` at the end.

    Source: Jocher et al., YOLOv8, 2023.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm)]
    scales = {id(m.weight) for m in norms if m.weight is not None}
    parameters = [p for p in model.parameters() if p.requires_grad]
    kernels = [p for p in parameters if p.ndim > 1]
    biases = [p for p in parameters if p.ndim <= 1 and id(p) not in scales]
    groups = [
        {"params": kernels, "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) in scales], "weight_decay": 0.0},
        {"params": biases, "weight_decay": 0.0},
    ]
    optimizer = built(torch.optim.SGD, groups, lr=lr, momentum=momentum_start, nesterov=True)
    rising = max(1, round(warmup * steps))

    def factor(step: int, start: float) -> float:
        falling = 1 - (1 - final) * min(1.0, step / max(1, steps))
        done = min(1.0, step / rising)
        return start + (falling - start) * done

    def with_momentum(step: int) -> float:
        # the schedule is called in every step
        done = min(1.0, step / rising)
        for group in optimizer.param_groups:
            group["momentum"] = momentum_start + (momentum - momentum_start) * done
        return factor(step, 0.0)

    return optimizer, LambdaLR(
        optimizer, [with_momentum, partial(factor, start=0.0), partial(factor, start=bias_start)]
    )
