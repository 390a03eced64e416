"""Checkpoints of a training: which epochs are kept, and how they are written."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from kplab.errors import ConfigError
from kplab.models.weights import read_checkpoint
from kplab.runs.files import PART, interrupts_deferred, replacing
from kplab.runs.provenance import file_sha256

#: The checkpoint of the last complete epoch, from which a training is resumed.
LAST = "last.ckpt"
#: The checkpoint of the epoch with the best validation.
BEST = "best.ckpt"


class AtomicIO(CheckpointIO):
    """Writes checkpoints completely or not at all, and reads them without executing anything in them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Replace the file; the earlier one stays until the new one is complete."""
        save(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a file on the CPU, whatever Lightning asks for."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a file."""
        Path(path).unlink(missing_ok=True)


def save(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, see ``replacing``.

    Raises:
        OSError: the file can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # interrupted, torch.save raises an error of its own in place of KeyboardInterrupt
    with interrupts_deferred(), replacing(path) as stream:
        torch.save(checkpoint, stream)


class Checkpoints(Checkpoint):
    """Keeps the last complete epoch and the one with the best validation.

    ``best.ckpt`` holds its own score, so that a resumed run, which starts with a copy of it, has to exceed that score. The
    file is written before ``last.ckpt``. A training that is killed between them repeats the epoch, with the same result.

    An epoch that is cut short by ``trainer.max_time`` or Ctrl-C is not kept, because its batches can't be continued exactly;
    only if there is no complete epoch its weights are saved, to predict with.

    Args:
        folder: of the checkpoints.
        monitor: name of the validation's metric; None: there is no best one.
        higher_is_better: for that metric.
    """

    def __init__(self, folder: Path, monitor: str | None = None, higher_is_better: bool = False) -> None:
        self.last, self.best = folder / LAST, folder / BEST
        self.monitor, self.higher_is_better = monitor, higher_is_better
        self.score: float | None = None
        self.epochs = 0

    def state_dict(self) -> dict[str, Any]:
        """Number of complete epochs, and the best score."""
        return {"epochs": self.epochs, "score": self.score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the number of epochs; the score is that of the file ``best.ckpt``."""
        self.epochs = int(state_dict["epochs"])

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Read the score to exceed from the best checkpoint of a resumed training."""
        if self.best.is_file():
            self.score = state_of(read_checkpoint(self.best, mapped=True))["score"]

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Save the best checkpoint if the score is higher than any before."""
        if self.monitor is None or trainer.sanity_checking or self.is_cut(trainer):
            return
        score = float(trainer.callback_metrics[self.monitor])
        if math.isnan(score):
            score = -math.inf if self.higher_is_better else math.inf
        if self.score is None or (score > self.score if self.higher_is_better else score < self.score):
            self.score = score
            trainer.save_checkpoint(self.best)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Save the last checkpoint."""
        if not self.is_cut(trainer):
            self.epochs = trainer.current_epoch + 1
            trainer.save_checkpoint(self.last)
        elif self.epochs == 0:
            trainer.save_checkpoint(self.last)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Save the weights of a training that is stopped by Ctrl-C in its first epoch."""
        if isinstance(exception, KeyboardInterrupt) and trainer.global_step > 0 and not self.last.is_file():
            trainer.save_checkpoint(self.last)

    @staticmethod
    def is_cut(trainer: pl.Trainer) -> bool:
        """Whether the training stops within this epoch, other than by ``trainer.max_steps``, which is a planned end."""
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready >= trainer.num_training_batches
        planned = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
        return trainer.should_stop and not done and not planned


def state_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The state of ``Checkpoints`` in a checkpoint; of one that has none, such as of a gradient-free model, an empty one."""
    return {"epochs": None, "score": None, **checkpoint.get("callbacks", {}).get(Checkpoints.__qualname__, {})}


def copy_checkpoints(source: Path, target: Path) -> None:
    """Copy the checkpoints of a run into that which resumes it: the best may stay the best, and no epoch may be left."""
    target.mkdir(parents=True, exist_ok=True)
    for name in (BEST, LAST):  # a folder with the last one is complete
        if (source / name).is_file():
            with (source / name).open("rb") as original, replacing(target / name) as copy:
                shutil.copyfileobj(original, copy, 2**20)


def hashes_of(folder: Path) -> dict[str, str]:
    """SHA-256 of the checkpoints of a run by file name, for its record."""
    return {name: file_sha256(folder / name) for name in (BEST, LAST) if (folder / name).is_file()}


def remove_parts(folder: Path) -> None:
    """Delete what a killed process left of a checkpoint that it was writing."""
    for path in folder.glob(f"*{PART}"):
        path.unlink(missing_ok=True)


def check_disk(folder: Path, model: torch.nn.Module) -> None:
    """Check that the checkpoints fit on their disk: weights, their average and two moments; best, last and one being written.

    Args:
        folder: of the checkpoints; created.
        model: to be trained.

    Raises:
        ConfigError: names the folder, and the space needed and free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    needed = 3 * 4 * weights + 50 * 2**20
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"{folder}: {needed / 2**20:.0f} MiB are needed for checkpoints, but {free / 2**20:.0f} MiB are free. "
            "Free some, or put runs elsewhere: runs_dir=DIR."
        )
