"""Optimisers with their schedules. A config names one of these functions; its signature is the schema."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay for matrices and kernels only: shrinking norms and biases does not regularise."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def adamw_cosine(
    model: nn.Module,
    steps: int,
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
    warmup: float = 0.05,
    final: float = 0.01,
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """AdamW, with a learning rate that rises linearly, then falls as half a cosine; stepped every batch.

    Args:
        steps: of the whole training.
        lr: at its height.
        warmup: fraction of the steps in which it rises.
        final: fraction of ``lr`` at the end.
    """
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay), lr=lr, betas=(betas[0], betas[1]))
    rising = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        progress = min(1.0, (step - rising) / max(1, steps - rising))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return optimizer, LambdaLR(optimizer, factor)


def adam_steps(
    model: nn.Module,
    steps: int,
    lr: float = 1e-3,
    drops: tuple[float, ...] = (90 / 140, 120 / 140),
    factor: float = 0.1,
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Adam without weight decay whose learning rate is multiplied by ``factor`` at fractions of the training.

    The defaults are SimpleBaseline's: epochs 90 and 120 of 140. HRNet uses 170/210 and 200/210.
    """
    optimizer = torch.optim.Adam(parameter_groups(model, 0.0), lr=lr)
    return optimizer, LambdaLR(optimizer, lambda step: factor ** sum(step >= d * steps for d in drops))
