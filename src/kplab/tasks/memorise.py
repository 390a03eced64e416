"""What ``kplab train`` does with a model that has no gradient: it goes through the training views, and keeps them in mind."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from omegaconf import DictConfig

from kplab.classical.exemplar import Exemplar
from kplab.data.datamodule import EpochSampler, loader
from kplab.runs.run import Run
from kplab.tasks import build


def memorise(
    config: DictConfig, model: Exemplar, data: build.Data, folder: Path, run: Run | None, resumed: Path | None
) -> None:
    """Memorise all training views, in order, and write ``checkpoints/last.ckpt`` and an empty ``curves.csv``.

    Resuming is doing it again, which gives the same memory. It is one process's work: others have none.
    """
    if run is None:
        return
    begun = time.perf_counter()
    batches = loader(data.train, config.batch_size, data.datamodule.workers, EpochSampler(len(data.train), False))
    model.memorise(batches)
    seconds = time.perf_counter() - begun
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    torch.save({"state_dict": {f"model.{name}": value for name, value in model.state_dict().items()}}, scratch)
    scratch.replace(path)
    (folder / "curves.csv").write_text("epoch\n")
    run.update(
        precision="32-true",
        device="cpu",
        processes=1,
        threads=torch.get_num_threads(),
        epochs=1,
        steps=len(batches),
        memorised=model.remembered(),
        fit_seconds=round(seconds, 3),
        images_per_s=round(len(data.train) / seconds, 2),
    )
    counts = ", ".join(f"{number} {what}" for what, number in model.remembered().items())
    print(f"memorised in {seconds:.0f} s: {counts}", flush=True)
