"""Shared by heads that regress coordinates: targets, likelihood and similarity."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kplab.models.flow import RealNVP
from kplab.models.heads.base import Head, HeadInputs
from kplab.models.heads.single import subjects
from kplab.structures.poses import Poses

Targets = dict[str, Tensor]


class RegressionHead(Head):
    """Base of heads of one pose per view, with coordinates as fractions of the view from its centre.

    uv = xy / size - 1/2, so that a mirrored view negates u exactly. Targets are ``uv`` (B, K, 2) in [-1/2, 1/2], ``weight``
    (B, K) 1 where a keypoint is labelled and inside the view, else 0, and ``area`` (B,) of the subjects, view pixels**2.
    """

    max_poses = 1
    fixed_size = True
    shifts_targets = True
    sigmas: Tensor
    view: Tensor

    def __init__(self, inputs: HeadInputs) -> None:
        super().__init__(inputs)
        self.register_buffer("sigmas", torch.tensor(self.skeleton.sigmas, dtype=torch.float32), persistent=False)
        self.register_buffer("view", torch.tensor(self.size, dtype=torch.float32), persistent=False)

    def encode(self, poses: list[Poses], size: tuple[int, int]) -> Targets:
        """Encode keypoints as fractions of the view; those outside it can't be represented and have weight 0."""
        self.check_size(size)
        xy, labelled = subjects(poses, len(self.skeleton), self.device)
        inside = ((xy >= 0) & (xy <= self.view)).all(-1)
        weight = (labelled & inside).float()
        uv = (xy / self.view - 0.5) * weight[..., None]
        return {"uv": uv, "weight": weight, "area": self._areas(poses)}

    def shift_targets(self, targets: Targets, by: Tensor) -> Targets:
        """Targets with moved coordinates; weights stay as they are."""
        return {**targets, "uv": targets["uv"] + by.float() / self.view * targets["weight"][..., None]}

    def similarity(self, uv: Tensor, targets: Targets) -> Tensor:
        """exp(-d**2 / (2 area (2 sigma)**2)) of each keypoint, the terms of OKS: (..., B, K, 2) to (..., B, K)."""
        squared = ((uv - targets["uv"]) * self.view).square().sum(-1)
        return (-squared / (8 * self.sigmas**2 * targets["area"][:, None])).exp()

    def _areas(self, poses: list[Poses]) -> Tensor:
        """(B,) area of each view's subject, or of the hull of its keypoints; at least 1."""
        area = np.ones(len(poses))
        for i, view in enumerate(poses):
            found = view[~view.ignore]
            if len(found):
                hull = found.extent()[0]
                own = found.area[0] if np.isfinite(found.area[0]) else (hull[2:] - hull[:2]).prod()
                area[i] = max(np.nan_to_num(own), 1.0)
        return torch.from_numpy(area).to(self.device, torch.float32)


class Likelihood(nn.Module):
    """Negative log-likelihood of true coordinates, given predicted ones and their predicted spread.

    With e = (mu - truth) / sigma, the base distribution Q and a flow G over (e_x, e_y):
        residual:  log sigma - log G(e) - log Q,  for each of x and y (log G counts twice, as published)
        plain:     -log Q
        -log Q = log(2 sigma) + |e|  (laplace)  or  log(sigma sqrt(2 pi)) + e**2 / 2  (gaussian)

    Args:
        base: laplace or gaussian.
        residual: whether the flow is used.

    Source: Li et al., "Human Pose Regression with Residual Log-likelihood Estimation", 2021.
    """

    def __init__(self, base: str = "laplace", residual: bool = True) -> None:
        super().__init__()
        self.base = base
        self.flow = RealNVP() if residual else None

    def forward(self, uv: Tensor, spread: Tensor, true_uv: Tensor) -> Tensor:
        """Nats of each keypoint.

        Args:
            uv: (..., K, 2) predicted.
            spread: (..., K, 2) logits of sigma, which lies in (0, 1).
            true_uv: (..., K, 2).

        Returns:
            (..., K), the sum over x and y.
        """
        log_sigma = F.logsigmoid(spread)
        error = (uv - true_uv) * (-log_sigma).exp()
        if self.base == "laplace":
            nats = math.log(2) + log_sigma + error.abs()
        else:
            nats = math.log(math.sqrt(2 * math.pi)) + log_sigma + error**2 / 2
        if self.flow is not None:
            nats = nats + log_sigma - self.flow.log_prob(error)[..., None]
        return nats.sum(-1)


def mirrored(uv: Tensor, flip: Tensor) -> Tensor:
    """(..., K, 2) coordinates of a mirrored view, mirrored back and permuted; exact, and its own inverse."""
    return uv[..., flip, :] * uv.new_tensor([-1.0, 1.0])


def mean_over(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over all elements; 0 if all weights are 0."""
    return (values * weight).sum() / weight.sum().clamp_min(1)
