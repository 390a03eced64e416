"""Lightning's trainer, the optimiser and the loggers from configs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from omegaconf import DictConfig
from torch import nn

from kplab import config as configs
from kplab.errors import ConfigError
from kplab.tasks.wiring.nodes import build_node


def resolve_precision(asked: str, accelerator: str) -> str:
    """Lightning's precision for ``auto``: bf16 where the hardware has it, CPUs included; else full precision."""
    import torch

    if accelerator in ("gpu", "cuda") and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise ConfigError(
            f"the trainer wants a GPU, but torch {torch.__version__} sees none. Use trainer=cpu, or install a build of "
            "torch that fits the driver (README, Environment)."
        )
    if asked != "auto":
        return asked
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available()):
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() else "32-true"


def build_trainer(
    config: DictConfig, run_folder: Path, callbacks: list[pl.Callback], loggers: list[Any], plugins: list[Any]
) -> pl.Trainer:
    """Lightning's Trainer from ``conf/trainer``."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.callbacks import ProgressBar

    options = configs.plain(config.trainer)
    options["precision"] = resolve_precision(
        str(options.get("precision", "auto")), str(options.get("accelerator", "auto"))
    )
    try:
        return build_node(
            DictConfig(options),
            "trainer",
            callbacks=callbacks,
            logger=loggers,
            plugins=plugins,
            default_root_dir=str(run_folder),
            use_distributed_sampler=False,
            check_val_every_n_epoch=config.validate_every,
            num_sanity_val_steps=0,
            # Lightning refuses a bar of ours without this, and would add its own with it
            enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
            enable_model_summary=False,
        )
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {error} (see conf/trainer)") from None


def global_rank() -> int:
    """This process's number in a distributed run, before Lightning has started one."""
    for key in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if key in os.environ and (key != "SLURM_PROCID" or "SLURM_NTASKS" in os.environ):
            return int(os.environ[key])
    return 0


def optimizer_factory(config: DictConfig, model: nn.Module) -> Callable[..., Any]:
    """The optimiser's function, as a factory of ``model`` and ``steps``; called once, so that an error shows before training."""

    def factory(model: Any, steps: int) -> Any:
        return build_node(config.optimizer, "optimizer", model=model, steps=steps)

    factory(model, 10)
    return factory


def build_loggers(config: DictConfig, run_folder: Path, run_name: str) -> list[Any]:
    """The loggers of ``conf/logger`` besides the CSV file, which is always written; wandb is silent unless it fails.

    Runs of one name form a group in wandb, e.g. the seeds of an experiment.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    target = str(config.logger.get("_target_") or "").rsplit(".", 1)[-1]
    if not target:
        return []
    more: dict[str, Any] = {"name": run_name}
    if target == "TensorBoardLogger":
        more = {"name": "tensorboard", "version": ""}  # the folder tensorboard/ of the run
    if target == "WandbLogger":
        about = {
            "group": config.get("name"),
            "job_type": "train",
            "tags": [str((config.get("dataset") or {}).get("name"))],
        }
        more |= {key: value for key, value in about.items() if value and key not in config.logger}
    logger = build_node(config.logger, "logger", save_dir=str(run_folder), **more)
    # Lightning passes an argument on whose only effect is a warning
    getattr(logger, "_wandb_init", {}).pop("anonymous", None)
    return [logger]
