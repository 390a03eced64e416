"""``kplab train``: a run from a config, scored on its test split at the end."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf

from kplab import config as configs
from kplab.config import ConfigError
from kplab.models.cascade import Cascade
from kplab.runs.provenance import sha256
from kplab.runs.run import Run, RunError
from kplab.runs.table import rows
from kplab.tasks import build, callbacks, evaluate, predict, sweep
from kplab.tasks.errors import describe
from kplab.tasks.gather import Assembly
from kplab.tasks.memorise import memorise
from kplab.tasks.pose_module import PoseModule

#: Set by the first process of a distributed run, so that those it starts write into the same folder.
FOLDER_VARIABLE = "KPLAB_RUN_FOLDER"


def main(args: list[str]) -> None:
    """Entry of the verb."""
    if "--multirun" in args or "-m" in args:
        sweep.main([a for a in args if a not in ("--multirun", "-m")])
        return
    show = "--cfg" in args
    config = configs.compose("train", [a for a in args if a != "--cfg"])
    if show:
        print(OmegaConf.to_yaml(config))
        return
    train(config)


def train(config: DictConfig) -> Run | None:
    """Train, then predict and score the splits of ``test_on``.

    Returns:
        the closed run; None in the further processes of a distributed training.

    Raises:
        ConfigError, DataError: before anything is trained, where it can be known.
    """
    callbacks.quiet()
    learn: Callable[..., None] = fit if config.get("matcher") is None else memorise
    chief = build.global_rank() == 0
    resumed = resume_from(config)
    pl.seed_everything(config.seed, workers=False, verbose=False)
    # deterministic mode would also fill every new tensor, which costs a third of the speed and changes no result
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    model = build.model_of(config)
    build.check_flip_test(model, config.flip_test)
    data = build.data_of(config, model.max_poses)
    if not chief:
        folder = Path(os.environ.get(FOLDER_VARIABLE, config.runs))
        learn(config, model, data, folder, None, resumed)
        return None
    run = Run.create(
        Path(config.runs),
        str(config.name),
        OmegaConf.to_yaml(config),
        configs.workspace(),
        seed=config.seed,
        parent=config.parent,
        dataset={"name": config.dataset.name, **{name: labels.digest() for name, labels in data.splits.items()}},
        split=split_of(config),
        counts={name: [len(labels), len(labels.poses)] for name, labels in data.splits.items()},
        parameters=sum(p.numel() for p in model.parameters()),
        notes=data.notes,
    )
    os.environ[FOLDER_VARIABLE] = str(run.folder)
    try:
        tell(run, config, data, model)
        callbacks.check_disk(run.folder, model)
        learn(config, model, data, run.folder, run, resumed)
        for split in config.test_on:
            # a cascade is measured on annotated boxes as well: what the pose model is worth without the detector
            for regions in (None, "annotated") if isinstance(model, Cascade) else (None,):
                if split in data.splits:
                    labels = data.splits[split]
                    predictions = predict.predict_split(run, split, labels=labels, regions=regions)
                    evaluate.evaluate_run(run, split, predictions=predictions, labels=labels)
        run.close("finished")
    except BaseException as error:
        if callbacks.is_disk_full(error) and not isinstance(error, OSError):
            error = OSError(errno.ENOSPC, "no space left", str(run.folder / "checkpoints"))
        run.close("failed", describe(error))
        raise error from None
    finally:
        os.environ.pop(FOLDER_VARIABLE, None)
    print(f"run: {run.folder}")
    return run


def trained(config: DictConfig) -> Run:
    """The newest finished run of exactly this config, or else a new one."""
    digest = sha256(OmegaConf.to_yaml(config))
    for row in rows(Path(config.runs)):
        if row["status"] == "finished":
            run = Run.open(Path(config.runs) / row["run"])
            if run.record["config_sha256"] == digest:
                return run
    made = train(config)
    if made is None:
        raise ConfigError("this process is a helper of a distributed training. Use a trainer without ddp.")
    return made


def split_of(config: DictConfig) -> dict[str, Any] | None:
    """The split's plan and the hash of its manifest, for the record."""
    plan = config.dataset.get("split")
    if plan is None:
        return None
    manifest = Path(plan.manifest)
    return {
        **configs.plain(plan),
        "sha256": sha256(manifest.read_bytes()) if manifest.is_file() else None,
    }


