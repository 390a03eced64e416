"""The identity of a training: what of its config decides the result.

``resume`` refuses a run of another identity, and a training whose identity a finished run has is not repeated. Every key of a
config belongs to the identity unless a list below exempts it, so a new option takes part without further ado.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kplab import config as configs
from kplab.errors import RunError
from kplab.runs.provenance import sha256
from kplab.runs.run import Run
from kplab.tasks.wiring.nodes import load_config

#: Keys that never change what is trained, nor what is predicted and scored afterwards. A key covers the keys below it.
IRRELEVANT = (
    "runs_dir",  # where the folder is
    "name",  # a label
    "logger",  # what else is logged
    "dataset.catalogue",  # where the data are fetched from
    "workers",  # augmentation depends on (seed, epoch, index) alone
    "resume",  # how the run came about: a resumed run equals one that was never stopped
    "parent",
    "trainer.accelerator",  # the same computation, up to rounding
    "trainer.strategy",  # how processes exchange gradients
    "trainer.log_every_n_steps",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.enable_checkpointing",
    "trainer.default_root_dir",
    "trainer.profiler",
    "trainer.detect_anomaly",  # only stops at NaN
)
#: Keys that a resumed run may change, and with which it equals a run that had them from the start.
LATE = (
    "trainer.max_time",  # when to stop
    "patience",
    "flip_test",  # what is predicted and scored when the training is over
    "test_on",
)
#: Further keys that a resumed run may change: the steps that are done are not affected, but the whole is another training.
CHANGED_ON_RESUME = (
    # length: the schedule of the learning rate spans it
    "trainer.max_epochs",
    "trainer.min_epochs",
    "trainer.max_steps",
    "trainer.min_steps",
    "duration",
    # number of processes: each takes batch_size views a step
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.sync_batchnorm",  # without effect in one process
    "validate_every",  # which epochs may be the best
    "validate_images",
)


@dataclass(frozen=True)
class Difference:
    """A key in which two configs differ, with both values; None where a config lacks it."""

    key: str
    one: Any
    other: Any


def identity(config: DictConfig, resumed: bool = False) -> dict[str, Any]:
    """The keys that decide the result of a training, and their values.

    Args:
        config: of ``kplab train``.
        resumed: leave out what a resumed run may change, too.

    Returns:
        dotted key to value. Nulls are left out: a key that an older config lacks and that is null now is no difference. The
        workspace's path is written as ``${workspace:}``, so that it does not matter where the workspace is.
    """
    exempt = IRRELEVANT + LATE + CHANGED_ON_RESUME if resumed else IRRELEVANT
    values = dict(_leaves("", OmegaConf.to_container(config, resolve=True)))
    return {key: value for key, value in sorted(values.items()) if value is not None and not _covers(exempt, key)}


def identity_hash(config: DictConfig) -> str:
    """SHA-256 of the identity; equal for configs that describe the same training."""
    return sha256(json.dumps(identity(config)))


def differences(one: DictConfig, other: DictConfig, resumed: bool = False) -> list[Difference]:
    """The keys in which the identities of two configs differ, see ``identity``."""
    a, b = identity(one, resumed), identity(other, resumed)
    keys = [key for key in sorted({*a, *b}) if a.get(key) != b.get(key)]
    return [Difference(key, a.get(key), b.get(key)) for key in keys]


def changed_on_resume(parent: Run, config: DictConfig) -> list[str]:
    """The keys whose change makes a resumed run another training than its config describes; those of its parents included."""
    changed = [d.key for d in differences(load_config(parent), config) if not _covers(LATE, d.key)]
    return sorted({*parent.record.get("changed_on_resume", ()), *changed})


def find_run(config: DictConfig) -> Run | None:
    """The newest finished run of the same identity in ``runs_dir``; else the newest that ended early; else None.

    Reproductions are left out.
    """
    wanted, early = identity_hash(config), None
    for folder in sorted(Path(config.runs_dir).glob("*_*"), key=lambda p: p.name, reverse=True):
        try:
            run = Run.open(folder)
            # a run that was extended had another schedule before than its config describes
            if run.status == "running" or run.record.get("changed_on_resume"):
                continue
            if run.record.get("reproduces"):
                continue  # the run that it reproduces stands for this training
            if identity_hash(load_config(run)) != wanted:
                continue
        except RunError:
            continue  # no run, or half written: `kplab runs` lists it as unreadable
        if run.status == "finished":
            return run
        early = early or run
    return early


def _covers(keys: tuple[str, ...], key: str) -> bool:
    """Whether a key, or one above it, is in a list."""
    return any(key == k or key.startswith(f"{k}.") for k in keys)


def _leaves(prefix: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested dicts; lists are values."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), value)
    else:
        yield prefix, _portable(node)


def _portable(value: Any) -> Any:
    """A value with the workspace's path as ``${workspace:}``."""
    if isinstance(value, list):
        return [_portable(v) for v in value]
    return value.replace(str(configs.workspace()), "${workspace:}") if isinstance(value, str) else value
