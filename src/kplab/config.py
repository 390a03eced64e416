"""Configuration: finds the workspace, composes ``conf/`` with Hydra, and reports all faults of a composed config at once."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

#: What a validation says, see ``tasks.pose_module``.
MONITORED = ("val/px", "val/AP", "val/loss")


class ConfigError(ValueError):
    """What was asked for contradicts itself or does not exist."""


@dataclass
class Train:
    """Top-level keys of ``kplab train``; the groups' own keys are the constructors' arguments."""

    dataset: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    neck: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    detector: dict[str, Any] | None = None
    matcher: dict[str, Any] | None = None
    augment: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    name: str = MISSING
    seed: int = 0
    size: list[int] = field(default_factory=list)
    window: list[int] | None = None
    window_anywhere: float = 0.0
    regions: str = "annotated"
    detector_run: str | None = None
    padding: float = 1.25
    batch_size: int = 32
    workers: int | None = None
    ema: float | None = 0.999
    monitor: str = "val/px"
    patience: int | None = None
    validate_every: int = 1
    flip_test: bool = True
    rescore: float | None = None
    oks_nms: float | None = None
    oks_nms_soft: bool = False
    test_on: list[str] = field(default_factory=list)
    weights: str | None = None
    resume: str | None = None
    parent: str | None = None
    runs: str = MISSING


@dataclass
class Predict:
    """Keys of ``kplab predict``."""

    run: str = MISSING
    images: str | None = None
    split: str | None = None
    regions: str | None = None
    dataset: dict[str, Any] | None = None
    checkpoint: str = "auto"
    flip_test: bool | None = None
    batch_size: int = 32
    device: str = "auto"
    overlays: int = 50
    out: str | None = None
    runs: str = MISSING


@dataclass
class Evaluate:
    """Keys of ``kplab evaluate``."""

    run: str | None = None
    predictions: str | None = None
    split: str | None = None
    regions: str | None = None
    dataset: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    pictures: int = 0
    out: str | None = None
    runs: str = MISSING


@dataclass
class Compare:
    """Keys of ``kplab compare``."""

    runs: list[str] = field(default_factory=list)
    split: str | None = None
    resamples: int = 2000
    seed: int = 0
    force: bool = False
    out: str | None = None
    root: str = MISSING


@dataclass
class Benchmark:
    """Keys of ``kplab benchmark``."""

    data: str = MISSING
    families: list[str] = field(default_factory=list)
    general: str = "synthetic"
    overrides: list[str] = field(default_factory=list)
    split: str = "test"
    out: str | None = None
    runs: str = MISSING


@dataclass
class Invariance:
    """Keys of ``kplab invariance``."""

    points: dict[str, Any] = field(default_factory=dict)
    detectors: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    images: str | None = None
    sequence: str | None = None
    properties: list[str] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    count: int | None = 500
    radius: float = 3.0
    margin: float = 8.0
    max_side: int | None = None
    ransac: float = 3.0
    checkpoint: str = "auto"
    device: str = "auto"
    out: str = MISSING
    root: str = MISSING


@dataclass
class Data:
    """Keys of ``kplab data``."""

    dataset: dict[str, Any] = field(default_factory=dict)
    pictures: int = 12
    out: str = MISSING


@dataclass
class Runs:
    """Keys of ``kplab runs``."""

    limit: int = 30
    runs: str = MISSING


SCHEMAS: dict[str, type] = {
    "train": Train,
    "predict": Predict,
    "evaluate": Evaluate,
    "compare": Compare,
    "benchmark": Benchmark,
    "invariance": Invariance,
    "data": Data,
    "runs": Runs,
}


@cache
def workspace() -> Path:
    """The folder that holds ``conf/``: KPLAB_WORKSPACE, the nearest one above the current folder, or kplab's own."""
    if given := os.environ.get("KPLAB_WORKSPACE"):
        return Path(given).resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "conf" / "train.yaml").is_file():
            return folder
    own = Path(__file__).resolve().parents[2]
    return own if (own / "conf" / "train.yaml").is_file() else here


