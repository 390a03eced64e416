"""Resuming a training: the config it is composed from, and the checkpoint it goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf

from kplab import config as configs
from kplab.errors import ModelError, RunError
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
    run = Run.find(
        str(values["resume"]), Path(values.get("runs_dir") or usual.runs_dir), resumable=True, announce=False
    )
    config = with_missing_keys(load_config(run))
    config.runs_dir = str(run.folder.parent)
    for group in groups:
        del config[group]
    return config, [f"+{text}" if _is_group(o) else text for o, text in zip(parsed, overrides, strict=True)]


def with_missing_keys(config: DictConfig) -> DictConfig:
    """The config of a run, with the usual values of keys that were added since."""
    usual = DictConfig(OmegaConf.load(configs.conf_dir() / "train.yaml"))
    for key in usual.keys() - config.keys() - {"defaults"}:
        config[key] = usual[key]
    return config


def resume_from(config: DictConfig) -> tuple[Run, Path | None] | None:
    """The run that ``resume`` names and its last checkpoint; None without ``resume``.

    Returns:
        the run, and the checkpoint to go on from; None for a run without a complete epoch, which is trained from the start.

    Raises:
        RunError: the run has no readable checkpoint, or is not the same training.
    """
    if config.resume is None:
        return None
    from kplab.models.weights import read_checkpoint  # torch is not imported before the command is checked
    from kplab.tasks.inference.loading import check_checkpoint
    from kplab.tasks.training.checkpoints import BEST, LAST, remove_parts, state_of

    run = Run.find(str(config.resume), Path(config.runs_dir), resumable=True)
    path = run.folder / "checkpoints" / LAST
    if run.status != "running":
        remove_parts(path.parent)
    if not path.is_file():
        raise RunError(f"{run.folder}: has no checkpoints/{LAST} to resume from. Train anew without resume.")
    best = path.with_name(BEST)
    fault = fault_of(path)
    if fault is not None:
        usable = best.is_file() and fault_of(best) is None
        other = (
            f" {BEST} is complete and can still predict: kplab predict run={run.name} checkpoint=best."
            if usable
            else ""
        )
        raise RunError(f"{fault} Train anew without resume.{other}")
    if best.is_file() and (fault := fault_of(best)) is not None:
        raise RunError(f"{fault} Delete it to resume without it: the next validation is then the best so far.")
    stored = with_missing_keys(load_config(run))
    length = [(c.duration, c.trainer.get("max_epochs")) for c in (stored, config)]
    if config.duration is not None and length[0] != length[1]:
        raise RunError(
            f"resume={run.name}: the length of that training follows from its duration ({stored.duration}), which stays. To train "
            "it for longer, give duration=null trainer.max_epochs=NUMBER."
        )
    found = differences(stored, config, resumed=True)
    if found:
        lines = [f"  {d.key} is {d.one} in that run and {d.other} in this command" for d in found[:NAMED]]
        lines += [f"  and {len(found) - NAMED} more"] if len(found) > NAMED else []
        raise RunError(
            f"resume={run.name}: this command describes another training:\n" + "\n".join(lines) + "\n"
            "A resumed run keeps its config: give resume=RUN alone, with what may change (trainer.max_epochs, workers, …); "
            "or train anew without resume."
        )
    for kept in (best, path):
        if kept.is_file():
            check_checkpoint(run, kept)
    checkpoint = read_checkpoint(path, mapped=True)
    epochs = state_of(checkpoint)["epochs"]
    if epochs is None and "optimizer_states" in checkpoint:  # a gradient-free model has neither
        raise RunError(
            f"{path}: doesn't state its complete epochs, as an older kplab wrote it. Train anew without resume."
        )
    if epochs == 0:
        print(f"resume={run.name}: it has no complete epoch, so the training starts from the beginning.")
        return run, None
    return run, path


def fault_of(path: Path) -> str | None:
    """Why a checkpoint can't be read; None if it can."""
    from kplab.models.weights import read_checkpoint

    try:
        read_checkpoint(path, mapped=True)
    except ModelError as error:
        return str(error)
    return None


def _is_group(override: Override) -> bool:
    """Whether an override chooses a config group and not a value."""
    return (configs.conf_dir() / override.key_or_group).is_dir() and not isinstance(override.value(), dict)
