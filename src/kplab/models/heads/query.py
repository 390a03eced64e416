"""A transformer with learned queries, each of which is decoded into the position of a keypoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from kplab.errors import ModelError
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.regression import Likelihood, RegressionHead, Targets, mean_over, mirrored
from kplab.models.heads.single import one_pose_each
from kplab.models.transformer import Transformer, sine_positions
from kplab.structures.poses import Poses

#: Logit of ideal outputs.
CONFIDENT = 20.0
#: Weight of the class "no keypoint", as in DETR.
NO_KEYPOINT = 0.1


class QueryHead(RegressionHead):
    """Encoder and decoder over the cells of a feature map, and a small network from each decoded query to a keypoint.

    With one query per keypoint, query k predicts keypoint k. In a set of more queries, each is also classified as a keypoint or
    none, and predictions are matched with the truth by the Hungarian method, separately in each decoder layer.

    Outputs are stacks over decoder layers, the last of which is decoded: ``uv`` (L, B, Q, 2), fractions of the view from its
    centre; ``score`` (L, B, Q) logits, or in a set (L, B, Q, K + 1) of the classes, the last of which is "none"; and with
    ``loss: rle`` also ``spread`` (L, B, Q, 2), logits of sigma; with ``heatmap_weight`` also ``heat`` (1, B, K, h, w), logits over cells.

    Args:
        queries: ``keypoints``, or the size of the set.
        level: index of the feature map; -1 is the coarsest.
        width, heads, encoder_layers, decoder_layers, feedforward, dropout: of the transformer.
        anchored: coordinates are relative to the mean position of the query's attention, uv = sum_n a_n p_n + offset, with
            attention a_n to the cell at p_n; false: to the centre of the view, uv = sigmoid(logit) - 1/2, as in DETR and
            PRTR. Positions are not part of the attention's values, so without anchors they reach the output indirectly
            only, and training starts slowly.
        loss: l1, or rle: residual log-likelihood.
        coordinate_weight: of the coordinates' loss.
        oks_weight: of 1 - OKS, with the skeleton's sigmas.
        score_weight: of the cross entropy of the scores.
        heatmap_weight: of the cross entropy of heatmaps, one per keypoint over the encoder's cells, which are an auxiliary
            output of training and never decoded (TFPose).

    Source: Li et al., "Pose Recognition with Cascade Transformers" (PRTR), 2021; Carion et al. (DETR), 2020; queries that
    are keypoints: Mao et al., "TFPose", 2021. PoseTED (2021) has not published its code. Anchors are kplab's own, and similar
    to the reference points of later detection transformers.
    """

    def __init__(
        self,
        inputs: HeadInputs,
        *,
        queries: str | int = "keypoints",
        level: int = -1,
        width: int = 256,
        heads: int = 8,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        feedforward: int = 2048,
        dropout: float = 0.0,
        anchored: bool = True,
        loss: str = "l1",
        coordinate_weight: float = 5.0,
        oks_weight: float = 1.0,
        score_weight: float = 1.0,
        heatmap_weight: float = 0.0,
    ) -> None:
        super().__init__(inputs)
        k = len(self.skeleton)
        self.fixed = queries == "keypoints"
        if not self.fixed and (not isinstance(queries, int) or queries < k):
            raise ModelError(f"head 'query' needs queries: keypoints, or a number of {k} or more, but got {queries}.")
        if loss not in ("l1", "rle"):
            raise ModelError(f"head 'query' has loss l1 and rle, but got '{loss}'.")
        if width % 4 or width % heads or decoder_layers < 1:
            raise ModelError(
                f"head 'query' needs a width that is a multiple of 4 and of heads, and at least one decoder layer, but got "
                f"width {width}, heads {heads} and decoder_layers {decoder_layers}. 256, 8 and 6 are usual."
            )
        self.weights = {
            "coordinate": coordinate_weight,
            "oks": oks_weight,
            "score": score_weight,
            "heatmap": heatmap_weight,
        }
        self.level, self.anchored = inputs.level("query", level), anchored
        self.stride = inputs.strides[self.level]
        self.shape = tuple(-(-side // self.stride) for side in self.size[::-1])
        self.project = nn.Conv2d(inputs.in_channels[self.level], width, kernel_size=1)
        self.transformer = Transformer(width, heads, encoder_layers, decoder_layers, feedforward, dropout)
        self.queries = nn.Parameter(torch.randn(k if self.fixed else int(queries), width))
        self.likelihood = Likelihood() if loss == "rle" else None
        self.point = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
        )
        self.score = nn.Linear(width, 1 if self.fixed else k + 1)
        self.hint = nn.Linear(width, k) if heatmap_weight else None

    @property
    def after_graph(self) -> str:  # type: ignore[override]
        """Of a set, the assignment."""
        return "" if self.fixed else "assignment of a query to each keypoint"

    @property
    def flips(self) -> bool:
        """False for a set: query q of the mirrored view may be any keypoint, so outputs can't be averaged."""
        return self.fixed

    def forward(self, maps: list[Tensor], targets: Any | None = None) -> dict[str, Tensor]:
        """The outputs of all decoder layers; the last layers run in full precision."""
        cells, positions = self._cells(maps)
        cells = self.transformer.encode(cells, positions)
        decoded, attention = self.transformer.decode(cells, positions, self.queries, weights=self.anchored)
        with torch.autocast(decoded.device.type, enabled=False):
            point, score = self.point(decoded.float()), self.score(decoded.float())
            uv = (
                point[..., :2].sigmoid() - 0.5 if attention is None else self._anchors(attention, maps) + point[..., :2]
            )
        outputs = {"uv": uv, "score": score.squeeze(-1) if self.fixed else score}
        if self.likelihood is not None:
            outputs["spread"] = point[..., 2:]
        if self.hint is not None:
            heat = self.hint(cells).float().transpose(1, 2)
            outputs["heat"] = heat.unflatten(-1, maps[self.level].shape[-2:])[None]
        return outputs

    def attention(self, maps: list[Tensor]) -> Tensor:
        """Attention of each query of the last decoder layer: (B, Q, h, w), with sum 1."""
        attention = self.transformer(*self._cells(maps), self.queries, weights=True)[1]
        assert attention is not None
        return attention[-1].unflatten(-1, maps[self.level].shape[-2:])

    def _anchors(self, attention: Tensor, maps: list[Tensor]) -> Tensor:
        """(..., 2) mean positions of attention (..., N) to cells, fractions of the view from its centre."""
        y, x = (((torch.arange(n, device=attention.device) + 0.5) / n - 0.5) for n in maps[self.level].shape[-2:])
        return attention.float() @ torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)

    def _cells(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(B, N, C) and their positions (N, C)."""
        self.check_map(maps[self.level], self.stride)
        projected = self.project(maps[self.level])
        positions = sine_positions(projected.shape[-1], projected.shape[-2], projected.shape[1])
        return projected.flatten(2).transpose(1, 2), positions.to(projected)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """Losses of all decoder layers, their mean; means over labelled keypoints.

        coordinate = mean |u - u*| over x and y, or the likelihood's nats; oks = 1 - exp(-d**2 / (2 area (2 sigma)**2)); score
        = cross entropy of that similarity, or in a set of the classes, with weight 0.1 of "no keypoint". A prediction without
        a match may be no keypoint or any unlabelled one.
        """
        uv, weight = outputs["uv"].float(), targets["weight"]
        chosen = {name: value.float() for name, value in outputs.items() if name not in ("score", "heat")}
        if self.fixed:
            similarity = self.similarity(uv, targets)
            entropy = F.binary_cross_entropy_with_logits(outputs["score"], similarity.detach(), reduction="none")
            score = mean_over(entropy, weight.expand_as(entropy))
        else:
            partner = self.partners(outputs, targets)
            score = self._class_loss(outputs["score"], partner, weight)
            chosen = {name: _take(value, partner) for name, value in chosen.items()}
            similarity = self.similarity(chosen["uv"], targets)
        if self.likelihood is None:
            off = (chosen["uv"] - targets["uv"]).abs().mean(-1)
        else:
            off = self.likelihood(chosen["uv"], chosen["spread"], targets["uv"].expand_as(chosen["uv"]))
        every = weight.expand_as(off)
        losses = {"coordinate": mean_over(off, every), "oks": mean_over(1 - similarity, every), "score": score}
        if "heat" in outputs:
            log = outputs["heat"][0].float().flatten(2).log_softmax(-1)
            wanted = self._heat(targets, outputs["heat"].shape[-2:]).flatten(2)
            losses["heatmap"] = mean_over(-(wanted * log).sum(-1), weight)
        return {name: self.weights[name] * value for name, value in losses.items()}

    def _heat(self, targets: Targets, shape: Sequence[int]) -> Tensor:
        """(B, K, h, w) normal distributions of a cell around the keypoints, which sum to 1 over the cells."""
        rows, columns = (torch.arange(n, device=self.device) + 0.5 for n in shape)
        x, y = ((targets["uv"] + 0.5) * targets["uv"].new_tensor([shape[1], shape[0]])).unbind(-1)
        squared = (columns - x[..., None, None]) ** 2 + (rows[:, None] - y[..., None, None]) ** 2
        return (-squared / 2).flatten(2).softmax(-1).unflatten(-1, tuple(shape))

    @torch.no_grad()
    def partners(self, outputs: dict[str, Tensor], targets: Targets) -> Tensor:
        """Index of the query that each keypoint is matched with: (L, B, K) int64; 0, without meaning, for unlabelled ones.

        The cost of a pair is 5 |u - u*|, summed over x and y, minus the probability of the class.
        """
        uv, weight = outputs["uv"].float(), targets["weight"]
        probability = outputs["score"].float().softmax(-1)[..., :-1]
        distance = (uv[..., None, :, :] - targets["uv"][:, :, None]).abs().sum(-1)
        cost = (5 * distance - probability.transpose(-2, -1)).double().cpu().numpy()
        partner = np.zeros(cost.shape[:-1], dtype=np.int64)
        labelled = weight.cpu().numpy() > 0
        for layer in range(len(cost)):
            for view in range(cost.shape[1]):
                rows = np.flatnonzero(labelled[view])
                pairs = linear_sum_assignment(cost[layer, view, rows])
                partner[layer, view, rows[pairs[0]]] = pairs[1]
        return torch.from_numpy(partner).to(uv.device)

    def _class_loss(self, score: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
        """Mean over the queries of views with labels; see ``loss``."""
        log = score.float().log_softmax(-1)
        k, labelled = weight.shape[1], weight > 0
        # without a match: none, or an unlabelled keypoint
        free = torch.cat([~labelled, torch.ones_like(labelled[:, :1])], dim=1)[:, None]
        nats = -torch.where(free, log, -torch.inf).logsumexp(-1)
        share = torch.full_like(nats, NO_KEYPOINT)
        kind = torch.arange(k, device=score.device).expand_as(partner)
        own = -log.gather(2, partner[..., None].expand(*partner.shape, k + 1)).gather(-1, kind[..., None]).squeeze(-1)
        # unlabelled keypoints point to an additional last query, which is dropped
        slot = torch.where(labelled, partner, score.shape[2])
        padded = torch.cat([nats, nats[..., :1]], dim=-1).scatter(-1, slot, own)[..., :-1]
        share = torch.cat([share, share[..., :1]], dim=-1).scatter(-1, slot, torch.ones_like(own))[..., :-1]
        return mean_over(padded, share * labelled.any(1, keepdim=True))

    def decode_tensors(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Decode the last decoder layer; of a set ``points`` (B, Q, 2) and their ``probabilities`` (B, Q, K)."""
        xy, score = (outputs["uv"][-1].float() + 0.5) * self.view, outputs["score"][-1].float()
        if self.fixed:
            return one_pose_each(xy, score.sigmoid())
        return {"points": xy, "probabilities": score.softmax(-1)[..., :-1]}

    def make_poses(self, decoded: dict[str, Tensor]) -> list[Poses]:
        """Of a set, assign a query of its own to each keypoint, so that the sum of their probabilities is the largest."""
        if self.fixed:
            return super().make_poses(decoded)
        every = decoded["probabilities"].transpose(1, 2)
        best = np.stack([linear_sum_assignment(-view)[1] for view in every.double().cpu().numpy()])
        partner = torch.from_numpy(best).to(every.device)
        probability = every.gather(-1, partner[..., None]).squeeze(-1)
        return super().make_poses(one_pose_each(_take(decoded["points"], partner), probability))

    def ideal(self, targets: Targets) -> dict[str, Tensor]:
        """The truth in every decoder layer; in a set, query k predicts keypoint k and the others none."""
        layers, k, number = len(self.transformer.decoder), len(self.skeleton), len(self.queries)
        uv, probability = targets["uv"], targets["weight"] > 0
        outputs = {"uv": F.pad(uv, (0, 0, 0, number - k))}
        if self.fixed:
            outputs["score"] = torch.where(probability, CONFIDENT, -CONFIDENT)
        else:
            kind = torch.where(probability, torch.arange(k, device=uv.device), k)
            outputs["score"] = CONFIDENT * F.one_hot(F.pad(kind, (0, number - k), value=k), k + 1).float()
        if self.likelihood is not None:
            spread = torch.where(probability, -8.0, 8.0)[..., None].expand(-1, -1, 2)
            outputs["spread"] = F.pad(spread, (0, 0, 0, number - k))
        decoded = {name: value.expand(layers, *value.shape).clone() for name, value in outputs.items()}
        if self.hint is not None:
            decoded["heat"] = self._heat(targets, self.shape).clamp_min(1e-9).log()[None]
        return decoded

    def unflip(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Coordinates mirrored, keypoints permuted."""
        if not self.fixed:
            raise ModelError("head 'query' has no flip test with a set of queries. Use flip_test=false.")
        renamed = {name: value[:, :, self.flip] for name, value in outputs.items()}
        if "heat" in renamed:
            renamed["heat"] = renamed["heat"].flip(-1)
        return {**renamed, "uv": mirrored(outputs["uv"], self.flip)}


def _take(values: Tensor, partner: Tensor) -> Tensor:
    """(..., Q, C) and (..., K) indices to (..., K, C)."""
    return values.gather(-2, partner[..., None].expand(*partner.shape, values.shape[-1]))
