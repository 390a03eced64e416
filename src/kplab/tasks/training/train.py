"""A run from a config, scored on its test split at the end."""

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
from kplab.errors import ConfigError, RunError, describe
from kplab.runs.provenance import sha256
from kplab.runs.run import Run
from kplab.runs.table import rows
from kplab.tasks.evaluation import scoring
from kplab.tasks.inference.assembly import Assembly
from kplab.tasks.inference.predict import predict_split
from kplab.tasks.training import callbacks
from kplab.tasks.training.one_pass import fit_one_pass
from kplab.tasks.training.pose_module import PoseModule
from kplab.tasks.wiring.datasets import TrainingData, training_data
from kplab.tasks.wiring.models import build_model, check_flip_test
from kplab.tasks.wiring.nodes import load_config
from kplab.tasks.wiring.training import build_loggers, build_trainer, global_rank, optimizer_factory, resolve_precision

#: What a resumed training must have in common with the one that it goes on from. (``trainer`` may differ, to train longer.)
ALIKE = (
    "dataset", "model", "backbone", "neck", "head", "detector", "size", "window", "window_anywhere", "regions", "detector_run",
    "padding", "batch_size", "seed", "optimizer", "augment", "ema", "monitor", "rescore", "oks_nms", "oks_nms_soft",
)  # fmt: skip
#: Set by the first process of a distributed run, so that those it starts write into the same folder.
FOLDER_VARIABLE = "KPLAB_RUN_FOLDER"


def train(config: DictConfig) -> Run | None:
    """Train, then predict and score the splits of ``test_on``.

    Returns:
        the closed run; None in the further processes of a distributed training.

    Raises:
        ConfigError, DataError: before anything is trained, where it can be known.
    """
    callbacks.quiet()
    is_rank_zero = global_rank() == 0
    resumed = resume_from(config)
    pl.seed_everything(config.seed, workers=False, verbose=False)
    # deterministic mode would also fill every new tensor, which costs a third of the speed and changes no result
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    resolve_precision(str(config.trainer.get("precision", "auto")), str(config.trainer.get("accelerator", "auto")))
    scoring.settings_of(config.dataset)
    model = build_model(config)
    learn: Callable[..., None] = fit_one_pass if model.one_pass else fit
    if not model.one_pass:
        optimizer_factory(config, model)
    check_flip_test(model, config.flip_test)
    data = training_data(config, model.max_poses)
    if not is_rank_zero:
        folder = Path(os.environ.get(FOLDER_VARIABLE, config.runs_dir))
        learn(config, model, data, folder, None, resumed)
        return None
    run = Run.create(
        Path(config.runs_dir),
        str(config.name),
        OmegaConf.to_yaml(config),
        configs.workspace(),
        seed=config.seed,
        parent=config.parent,
        dataset={"name": config.dataset.name, **{name: labels.digest() for name, labels in data.splits.items()}},
        split=split_of(config),
        counts={name: [len(labels), len(labels.poses)] for name, labels in data.splits.items()},
        weights=None
        if config.weights is None
        else {"file": str(config.weights), "sha256": sha256(Path(config.weights).read_bytes())},
        parameters=sum(p.numel() for p in model.parameters()),
        notes=data.notes,
    )
    os.environ[FOLDER_VARIABLE] = str(run.folder)
    try:
        print_summary(run, config, data, model)
        callbacks.check_disk(run.folder, model)
        learn(config, model, data, run.folder, run, resumed)
        for split in config.test_on:
            # a cascade is measured on annotated boxes as well: what the pose model is worth without the detector
            for regions in (None,) if model.for_regions("annotated") is model else (None, "annotated"):
                if split in data.splits:
                    labels = data.splits[split]
                    predictions = predict_split(run, split, labels=labels, regions=regions)
                    scoring.evaluate_run(run, split, predictions=predictions, labels=labels)
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
    for row in rows(Path(config.runs_dir)):
        if row["status"] == "finished":
            run = Run.open(Path(config.runs_dir) / row["run"])
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
    parent = Run.find(str(config.resume), Path(config.runs_dir))
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
    before = load_config(parent)
    for key in ALIKE:
        if before.get(key) != config.get(key):
            raise RunError(
                f"resume={parent.name}: '{key}' differs from that run's config. A resumed run goes on as it began; "
                "give the same overrides, or train anew."
            )
    config.parent = parent.name
    return path


def fit(
    config: DictConfig, model: Any, data: TrainingData, folder: Path, run: Run | None, resumed: Path | None
) -> None:
    """Run Lightning's loop."""
    settings = scoring.settings_of(config.dataset)
    val = data.splits.get("val") if data.val is not None else None
    module = PoseModule(model, optimizer_factory(config, model), val, settings, Assembly.of(config), config.seed)
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
        loggers = [curves, *build_loggers(config, folder, run.name)]
        watching.append(LearningRateMonitor("step"))
    trainer = build_trainer(config, folder, watching, loggers)
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
    if trainer.max_epochs == 0:
        # nothing is learnt: a run that predicts with the weights that it was given
        trainer.save_checkpoint(checkpoints / "last.ckpt")
    if run is not None:
        seconds = time.perf_counter() - begun
        views = (trainer.current_epoch - module.first_epoch) * len(data.train)
        speed = {"fit_seconds": round(seconds, 3), "images_per_s": round(views / seconds, 2)}
        run.update(epochs=trainer.current_epoch, steps=trainer.global_step, **speed)
        for logger in loggers:
            logger.finalize("success")


def print_summary(run: Run, config: DictConfig, data: TrainingData, model: Any) -> None:
    """Say what is about to be trained, and what is left out of it."""
    counts = ", ".join(f"{name} {len(labels)} images" for name, labels in data.splits.items())
    million = sum(p.numel() for p in model.parameters()) / 1e6
    print(
        f"{run.name}: {config.dataset.name} ({counts}), {million:.1f} M parameters, views {config.size[0]}x{config.size[1]}"
    )
    for note in data.notes:
        print(f"  {note}")
    for split in config.test_on:
        if split not in data.splits:
            print(
                f"  nothing will be scored on '{split}': the dataset has {', '.join(data.splits)}. Use test_on=[NAME]"
            )
    sys.stdout.flush()
