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

#: Phases of a training, for ``PoseModule.seed_batch``.
TRAINING, VALIDATION = 0, 1
#: What to do about a training that diverges.
REMEDY = "The training diverges: lower optimizer.lr, or use trainer.precision=32-true."


class PoseModule(pl.LightningModule):
    """Losses in training, scores in validation.

    Args:
        model: to train.
        optimizer: called with (model, steps), gives optimiser and schedule.
        val: labels that validation is scored against, or None.
        settings: of the evaluator.
        assembly: from the poses of views to those of images.
        seed: of the random parts of the network (dropout, stochastic depth, sampled boxes), set anew for each batch.
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
        self.last_batch: Batch | None = None

    def on_train_start(self) -> None:
        """Keep the epoch at which a resumed training begins."""
        self.first_epoch = self.current_epoch

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        """Seed by batch, so that what is drawn does not depend on what was drawn before."""
        self.seed_batch(TRAINING, index)

    def on_validation_batch_start(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        """Seed by batch: the loss of some heads is that of a random sample."""
        self.seed_batch(VALIDATION, index)

    def seed_batch(self, phase: int, index: int) -> None:
        """Seed the network's random generators by (seed, phase, epoch, batch, process) alone."""
        key = np.random.SeedSequence([self.seed, phase, self.current_epoch, index, self.global_rank])
        torch.manual_seed(int(key.generate_state(1, np.uint64)[0]))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Sum of the model's losses."""
        losses = self.model.losses(batch)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            parts = ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in losses.items())
            raise RunError(f"the loss is not finite at step {self.global_step} ({parts}). {REMEDY}")
        self.last_batch = batch
        self.log("train/loss", total.detach(), on_step=True, on_epoch=True, prog_bar=True, batch_size=len(batch))
        for name, value in losses.items():
            self.log(f"train/{name}", value.detach(), on_epoch=True, on_step=False, batch_size=len(batch))
        return total

    def on_train_epoch_end(self) -> None:
        """Check the weights before they are saved."""
        self.check_weights()

    def on_validation_start(self) -> None:
        """Check the weights before they are scored, and perhaps saved as the best."""
        self.check_weights()

    def check_weights(self) -> None:
        """Check that the weights have not diverged in the last step, of which no later step sees the loss.

        Raises:
            RunError: weights, or their loss on the last batch, are not finite.
        """
        if self.last_batch is None:
            return
        # weights that are finite, but whose squares overflow float32, are of no use either
        squares = [p.detach().float().square().sum() for p in self.model.parameters()]
        finite = bool(torch.isfinite(torch.stack(squares).sum()))
        if finite:
            modes = [(part, part.training) for part in self.model.modules()]
            self.model.eval()
            with torch.no_grad(), self.trainer.precision_plugin.forward_context():
                losses = self.model.losses(self.last_batch)
            for part, training in modes:
                part.training = training
            finite = bool(torch.isfinite(torch.stack(list(losses.values()))).all())
        self.last_batch = None
        if not finite:
            raise RunError(f"the weights, or their loss, are not finite after step {self.global_step}. {REMEDY}")

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