def conf_dir() -> Path:
    """Where the configs lie: the workspace's ``conf/``, or the copy inside an installed package."""
    folder = workspace() / "conf"
    return folder if (folder / "train.yaml").is_file() else Path(__file__).resolve().parent / "conf"


def compose(verb: str, overrides: list[str]) -> DictConfig:
    """Compose ``conf/<verb>.yaml`` with overrides, and check it against the schema of the verb.

    Raises:
        ConfigError: an override is unknown or malformed, or values have wrong types; all such faults in one message.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    OmegaConf.register_new_resolver("workspace", lambda: str(workspace()), replace=True)
    check_search_path(overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = hydra_compose(verb, overrides=overrides, return_hydra_config=True)
            check_choices(config.hydra.runtime)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(verb, str(error), overrides)) from None
    choices = config.hydra.runtime.choices
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    if verb == "train" and OmegaConf.is_missing(config, "name"):
        reader = choices.get("matcher") or choices.get("head")
        config.name = choices.get("experiment") or f"{choices.get('dataset')}_{reader}"
    OmegaConf.set_struct(config, True)
    check_config(verb, config)
    return config


def check_choices(runtime: DictConfig) -> None:
    """Refuse a choice of an optional group that does not exist: Hydra would go on as if nothing had been chosen.

    Args:
        runtime: ``hydra.runtime`` of a composed config: what was chosen, and the folders that were looked in.

    Raises:
        ConfigError: naming what there is.
    """
    folders = [Path(source.path) for source in runtime.config_sources if source.schema == "file"]
    for key, chosen in runtime.choices.items():
        group = str(key).split("@", 1)[0]
        if chosen is None or group.startswith("hydra/"):
            continue
        options = sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})
        if chosen not in options:
            raise ConfigError(f"there is no {group}/{chosen}. {group} can be: {', '.join(options)}.")


def check_search_path(overrides: list[str]) -> None:
    """Refuse folders of configs that don't exist, which Hydra would only warn of.

    Raises:
        ConfigError: naming the folder.
    """
    for override in overrides:
        if override.startswith("hydra.searchpath="):
            for folder in re.findall(r"file://([^,\]\"']+)", override):
                if not Path(folder).is_dir():
                    raise ConfigError(f"{folder}: no such folder of configs. Correct hydra.searchpath.")


def explain(verb: str, message: str, overrides: list[str]) -> str:
    """Hydra's error in one or two lines, with the names that may have been meant."""
    first = message.strip().splitlines()[0]
    if found := re.search(r"Could not override '([^']+)'", message):
        asked = found.group(1)
        node, _, key = asked.rpartition(".")
        if node:
            return (
                f"unknown override '{asked}': {node} has no key '{key}' as it is composed here; kplab {verb} … --cfg prints "
                f"what it has. To add one: +{asked}=…"
            )
        known = known_keys(verb)
        close = difflib.get_close_matches(asked, known, n=3, cutoff=0.5)
        near = f"Did you mean {' or '.join(close)}?" if close else f"Known keys of kplab {verb}: {', '.join(known)}."
        return f"unknown override '{asked}'. {near}"
    if found := re.search(r"Could not find '([^']+)'", message):
        asked = found.group(1)
        group = conf_dir() / Path(asked).parent
        options = sorted(p.stem for p in group.glob("*.yaml"))
        if options:
            return f"there is no {asked}. {Path(asked).parent} can be: {', '.join(options)}."
        groups = sorted(p.name for p in conf_dir().iterdir() if p.is_dir())
        return f"unknown override '{asked}'. Groups: {', '.join(groups)}."
    if "mismatched input" in first or "token recognition" in first or "extraneous input" in first:
        first += ". A value that holds , = : ( ) [ ] { } or quotes wants quotes of its own: images='\"a=b, c\"'"
    if first.startswith(("Error parsing override", "LexerNoViableAlt")):
        first += ". Overrides are key=value"
    return f"{first} (kplab {verb} {' '.join(overrides)})"


def plain(node: Any) -> dict[str, Any]:
    """A config node as a dict with its interpolations resolved; None is an empty one."""
    return {} if node is None else OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]


