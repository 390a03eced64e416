"""Callbacks of a training: progress and averaged weights; and which errors are a full disk."""

from __future__ import annotations

import errno
import logging
import sys
import time
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import RichProgressBar, WeightAveraging

from kplab.metrics.metric import rows_of
from kplab.runs.table import clock


def quiet() -> None:
    """Silence messages and warnings of Lightning that a user of kplab can't act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for text in (
        ".*Experiment logs directory.*", ".*isinstance.treespec.*", ".*Total length of .* across ranks is zero.*",
        ".*smaller than the logging interval.*", ".*does not have many workers.*", ".*Starting from v1.9.0.*",
        ".*You have overridden .*transfer_batch_to_device.*", ".*Checkpoint directory .* exists.*",
    ):  # fmt: skip
        warnings.filterwarnings("ignore", text)


def warmed_average(decay: float) -> Any:
    """Exponential average whose decay rises as (1 + t) / (10 + t) up to ``decay``, so that initial weights soon vanish."""

    def average(mean: torch.Tensor, current: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        if not mean.is_floating_point():
            return current  # counters of batches
        t = float(count)
        return torch.lerp(mean, current, 1.0 - min(decay, (1.0 + t) / (10.0 + t)))

    return average


def averaged_weights(decay: float) -> WeightAveraging:
    """Lightning's weight averaging: averaged weights are validated and saved, plain ones are trained."""
    return WeightAveraging(use_buffers=True, avg_fn=warmed_average(decay))


def time_left(trainer: pl.Trainer, first: int, spent: float) -> float:
    """Estimate the remaining seconds of a training from the steps since ``first``, which took ``spent`` seconds."""
    steps = max(1, trainer.global_step - first)
    return spent / steps * max(0, int(trainer.estimated_stepping_batches) - trainer.global_step)


class Bar(RichProgressBar):
    """Lightning's progress bar with the remaining time of the whole training, in addition to that of the epoch."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, module)
        self.begun, self.first = time.perf_counter(), trainer.global_step

    def get_metrics(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        """Values beside the bar."""
        metrics = dict(super().get_metrics(trainer, module))
        metrics.pop("v_num", None)
        metrics["left"] = clock(time_left(trainer, self.first, time.perf_counter() - self.begun))
        return metrics


class Lines(pl.Callback):
    """Prints a line at intervals: epoch, loss, validation, speed, time left. For logs, notebooks and pipes.

    Args:
        every: minimum seconds between lines; the last epoch always has one.
    """

    def __init__(self, every: float = 5.0) -> None:
        self.every = every
        self.begun = self.printed = 0.0
        self.images = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        self.begun, self.printed, self.images, self.first = time.perf_counter(), 0.0, 0, trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Count images."""
        self.images += len(batch) * trainer.world_size

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Print a line."""
        now = time.perf_counter()
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if not trainer.is_global_zero or (now - self.printed < self.every and not last):
            return
        self.printed = now
        metrics = trainer.callback_metrics
        spent = now - self.begun
        left = time_left(trainer, self.first, spent)
        parts = [
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            f"loss {float(metrics['train/loss_epoch']):.4g}",
        ]
        logged = [f"val/{row.name}" for row in rows_of("runs")]
        parts += [f"{name} {float(metrics[name]):.4g}" for name in logged if name in metrics]
        parts += [f"{self.images / spent:.1f} images/s", f"{clock(left)} left"]
        print("  ".join(parts), flush=True)


def progress() -> pl.Callback:
    """A progress bar at a terminal, lines elsewhere."""
    return Bar() if sys.stdout.isatty() else Lines()


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error or its cause is a full disk; torch.save wraps it in a RuntimeError."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return True
        if isinstance(error, RuntimeError) and (
            "PytorchStreamWriter failed" in str(error) or "No space left" in str(error)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
