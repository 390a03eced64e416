"""Training: a run from a config, predicted and scored on its test splits at the end."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig, OmegaConf

from kplab import config as configs
from kplab.data.fingerprint_cache import FingerprintCache
from kplab.data.leaks import find_leaks
from kplab.errors import ConfigError, DataError, describe, printable
from kplab.metrics.metric import metrics_of
from kplab.metrics.settings import ScoreSettings
from kplab.models.weights import read_checkpoint
from kplab.runs.provenance import file_sha256, sha256
from kplab.runs.run import Run
from kplab.structures.predictor import Model
from kplab.tasks.evaluation import scoring
from kplab.tasks.inference.predict import predict_split
from kplab.tasks.training import callbacks, loggers
from kplab.tasks.training.checkpoints import LAST, check_disk, hashes_of, state_of
from kplab.tasks.training.curves import COUNTED_FROM
from kplab.tasks.training.duration import check_schedule
from kplab.tasks.training.fit import fit
from kplab.tasks.training.one_pass import fit_one_pass
from kplab.tasks.training.resume import resume_from
from kplab.tasks.wiring.data_hashes import DataHashes, changed_since
from kplab.tasks.wiring.datasets import TrainingData, detections_of, training_data
from kplab.tasks.wiring.identity import changed_on_resume, find_run
from kplab.tasks.wiring.models import backbone_weights, build_model, check_flip_test
from kplab.tasks.wiring.training import build_loggers, global_rank, optimizer_factory, resolve_precision

#: Environment variable with the run's folder, for the further processes of a distributed training.
FOLDER_VARIABLE = "KPLAB_RUN_FOLDER"


def train(
    config: DictConfig,
    check_inputs: Callable[[Model, TrainingData, DataHashes], None] | None = None,
    stop_after: int | None = None,
    **entries: Any,
) -> Run | None:
    """Train, then predict and score the splits of ``test_on``.

    Args:
        config: of ``kplab train``.
        check_inputs: called with the model and the data before anything is trained; may raise.
        stop_after: number of epochs after which the training ends, at an unchanged schedule; None: as the config states.
        entries: further entries of the run's record.

    Returns:
        the closed run; None in the further processes of a distributed training.

    Raises:
        KplabError: config, data, model or the run to resume are not valid; before anything is trained, where possible.
    """
    callbacks.quiet()
    is_rank_zero = global_rank() == 0
    resumed = resume_from(config)
    parent, checkpoint = resumed or (None, None)
    config.parent = parent.name if parent is not None else config.parent
    if checkpoint is None:
        config.resume = None  # a training from the start, with the weights that the config names
    pl.seed_everything(config.seed, workers=False, verbose=False)
    # deterministic mode would also fill new tensors, which costs a third of the speed and changes no result
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    resolve_precision(str(config.trainer.get("precision", "auto")), str(config.trainer.get("accelerator", "auto")))
    if config.monitor is not None:
        check_monitor(config.monitor, scoring.settings_of(config.dataset))
    model = build_model(config)
    learn: Callable[..., None] = fit_one_pass if model.one_pass else fit
    if not model.one_pass:
        factory = optimizer_factory(config, model)
        if config.duration is not None:
            check_schedule(lambda steps: factory(model, steps)[1].lr_lambdas)
    check_flip_test(model, config.flip_test)
    data = training_data(config, model.max_poses)
    if not is_rank_zero:
        folder = Path(os.environ.get(FOLDER_VARIABLE, config.runs_dir))
        learn(config, model, data, folder, None, checkpoint, stop_after)
        return None
    hashes = DataHashes.of(data.splits, manifest_of(config))
    if check_inputs is not None:
        check_inputs(model, data, hashes)
    if parent is not None and (changed := changed_since(parent, data.splits, manifest_of(config), hashes)):
        raise DataError(
            f"resume={parent.name}: that training began on other data than the files hold now:\n"
            + "\n".join(f"  {line}" for line in changed)
            + "\nRestore them, or train anew without resume."
        )
    leaks = find_leaks(data.splits, hashes.image_hashes(), FingerprintCache.of_workspace(configs.workspace()))
    data.notes += [f"split {leak.line()}" for leak in leaks if leak]
    run = Run.create(
        Path(config.runs_dir),
        str(config.name),
        OmegaConf.to_yaml(config),
        configs.workspace(),
        seed=config.seed,
        parent=config.parent,
        changed_on_resume=changed_on_resume(parent, config) if parent is not None else [],
        dataset={"name": config.dataset.name, **{name: labels.digest() for name, labels in data.splits.items()}},
        data_sha256=sha256(hashes.text()),
        split=split_of(config),
        detections=detections_of(config, data.splits),
        counts={name: [len(labels), len(labels.poses)] for name, labels in data.splits.items()},
        weights=parent.record.get("weights") if parent is not None else weights_of(config),
        backbone_weights=parent.record.get("backbone_weights") if parent is not None else backbone_weights(model),
        parameters=sum(p.numel() for p in model.parameters()),
        leaks=[leak.record() for leak in leaks],
        notes=data.notes,
        curves_counted_from=COUNTED_FROM,
        **entries,
    )
    os.environ[FOLDER_VARIABLE] = str(run.folder)
    writing: list[Any] = []
    try:
        writing = build_loggers(config, run.folder, run.name)
        loggers.begin(writing, run, config)
        hashes.write(run.folder)
        print_summary(run, config, data, model)
        check_disk(run.folder / "checkpoints", model)
        learn(config, model, data, run.folder, run, checkpoint, stop_after, writing)
        run.update(checkpoints=hashes_of(run.folder / "checkpoints"))
        for split in config.test_on:
            # a cascade is scored on annotated boxes, too: the accuracy of its pose model without the detector
            for regions in (None,) if model.for_regions("annotated") is model else (None, "annotated"):
                if split in data.splits:
                    labels = data.splits[split]
                    predictions = predict_split(run, split, labels=labels, regions=regions)
                    scoring.evaluate_run(run, split, predictions=predictions, labels=labels)
        loggers.end(writing, run, data.splits)
        run.close("finished")
    except KeyboardInterrupt:
        run.close("stopped", cut="stopped by Ctrl-C")
        raise KeyboardInterrupt(how_to_resume(run)) from None
    except BaseException as error:
        if callbacks.is_disk_full(error) and not isinstance(error, OSError):
            error = OSError(errno.ENOSPC, "no space left", str(run.folder / "checkpoints"))
        run.close("failed", describe(error))
        raise error from None
    finally:
        os.environ.pop(FOLDER_VARIABLE, None)
        loggers.close(writing, failed=run.record["status"] != "finished")
    print(f"run: {run.folder}")
    return run


def how_to_resume(run: Run) -> str:
    """How to go on with a run that has ended early."""
    path = run.folder / "checkpoints" / LAST
    if not path.is_file() or state_of(read_checkpoint(path, mapped=True))["epochs"] == 0:
        return "It has no complete epoch: start it again to train it."
    # a name is looked for in the usual folder
    name = run.name if run.folder.parent == configs.workspace() / "runs" else run.folder
    return f"To go on: kplab train resume={name}"


def trained(config: DictConfig) -> Run:
    """The newest finished run of the same training, see ``wiring.identity``; else a new run.

    Raises:
        ConfigError: this process is a further one of a distributed training.
    """
    run = find_run(config)
    if run is not None and run.status == "finished":
        return run
    made = train(config)
    if made is None:
        raise ConfigError("this is a further process of a distributed training. Use a trainer without ddp.")
    return made


def check_monitor(name: str, settings: ScoreSettings) -> None:
    """Check that a validation logs the monitored metric under the dataset's evaluation settings.

    Raises:
        ConfigError: names the metrics that there are.
    """
    known = ["val/loss", *(f"val/{m.name}" for m in metrics_of(asdict(settings), "validation"))]
    if name not in known:
        raise ConfigError(f"monitor is '{name}'. Use one of: {', '.join(known)}.")


def weights_of(config: DictConfig) -> dict[str, str] | None:
    """The file of weights that a training starts from and its hash, for the record; None without one."""
    return config.weights and {"file": str(config.weights), "sha256": file_sha256(Path(config.weights))}


def manifest_of(config: DictConfig) -> Path | None:
    """The manifest of a dataset's split; None without a split."""
    plan = config.dataset.get("split")
    return None if plan is None else Path(plan.manifest)


def split_of(config: DictConfig) -> dict[str, Any] | None:
    """Options of the split and the hash of its manifest, for the record; None without a split."""
    manifest = manifest_of(config)
    if manifest is None:
        return None
    return {
        **configs.plain(config.dataset.split),
        "sha256": file_sha256(manifest) if manifest.is_file() else None,
    }


def print_summary(run: Run, config: DictConfig, data: TrainingData, model: Any) -> None:
    """Print what will be trained, and what is left out."""
    counts = ", ".join(f"{name} {len(labels)} images" for name, labels in data.splits.items())
    million = sum(p.numel() for p in model.parameters()) / 1e6
    print(
        printable(
            f"{run.name}: {config.dataset.name} ({counts}), {million:.1f} M parameters, views "
            f"{config.size[0]}x{config.size[1]}"
        )
    )
    for name, weights in (run.record.get("backbone_weights") or {}).items():
        print(printable(f"  {name} starts from {weights['source']} ({weights['file']})"))
    for note in data.notes:
        print(printable(f"  {note}"))
    for split in config.test_on:
        if split not in data.splits:
            print(
                f"  nothing will be scored on '{split}': the dataset has {', '.join(data.splits)}. Use test_on=[NAME]"
            )
    sys.stdout.flush()