def known_keys(verb: str) -> list[str]:
    """Top-level keys of a verb."""
    return [f.name for f in fields(SCHEMAS[verb])]


def check_config(verb: str, config: DictConfig) -> None:
    """Hold a composed config against its schema.

    Raises:
        ConfigError: every fault found, a line each.
    """
    schema = OmegaConf.structured(SCHEMAS[verb])
    faults = []
    for key in map(str, config):
        if key not in known_keys(verb):
            close = difflib.get_close_matches(str(key), known_keys(verb), n=2, cutoff=0.5)
            hint = f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(known_keys(verb))}."
            faults.append(f"unknown key '{key}'. {hint}")
            continue
        if OmegaConf.is_missing(config, key):
            faults.append(f"'{key}' is not given. Add {key}=… to the command.")
            continue
        try:
            value = config[key]
            schema[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except OmegaConfBaseException as error:
            wanted = " Write a list: " + f"{key}=[A,B]." if "ListConfig" in str(error) else ""
            faults.append(f"'{key}': {str(error).strip().splitlines()[0]}{wanted}")
    if verb == "train" and not faults:
        faults += train_faults(config)
    if faults:
        raise ConfigError("\n".join(faults))


def train_faults(config: DictConfig) -> list[str]:
    """Contradictions inside a training config that can be seen without any data."""
    faults = []
    if len(config.size) != 2 or min(config.size) < 32:
        faults.append(f"size is {list(config.size)}, but wants [width, height] in pixels, 32 or more each.")
    if config.window is not None and (len(config.window) != 2 or min(config.window) < 32):
        faults.append(
            f"window is {list(config.window)}, but wants [width, height] in pixels, 32 or more each, or null."
        )
    if config.regions not in ("image", "annotated", "detected"):
        faults.append(f"regions is '{config.regions}'. Use image, annotated or detected.")
    if (config.regions == "detected") != (config.detector_run is not None):
        faults.append(
            f"regions is '{config.regions}' and detector_run is {config.detector_run}. Boxes of an earlier run want both "
            "regions=detected and detector_run=RUN."
        )
    if config.get("detector") is not None:
        if config.regions != "image":
            faults.append(f"a detector looks at whole images, but regions is '{config.regions}'. Use regions=image.")
        if config.window is not None:
            faults.append("a detector's cascade takes whole views in training. Use window=null.")
    if config.get("matcher") is not None and config.get("detector") is not None:
        faults.append("a matcher finds subjects by itself. Leave out either matcher=… or detector=….")
    for key in ("rescore", "oks_nms"):
        if config[key] is not None and not 0 <= config[key] <= 1:
            faults.append(f"{key} is {config[key]}, but must lie between 0 and 1, or be null.")
    for key, low in (("batch_size", 1), ("padding", 1e-6), ("validate_every", 1), ("workers", 0), ("patience", 1)):
        if config[key] is not None and config[key] < low:
            faults.append(f"{key} is {config[key]}, but must be at least {low}.")
    epochs = config.trainer.get("max_epochs")
    # weights that are given are a model without any epoch
    if epochs is not None and (not isinstance(epochs, int) or (epochs == 0 and config.weights is None)):
        faults.append(f"trainer.max_epochs is {epochs}, but wants a whole number, 1 or more; -1 for any number.")
    if config.monitor not in MONITORED:
        faults.append(f"monitor is '{config.monitor}'. Use one of: {', '.join(MONITORED)}.")
    if not 0 <= config.window_anywhere <= 1:
        faults.append(f"window_anywhere is {config.window_anywhere}, but is a share between 0 and 1.")
    if config.ema is not None and not 0 < config.ema < 1:
        faults.append(f"ema is {config.ema}, but must lie between 0 and 1, or be null.")
    skeleton = config.dataset.get("skeleton") or {}
    if not skeleton.get("keypoints"):
        faults.append(
            f"dataset '{config.dataset.get('name')}' has no skeleton. Name one in its defaults: /skeleton@skeleton: NAME."
        )
    return faults
