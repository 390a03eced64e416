"""A small normalising flow over pairs of numbers, which models the distribution of regression residuals."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RealNVP(nn.Module):
    """Six affine couplings between a plane and the standard normal distribution.

    Each keeps one coordinate a and maps the other: b' = b exp(s(a)) + t(a), with s in (-1, 1).

    Source: Dinh et al., "Density estimation using Real NVP", 2017; sizes of Li et al., "Human Pose Regression with Residual
    Log-likelihood Estimation", 2021.
    """

    kept: Tensor

    def __init__(self, couplings: int = 6, width: int = 64) -> None:
        super().__init__()
        self.register_buffer("kept", torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(couplings // 2, 1), persistent=False)
        self.scales = nn.ModuleList(_net(width, nn.Tanh()) for _ in self.kept)
        self.shifts = nn.ModuleList(_net(width, nn.Identity()) for _ in self.kept)

    def forward(self, z: Tensor) -> Tensor:
        """From the normal distribution: (..., 2) to (..., 2)."""
        for kept, scale, shift in zip(self.kept, self.scales, self.shifts, strict=True):
            same = z * kept
            z = same + (1 - kept) * (z * scale(same).exp() + shift(same))
        return z

    def log_prob(self, x: Tensor) -> Tensor:
        """Natural logarithm of the density at points: (..., 2) to (...), in full precision."""
        with torch.autocast(x.device.type, enabled=False):
            z, volume = x.float(), x.new_zeros(x.shape[:-1], dtype=torch.float32)
            for kept, scale, shift in reversed(list(zip(self.kept, self.scales, self.shifts, strict=True))):
                same = z * kept
                s = scale(same) * (1 - kept)
                z = same + (1 - kept) * (z - shift(same)) * (-s).exp()
                volume = volume - s.sum(-1)
            return volume - (z**2).sum(-1) / 2 - math.log(2 * math.pi)


def _net(width: int, last: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(2, width), nn.LeakyReLU(), nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, 2), last
    )
