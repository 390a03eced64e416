"""Direct regression: coordinates and their spread from pooled features, trained by likelihood."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kplab.errors import ModelError
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.regression import Likelihood, RegressionHead, Targets, mean_over, mirrored
from kplab.models.heads.single import one_pose_each

#: Logit of the spread of ideal outputs: 3e-4 of the view.
LOW_SPREAD = -8.0


class RLEHead(RegressionHead):
    """A linear layer from the mean of a feature map to two coordinates and two spreads per keypoint.

    Outputs are ``uv`` (B, K, 2), fractions of the view from its centre, and ``spread`` (B, K, 2), logits of sigma.

    Args:
        level: index of the feature map; -1 is the coarsest.
        base: laplace or gaussian, the distribution of errors before the flow.
        residual: whether the flow is used; false is regression by plain likelihood.

    Source: Li et al., "Human Pose Regression with Residual Log-likelihood Estimation", 2021.
    """

    def __init__(
        self,
        inputs: HeadInputs,
        *,
        level: int = -1,
        base: str = "laplace",
        residual: bool = True,
    ) -> None:
        super().__init__(inputs)
        if base not in ("laplace", "gaussian"):
            raise ModelError(f"head 'rle' has base laplace and gaussian, but got '{base}'.")
        self.level = inputs.level("rle", level)
        self.stride = inputs.strides[self.level]
        self.likelihood = Likelihood(base, residual)
        self.say = nn.Linear(inputs.in_channels[self.level], 4 * len(self.skeleton))
        nn.init.normal_(self.say.weight, std=0.01)
        nn.init.zeros_(self.say.bias)

    def forward(self, maps: list[Tensor], targets: Any | None = None) -> dict[str, Tensor]:
        """Coordinates and spreads, in full precision."""
        self.check_map(maps[self.level], self.stride)
        pooled = maps[self.level].mean((-2, -1))
        with torch.autocast(pooled.device.type, enabled=False):
            uv, spread = self.say(pooled.float()).unflatten(-1, (-1, 4)).split(2, dim=-1)
        return {"uv": uv, "spread": spread}

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """Negative log-likelihood, mean over labelled keypoints; see ``Likelihood``."""
        nats = self.likelihood(outputs["uv"], outputs["spread"], targets["uv"])
        return {"likelihood": mean_over(nats, targets["weight"])}

    def decode_tensors(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Decode the coordinates; the score of a keypoint is 1 minus its mean spread."""
        score = 1 - outputs["spread"].sigmoid().mean(-1)
        return one_pose_each((outputs["uv"] + 0.5) * self.view, score)

    def ideal(self, targets: Targets) -> dict[str, Tensor]:
        """The true coordinates with a small spread; unlabelled keypoints at the centre with a large one."""
        labelled = targets["weight"][..., None].expand_as(targets["uv"])
        return {"uv": targets["uv"], "spread": torch.where(labelled > 0, LOW_SPREAD, -LOW_SPREAD)}

    def unflip(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Coordinates mirrored, keypoints permuted."""
        return {"uv": mirrored(outputs["uv"], self.flip), "spread": outputs["spread"][:, self.flip]}
