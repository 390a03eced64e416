"""Configuration: finds the workspace, composes ``conf/`` with Hydra, and reports all errors of a composed config at once."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kplab.errors import ConfigError


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
    """The folder of the configs: the workspace's ``conf/``, or the copy inside an installed package."""
    folder = workspace() / "conf"
    return folder if (folder / "train.yaml").is_file() else Path(__file__).resolve().parent / "conf"


def config_name(verb: str) -> str:
    """Name of the configuration of a verb, or of an action of a verb.

    >>> config_name("data convert")
    'data_convert'
    """
    return verb.replace(" ", "_")


def compose(
    verb: str,
    overrides: list[str],
    schema: type,
    check: Callable[[DictConfig], list[str]] | None = None,
    complete: Callable[[DictConfig, dict[str, str]], None] | None = None,
    base: DictConfig | None = None,
) -> DictConfig:
    """Compose ``conf/<verb>.yaml`` (of an action ``conf/<verb>_<action>.yaml``) with overrides, and check it.

    Args:
        schema: dataclass of the verb's top-level keys.
        check: returns further errors of a config with correct types.
        complete: fills in what depends on the chosen groups.
        base: a config that was composed before, to apply the overrides to in place of ``conf/<verb>.yaml``.

    Raises:
        ConfigError: an override is unknown or malformed, or values have wrong types; all such errors in one message.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    OmegaConf.register_new_resolver("workspace", lambda: str(workspace()), replace=True)
    check_search_path(overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            if base is not None:
                ConfigStore.instance().store("stored", base)
            given = [without_group(override) for override in overrides]
            name = config_name(verb) if base is None else "stored"
            config = hydra_compose(name, overrides=given, return_hydra_config=True)
            check_choices(config.hydra.runtime)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(verb, str(error), overrides, known_keys(schema))) from None
    choices = config.hydra.runtime.choices
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    if complete is not None:
        complete(config, choices)
    OmegaConf.set_struct(config, True)
    check_config(verb, config, schema, check)
    return config


def without_group(override: str) -> str:
    """The override ``GROUP=null`` as Hydra writes it, ``~GROUP``; every other override as it is."""
    key, _, value = override.partition("=")
    return f"~{key}" if value == "null" and (conf_dir() / key).is_dir() else override


def check_choices(runtime: DictConfig) -> None:
    """Refuse a choice of an optional group that does not exist, which Hydra would ignore.

    Args:
        runtime: ``hydra.runtime`` of a composed config: the choices, and the searched folders.

    Raises:
        ConfigError: names the existing choices.
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
    """Refuse folders of configs that don't exist, for which Hydra only warns.

    Raises:
        ConfigError: names the folder.
    """
    for override in overrides:
        if override.startswith("hydra.searchpath="):
            for folder in re.findall(r"file://([^,\]\"']+)", override):
                if not Path(folder).is_dir():
                    raise ConfigError(f"{folder}: no such folder of configs. Correct hydra.searchpath.")


def explain(verb: str, message: str, overrides: list[str], known: list[str]) -> str:
    """Hydra's error in one or two lines, with similar names."""
    first = message.strip().splitlines()[0]
    if found := re.search(r"Could not override '([^']+)'", message):
        asked = found.group(1)
        node, _, key = asked.rpartition(".")
        if node:
            return (
                f"unknown override '{asked}': {node} has no key '{key}' as it is composed here; kplab {verb} … --cfg prints "
                f"what it has. To add one: +{asked}=…"
            )
        if asked in known:
            return f"'{asked}' has no place beside the other choices, such as model=…. Leave {asked}=… out, or choose another."
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
        first += ". A value that holds , = : ( ) [ ] { } or quotes wants quotes of its own: source='\"a=b, c\"'"
    if first.startswith(("Error parsing override", "LexerNoViableAlt")):
        first += ". Overrides are key=value"
    return f"{first} (kplab {verb} {' '.join(overrides)})"


def plain(node: Any) -> dict[str, Any]:
    """A config node as a dict with its interpolations resolved; None is an empty one."""
    return {} if node is None else OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]


def known_keys(schema: type) -> list[str]:
    """Top-level keys of a verb."""
    return [f.name for f in fields(schema)]


def check_config(
    verb: str, config: DictConfig, options: type, check: Callable[[DictConfig], list[str]] | None = None
) -> None:
    """Check a composed config against its schema.

    Raises:
        ConfigError: all errors, one per line.
    """
    schema = OmegaConf.structured(options)
    known = known_keys(options)
    faults = []
    for key in map(str, config):
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=2, cutoff=0.5)
            hint = f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(known)}."
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
    if check is not None and not faults:
        faults += check(config)
    if faults:
        raise ConfigError("\n".join(faults))