def resume_from(config: DictConfig) -> Path | None:
    """The last checkpoint of the run that ``resume`` names.

    Raises:
        RunError: the run has none, or was made with another config.
    """
    if config.resume is None:
        return None
    parent = Run.find(str(config.resume), Path(config.runs))
    path = parent.folder / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise RunError(
            f"{parent.folder}: has no checkpoints/last.ckpt, so it can't be resumed. Train anew without resume."
        )
    try:
        torch.load(path, map_location="cpu", weights_only=False, mmap=True)
    except Exception as error:
        raise RunError(
            f"{path}: can't be read ({type(error).__name__}). It is damaged: train anew without resume."
        ) from None
    before = build.config_of(parent)
    for key in (
        "dataset",
        "backbone",
        "neck",
        "head",
        "detector",
        "matcher",
        "size",
        "regions",
        "padding",
        "batch_size",
        "seed",
        "optimizer",
        "augment",
    ):
        if before.get(key) != config.get(key):
            raise RunError(
                f"resume={parent.name}: '{key}' differs from that run's config. A resumed run goes on as it began; "
                "give the same overrides, or train anew."
            )
    config.parent = parent.name
    return path


def fit(config: DictConfig, model: Any, data: build.Data, folder: Path, run: Run | None, resumed: Path | None) -> None:
    """Run Lightning's loop."""
    settings = evaluate.settings_of(config.dataset)
    val = data.splits.get("val") if data.val is not None else None
    module = PoseModule(model, build.optimizer_factory(config), val, settings, Assembly.of(config), config.seed)
    checkpoints = folder / "checkpoints"
    if resumed is not None and run is not None:
        # the best so far may stay the best, and nothing may be left to train
        shutil.copytree(resumed.parent, checkpoints, dirs_exist_ok=True)
    watching: list[pl.Callback] = [callbacks.progress()]
    mode = "max" if config.monitor.endswith("AP") else "min"
    # last.ckpt is written first: should the disk fill up, the newer state is the one that is whole
    watching.append(
        callbacks.Checkpoint(
            checkpoints,
            filename="last",
            save_top_k=1,
            enable_version_counter=False,
            save_on_train_epoch_end=True,  # whether or not the epoch is validated
        )
    )
    if val is not None:
        watching.append(
            callbacks.Checkpoint(
                checkpoints,
                filename="best",
                monitor=config.monitor,
                mode=mode,
                save_top_k=1,
                enable_version_counter=False,
            )
        )
        if config.patience is not None:
            watching.append(EarlyStopping(config.monitor, mode=mode, patience=config.patience))
    watching.append(callbacks.SaveFirst(checkpoints / "last.ckpt"))
    if config.ema is not None:
        watching.append(callbacks.averaged_weights(config.ema))
    loggers: list[Any] = []
    if run is not None:
        curves = CSVLogger(folder, name="", version="")
        curves.experiment.metrics_file_path = str(folder / "curves.csv")
        loggers = [curves, *build.logger_of(config, folder, run.name)]
        watching.append(LearningRateMonitor("step"))
    trainer = build.trainer_of(config, folder, watching, loggers)
    if run is not None:
        run.update(
            precision=str(trainer.precision),
            device=str(trainer.strategy.root_device),
            processes=trainer.world_size,
            threads=torch.get_num_threads(),
        )
    stop = signal.getsignal(signal.SIGINT)
    begun = time.perf_counter()
    try:
        trainer.fit(module, data.datamodule, ckpt_path=resumed, weights_only=False)
    except SystemExit:
        # Lightning ends the process on Ctrl-C, and ignores further ones; the record is still to be closed
        signal.signal(signal.SIGINT, stop)
        raise KeyboardInterrupt from None
    if run is not None:
        seconds = time.perf_counter() - begun
        views = (trainer.current_epoch - module.first_epoch) * len(data.train)
        speed = {"fit_seconds": round(seconds, 3), "images_per_s": round(views / seconds, 2)}
        run.update(epochs=trainer.current_epoch, steps=trainer.global_step, **speed)
        for logger in loggers:
            logger.finalize("success")


def tell(run: Run, config: DictConfig, data: build.Data, model: Any) -> None:
    """Say what is about to be trained, and what is left out of it."""
    counts = ", ".join(f"{name} {len(labels)} images" for name, labels in data.splits.items())
    million = sum(p.numel() for p in model.parameters()) / 1e6
    print(
        f"{run.name}: {config.dataset.name} ({counts}), {million:.1f} M parameters, views {config.size[0]}x{config.size[1]}"
    )
    for note in data.notes:
        print(f"  {note}")
    sys.stdout.flush()
