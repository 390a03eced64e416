"""Training by gradient descent: Lightning's loop over one PoseModule."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, Timer
from omegaconf import DictConfig

from kplab.data.datamodule import report_lost_workers
from kplab.metrics.metric import row_of
from kplab.models.weights import read_checkpoint
from kplab.runs.run import Run
from kplab.structures.predictor import Model
from kplab.tasks.evaluation import scoring
from kplab.tasks.inference.assembly import Assembly
from kplab.tasks.training import callbacks
from kplab.tasks.training.checkpoints import LAST, AtomicIO, Checkpoints, copy_checkpoints, state_of
from kplab.tasks.training.curves import curve_logger, draw_curves
from kplab.tasks.training.duration import Duration
from kplab.tasks.training.pose_module import PoseModule
from kplab.tasks.wiring.datasets import TrainingData
from kplab.tasks.wiring.training import build_trainer, optimizer_factory


def fit(
    config: DictConfig,
    model: Model,
    data: TrainingData,
    folder: Path,
    run: Run | None,
    resumed: Path | None,
    stop_after: int | None = None,
    loggers: Sequence[Any] = (),
) -> None:
    """Train a model; writes checkpoints, ``curves.csv`` and ``curves.png``.

    Args:
        config: of ``kplab train``.
        model: trained in place.
        data: views and labels.
        folder: of the run.
        run: the run to record precision, device and speed in; None in the further processes of a distributed training.
        resumed: the checkpoint to go on from.
        stop_after: number of epochs after which to stop; None: as the config states.
        loggers: of the curves, besides ``curves.csv``; the caller closes them.
    """
    settings = scoring.settings_of(config.dataset)
    val = data.val.labels if data.val is not None else None
    factory = optimizer_factory(config, model)
    module = PoseModule(model, factory, val, settings, Assembly.of(config), config.seed)
    checkpoints = folder / "checkpoints"
    if resumed is not None:
        data.datamodule.first_epoch = state_of(read_checkpoint(resumed, mapped=True))["epochs"]
    if resumed is not None and run is not None:
        copy_checkpoints(resumed.parent, checkpoints)
    writing: list[Any] = []
    watching = watchers(config, checkpoints, validated=val is not None)
    if config.duration is not None:
        every = int(config.validate_every)
        watching.append(Duration(float(config.duration), lambda steps: factory(model, steps)[1].lr_lambdas, every))
    if stop_after is not None:
        watching.append(callbacks.StopAfter(stop_after))
    if run is not None:
        writing = [curve_logger(folder), *loggers]
        watching.append(LearningRateMonitor("step"))
    trainer = build_trainer(config, folder, watching, writing, [AtomicIO()])
    if run is not None:
        run.update(
            precision=str(trainer.precision),
            device=str(trainer.strategy.root_device),
            processes=trainer.world_size,
            threads=torch.get_num_threads(),
        )
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    begun = time.perf_counter()
    try:
        with report_lost_workers():
            trainer.fit(module, data.datamodule, ckpt_path=resumed, weights_only=True)
    except SystemExit:
        # Lightning ends the process on Ctrl-C and ignores further ones, but the record has to be closed
        signal.signal(signal.SIGINT, on_ctrl_c)
        raise KeyboardInterrupt from None
    if trainer.max_epochs == 0:
        # without training, the run predicts with the weights that it was given
        trainer.save_checkpoint(checkpoints / LAST)
    if run is not None:
        seconds = time.perf_counter() - begun
        in_epoch = min(len(data.train), int(trainer.num_training_batches) * config.batch_size * trainer.world_size)
        views = (trainer.current_epoch - module.first_epoch) * in_epoch
        speed = {"fit_seconds": round(seconds, 3), "images_per_s": round(views / seconds, 2)}
        epochs = next(c.epochs for c in watching if isinstance(c, Checkpoints))
        cut = cut_by_time(trainer, epochs) if stop_after is None else f"stopped after {epochs} epochs, as planned"
        length = {"epochs": epochs, "schedule_epochs": trainer.max_epochs, "steps": trainer.global_step}
        run.update(**length, cut=cut, **speed)
        writing[0].finalize("success")
        draw_curves(run)


def cut_by_time(trainer: pl.Trainer, epochs: int) -> str | None:
    """How far a training has come that ``trainer.max_time`` has ended; None for any other.

    Args:
        trainer: after the training.
        epochs: number of complete epochs.
    """
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    total = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs >= 0 else math.inf
    if epochs >= total or not any((timer.time_remaining() or 0) <= 0 for timer in timers):
        return None
    return f"cut by trainer.max_time after {epochs} of {'any number of' if total == math.inf else total} epochs"


def watchers(config: DictConfig, checkpoints: Path, validated: bool) -> list[pl.Callback]:
    """Callbacks of a training: progress, checkpoints, early stopping, averaged weights.

    Args:
        config: of ``kplab train``.
        checkpoints: folder of the checkpoints.
        validated: whether there is a validation, whose best epoch is kept.
    """
    metric = row_of((config.monitor or "").removeprefix("val/"))
    higher_is_better = metric is not None and metric.higher_is_better
    saving = Checkpoints(checkpoints, config.monitor if validated else None, higher_is_better)
    found: list[pl.Callback] = [callbacks.progress(), callbacks.Validations(int(config.validate_every)), saving]
    if validated and config.patience is not None:
        found.append(EarlyStopping(config.monitor, mode="max" if higher_is_better else "min", patience=config.patience))
    if config.ema is not None:
        found.append(callbacks.averaged_weights(config.ema))
    return found
