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
from lightning.pytorch.callbacks import WeightAveraging
from rich.console import Console

from kplab.metrics.metric import rows_of
from kplab.runs.table import clock
from kplab.tasks.inference.progress import WIDTH, step_bar, terminal


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


class Lines(pl.Callback):
    """Prints lines of at most ``WIDTH`` columns: epoch (from 1), loss, new validation, time left, speed. For logs and pipes.

    Within an epoch there are lines too, at growing intervals, so that a long first epoch shows that it goes on.

    Args:
        every: minimum seconds between lines. The last epoch always has one, and so has each validation if not every epoch
            has one.
    """

    within = True

    def __init__(self, every: float = 5.0) -> None:
        self.every = every
        self.begun = self.printed = 0.0
        self.images = self.first = 0
        self.validated = False

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        self.begun = self.printed = time.perf_counter()
        self.images, self.first, self.validated = 0, trainer.global_step, False

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Count images; print a line if the last one is long ago."""
        self.images += len(batch) * trainer.world_size
        now = time.perf_counter()
        if self.within and not trainer.is_last_batch and now - self.printed >= max(self.every, (now - self.begun) / 20):
            step = f"step {index + 1}/{trainer.num_training_batches}"
            self.write(trainer, [epoch_of(trainer), step, f"loss {float(outputs['loss']):.4g}"])

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Note that there are new values."""
        self.validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Print a line, with the values of a validation if this epoch had one."""
        new, self.validated = self.validated, False
        last = trainer.current_epoch + 1 == trainer.max_epochs
        rare = new and (trainer.check_val_every_n_epoch or 1) > 1
        if not (last or rare) and time.perf_counter() - self.printed < self.every:
            return
        metrics = trainer.callback_metrics
        parts = [epoch_of(trainer), f"loss {float(metrics['train/loss_epoch']):.4g}"]
        logged = [f"val/{row.name}" for row in rows_of("runs")] if new else []
        self.write(trainer, [*parts, *(f"{name} {float(metrics[name]):.4g}" for name in logged if name in metrics)])

    def write(self, trainer: pl.Trainer, parts: list[str]) -> None:
        """Print a line of parts, and as many of time left and speed as fit beside them; in the main process."""
        if not trainer.is_global_zero:
            return
        self.printed = time.perf_counter()
        spent = self.printed - self.begun
        rest = [f"{clock(time_left(trainer, self.first, spent))} left", f"{self.images / spent:.1f} images/s"]
        while rest and len("  ".join([*parts, *rest])) > WIDTH:
            rest.pop()
        print("  ".join([*parts, *rest]), flush=True)


class Validations(pl.Callback):
    """Validates after the last epoch as well, whose number may change while the training goes on.

    Args:
        every: epochs from one validation to the next.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Tell Lightning whether this is the last epoch."""
        trainer.check_val_every_n_epoch = 1 if trainer.current_epoch + 1 == trainer.max_epochs else self.every


class StopAfter(pl.Callback):
    """Stops a training at the end of an epoch, without a change of its schedule.

    Args:
        epochs: number of epochs.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Stop."""
        if trainer.current_epoch + 1 >= self.epochs:
            trainer.should_stop = True


def epoch_of(trainer: pl.Trainer) -> str:
    """The current epoch, counted from 1, of how many: "epoch 3/12"."""
    total = f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
    return f"epoch {trainer.current_epoch + 1}{total}"


class Bar(Lines):
    """The lines of ``Lines`` at the end of epochs, and a bar of the current epoch, with the time left of the whole training."""

    within = False

    def __init__(self, every: float = 5.0, console: Console | None = None) -> None:
        super().__init__(every)
        self.console = console

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Show the bar."""
        super().on_train_start(trainer, module)
        self.shown = step_bar(self.console or terminal())
        self.task = self.shown.add_task(epoch_of(trainer), total=None)
        if trainer.is_global_zero:
            self.shown.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Move the bar on."""
        super().on_train_batch_end(trainer, module, outputs, batch, index)
        left = clock(time_left(trainer, self.first, time.perf_counter() - self.begun))
        text = f"{epoch_of(trainer)}  loss {float(outputs['loss']):.4g}  {left} left"
        self.shown.update(self.task, description=text, completed=index + 1, total=int(trainer.num_training_batches))

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Remove the bar."""
        self.shown.stop()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the bar, so that the message is readable."""
        if hasattr(self, "shown"):
            self.shown.stop()


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
