"""What watches a training: a progress bar, averaged weights, and the room left on the disk."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, WeightAveraging

from kplab.errors import ConfigError
from kplab.runs.table import clock


def quiet() -> None:
    """Silence what Lightning says of itself; what a user needs to know is said by kplab."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for text in (
        ".*Experiment logs directory.*", ".*isinstance.treespec.*", ".*Total length of .* across ranks is zero.*",
        ".*smaller than the logging interval.*", ".*does not have many workers.*", ".*Starting from v1.9.0.*",
        ".*You have overridden .*transfer_batch_to_device.*", ".*Checkpoint directory .* exists.*",
    ):  # fmt: skip
        warnings.filterwarnings("ignore", text)


def warmed_average(decay: float) -> Any:
    """Exponential average whose decay rises as (1 + t) / (10 + t) to ``decay``, so that the start weighs nothing."""

    def average(mean: torch.Tensor, current: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        if not mean.is_floating_point():
            return current  # counters of batches
        t = float(count)
        return torch.lerp(mean, current, 1.0 - min(decay, (1.0 + t) / (10.0 + t)))

    return average


def averaged_weights(decay: float) -> WeightAveraging:
    """Lightning's weight averaging: validates and saves the averaged weights, trains on with the plain ones."""
    return WeightAveraging(use_buffers=True, avg_fn=warmed_average(decay))


def time_left(trainer: pl.Trainer, first: int, spent: float) -> float:
    """Seconds that the rest of the training will take, judged by the steps since ``first``, which took ``spent``."""
    steps = max(1, trainer.global_step - first)
    return spent / steps * max(0, int(trainer.estimated_stepping_batches) - trainer.global_step)


class Bar(RichProgressBar):
    """Lightning's bar, which tells the time left of an epoch, with that of the whole training beside it."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, module)
        self.begun, self.first = time.perf_counter(), trainer.global_step

    def get_metrics(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        """What stands beside the bar."""
        metrics = dict(super().get_metrics(trainer, module))
        metrics.pop("v_num", None)
        metrics["left"] = clock(time_left(trainer, self.first, time.perf_counter() - self.begun))
        return metrics


class Lines(pl.Callback):
    """One line now and then: epoch, loss, validation, speed, time left. For logs, notebooks and pipes.

    Args:
        every: seconds between lines at least; the last epoch is always told.
    """

    def __init__(self, every: float = 5.0) -> None:
        self.every = every
        self.begun = self.told = 0.0
        self.images = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        self.begun, self.told, self.images, self.first = time.perf_counter(), 0.0, 0, trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Count images."""
        self.images += len(batch) * trainer.world_size

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Tell."""
        now = time.perf_counter()
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if not trainer.is_global_zero or (now - self.told < self.every and not last):
            return
        self.told = now
        metrics = trainer.callback_metrics
        spent = now - self.begun
        left = time_left(trainer, self.first, spent)
        parts = [
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            f"loss {float(metrics['train/loss_epoch']):.4g}",
        ]
        parts += [f"{name} {float(metrics[name]):.4g}" for name in ("val/AP", "val/px") if name in metrics]
        parts += [f"{self.images / spent:.1f} images/s", f"{clock(left)} left"]
        print("  ".join(parts), flush=True)


class Checkpoint(ModelCheckpoint):
    """Knows the score to beat in a resumed run too, whose folder is another one and holds copies of its parent's files.

    Lightning's own forgets it where the folder has changed: whatever came first after the stop would count as the best.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state, with paths of this run's folder."""
        folder = str(self.dirpath)

        def here(path: str) -> str:
            return os.path.join(folder, os.path.basename(path)) if path else path

        paths = {key: here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {here(path): value for path, value in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})


class SaveFirst(pl.Callback):
    """Leave a checkpoint even of a training that is stopped in its first epoch; later ones have the last epoch's.

    Args:
        path: where the last checkpoint belongs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Save on Ctrl-C."""
        if isinstance(exception, KeyboardInterrupt) and trainer.global_step > 0 and not self.path.is_file():
            trainer.save_checkpoint(self.path)


def progress() -> pl.Callback:
    """A bar where somebody watches a terminal, lines elsewhere."""
    return Bar() if sys.stdout.isatty() else Lines()


def check_disk(folder: Path, model: torch.nn.Module) -> None:
    """Refuse to train where the checkpoints won't fit: weights, their average and two moments, best and last.

    Raises:
        ConfigError: naming the folder, what is needed and what is free.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    needed = 2 * 4 * weights + 50 * 2**20
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"{folder}: {needed / 2**20:.0f} MiB are needed for checkpoints, but {free / 2**20:.0f} MiB are free. "
            "Free some, or put runs elsewhere: runs_dir=DIR."
        )


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a full disk; torch.save hides it in a RuntimeError."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return True
        if isinstance(error, RuntimeError) and (
            "PytorchStreamWriter failed" in str(error) or "No space left" in str(error)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
