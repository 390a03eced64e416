"""Resuming a training: the config it is composed from, and the checkpoint it goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf

from kplab import config as configs
from kplab.errors import RunError
from kplab.runs.run import Run
from kplab.tasks.wiring.identity import IRRELEVANT, differences
from kplab.tasks.wiring.nodes import load_config

#: Differences named in a refusal.
NAMED = 6


def stored_config(overrides: list[str]) -> tuple[DictConfig | None, list[str]]:
    """The config of the run that ``resume=RUN`` names, for the other overrides to be applied to.

    Returns:
        the config, and the overrides as they apply to it. None and the overrides unchanged without ``resume``, or where the
        command chooses a group that matters (experiment=NAME, head=NAME): such a command is composed by itself, and
        ``resume_from`` refuses it unless it describes the same training.

    Raises:
        RunError: no such run, or its config can't be read.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException:
        return None, overrides  # the composition names the fault
    values: dict[str, Any] = {o.key_or_group: o.value() for o in parsed if not o.is_sweep_override()}
    groups = {o.key_or_group for o in parsed if _is_group(o)}
    if values.get("resume") is None or groups - set(IRRELEVANT):
        return None, overrides
    usual = DictConfig(OmegaConf.load(configs.conf_dir() / "train.yaml"))
    OmegaConf.register_new_resolver("workspace", lambda: str(configs.workspace()), replace=True)
    run = Run.find(str(values["resume"]), Path(values.get("runs_dir") or usual.runs_dir))
    config = load_config(run)
    # an older run lacks what has been added since
    for key in usual.keys() - config.keys() - {"defaults"}:
        config[key] = usual[key]
    config.runs_dir = str(run.folder.parent)
    for group in groups:
        del config[group]
    return config, [f"+{text}" if _is_group(o) else text for o, text in zip(parsed, overrides, strict=True)]


def resume_from(config: DictConfig) -> tuple[Run, Path] | None:
    """The run that ``resume`` names and its last checkpoint; None without ``resume``.

    Raises:
        RunError: the run has no readable checkpoint, or is not the same training.
    """
    if config.resume is None:
        return None
    run = Run.find(str(config.resume), Path(config.runs_dir))
    path = run.folder / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise RunError(f"{run.folder}: has no checkpoints/last.ckpt to resume from. Train anew without resume.")
    import torch

    try:
        torch.load(path, map_location="cpu", weights_only=False, mmap=True)
    except Exception as error:
        raise RunError(
            f"{path}: can't be read ({type(error).__name__}). It is damaged: train anew without resume."
        ) from None
    found = differences(load_config(run), config, resumed=True)
    if found:
        lines = [f"  {d.key} is {d.one} in that run and {d.other} in this command" for d in found[:NAMED]]
        lines += [f"  and {len(found) - NAMED} more"] if len(found) > NAMED else []
        raise RunError(
            f"resume={run.name}: this command describes another training:\n" + "\n".join(lines) + "\n"
            "A resumed run keeps its config: give resume=RUN alone, with what may change (trainer.max_epochs, workers, …); "
            "or train anew without resume."
        )
    return run, path


def _is_group(override: Override) -> bool:
    """Whether an override chooses a config group and not a value."""
    return (configs.conf_dir() / override.key_or_group).is_dir() and not isinstance(override.value(), dict)
