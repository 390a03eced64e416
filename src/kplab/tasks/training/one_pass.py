"""Training of a gradient-free model: one pass over the training views."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from kplab.data.datamodule import EpochSampler, loader, report_lost_workers
from kplab.runs.run import Run
from kplab.structures.predictor import Model
from kplab.tasks.training.checkpoints import LAST, save
from kplab.tasks.wiring.datasets import TrainingData


def fit_one_pass(
    config: DictConfig,
    model: Model,
    data: TrainingData,
    folder: Path,
    run: Run | None,
    resumed: Path | None,
    stop_after: int | None = None,
    loggers: Sequence[Any] = (),
) -> None:
    """Fit a gradient-free model in one pass over the training views, in order; writes a checkpoint and an empty
    ``curves.csv``.

    A resumed run is fitted again, which gives the same memory. Only the first process of a distributed training works.
    There are no curves to log.
    """
    if run is None:
        return
    begun = time.perf_counter()
    batches = loader(data.train, config.batch_size, data.datamodule.workers, EpochSampler(len(data.train), False))
    with report_lost_workers():
        learnt = model.fit(batches)
    seconds = time.perf_counter() - begun
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    save({"state_dict": state}, folder / "checkpoints" / LAST)
    (folder / "curves.csv").write_text("epoch\n")
    run.update(
        precision="32-true",
        device="cpu",
        processes=1,
        threads=torch.get_num_threads(),
        epochs=1,
        steps=len(batches),
        learnt=learnt,
        fit_seconds=round(seconds, 3),
        images_per_s=round(len(data.train) / seconds, 2),
    )
    counts = ", ".join(f"{number} {what}" for what, number in learnt.items())
    print(f"fitted in {seconds:.0f} s: {counts}", flush=True)
