"""The one LightningModule: it trains any model, and validates with the evaluator that scores runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from kplab.errors import RunError
from kplab.metrics.metric import metrics_of, rows_of
from kplab.metrics.score import score
from kplab.metrics.settings import ScoreSettings
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.predictor import Model
from kplab.structures.sample import Batch
from kplab.tasks.inference.assembly import Assembly, files_of


class PoseModule(pl.LightningModule):
    """Losses in training, scores in validation.

    Args:
        model: to train.
        optimizer: called with (model, steps), gives optimiser and schedule.
        val: labels that validation is scored against, or None.
        settings: of the evaluator.
        assembly: from the poses of views to those of images.
        seed: of the random parts of the network (dropout, stochastic depth), drawn anew each epoch.
    """

    def __init__(
        self,
        model: Model,
        optimizer: Callable[..., Any],
        val: Labels | None = None,
        settings: ScoreSettings | None = None,
        assembly: Assembly | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.make_optimizer, self.val, self.settings = optimizer, val, settings
        self.assembly, self.seed = assembly or Assembly(), seed
        self.found: dict[tuple[int, tuple[float, ...]], Poses] = {}
        self.first_epoch = 0

    def on_train_start(self) -> None:
        """Keep the epoch at which a resumed training begins."""
        self.first_epoch = self.current_epoch

    def on_train_epoch_start(self) -> None:
        """Seed by epoch, so that a resumed run draws the same numbers as an uninterrupted one."""
        torch.manual_seed((self.seed * 1_000_003 + self.current_epoch) * 64 + self.global_rank)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Sum of the model's losses."""
        losses = self.model.losses(batch)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            parts = ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in losses.items())
            raise RunError(
                f"the loss is not finite at step {self.global_step} ({parts}). Lower optimizer.lr, or use trainer.precision=32-true."
            )
        self.log("train/loss", total.detach(), on_step=True, on_epoch=True, prog_bar=True, batch_size=len(batch))
        for name, value in losses.items():
            self.log(f"train/{name}", value.detach(), on_epoch=True, on_step=False, batch_size=len(batch))
        return total

    def on_validation_epoch_start(self) -> None:
        """Discard the poses of the last validation."""
        self.found = {}

    def validation_step(self, batch: Batch, index: int) -> None:
        """Loss, and poses in source pixels."""
        total = torch.stack(list(self.model.losses(batch).values())).sum()
        self.log("val/loss", total, on_epoch=True, batch_size=len(batch), sync_dist=True)
        for i, p in enumerate(self.assembly.predict(self.model, batch)):
            # keyed by region: a distributed sampler may give one twice
            self.found[int(batch.image_id[i]), tuple(batch.box[i])] = p

    def on_validation_epoch_end(self) -> None:
        """AP and pixel error by the same evaluator that scores runs."""
        if self.val is None or self.settings is None:
            return
        found = self.found
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, found)
            found = {key: p for part in parts for key, p in part.items()}
        ids = self.val.image_id.tolist()
        rank = {image_id: i for i, image_id in enumerate(ids)}
        regions = sorted(found, key=lambda region: (rank[region[0]], region[1]))
        poses = ((region[0], found[region]) for region in regions)
        every = dict(self.assembly.by_image(poses, ids, self.val.skeleton))
        scores = score(
            self.val.by_image(),
            Predictions(self.val.skeleton, every),
            self.val.skeleton,
            files=files_of(self.val),
            settings=self.settings,
            crowd=self.val.crowd_by_image(),
        )
        # a metric that does not exist, since nothing was predicted, is as bad as it can be: an error of the image's diagonal
        largest = float(np.hypot(*self.val.size.max(0)))
        main = {row.name for row in rows_of("runs")}
        for metric in metrics_of(asdict(self.settings), "validation"):
            value = scores.summary[metric.name]
            worst = 0.0 if metric.higher_is_better else largest
            self.log(f"val/{metric.name}", float(value) if np.isfinite(value) else worst, prog_bar=metric.name in main)

    def configure_optimizers(self) -> Any:
        """Optimiser, and a schedule that steps every batch."""
        optimizer, schedule = self.make_optimizer(self.model, steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
