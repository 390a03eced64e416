"""Every option is stated once: conf/ and the signatures of constructors agree in names and in defaults."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import omegaconf
import pytest
import yaml
from hydra.utils import get_object
from omegaconf import OmegaConf

from kplab.config import conf_dir, config_name
from kplab.tasks import compose, find_verbs

CONF = conf_dir()
#: Groups whose files state all options of one constructor, and the composition in which each can be chosen.
COMPLETE = ("backbone", "neck", "head", "augment", "optimizer", "model", "points", "tracker", "fill", "smooth")
#: Groups of ``kplab track``; the others are those of ``kplab train``.
STAGES = ("tracker", "fill", "smooth")
#: Parameters that receive objects, or values of other keys, from tasks/wiring.
WIRED = {
    "inputs", "in_channels", "strides", "size", "skeleton", "backbone", "neck", "head", "detector", "subject", "padding",
    "model", "steps", "embed",
}  # fmt: skip
#: Keys of a node that are read by tasks/wiring instead of the constructor.
READ_BY_WIRING = {"model/cascade": {"crop", "auxiliary", "turns"}}


def parameters(target: str) -> tuple[dict[str, Any], bool]:
    """Parameters with their defaults (``inspect.Parameter.empty`` for none), and whether others are passed on to a library.

    Keywords that a constructor of kplab passes on to its base class are looked up there.
    """
    made = get_object(target)
    found: dict[str, Any] = {}
    for level in inspect.getmro(made) if inspect.isclass(made) else (made,):
        function = level.__dict__.get("__init__") if inspect.isclass(level) else level
        if function is None:
            continue
        known = inspect.signature(function).parameters.values()
        found |= {
            p.name: p.default for p in known if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name not in found
        }
        if not any(p.kind is p.VAR_KEYWORD for p in known):
            return found, False
    return found, True


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """All nodes of a file that name a constructor."""
    if isinstance(tree, dict):
        if isinstance(tree.get("_target_"), str):
            yield tree
        for value in tree.values():
            yield from nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from nodes(value)


def options(node: dict[str, Any]) -> dict[str, Any]:
    """Keys of a node that are arguments."""
    return {key: value for key, value in node.items() if not key.startswith("_")}


def as_lists(value: Any) -> Any:
    """A value as YAML can state it."""
    return [as_lists(v) for v in value] if isinstance(value, list | tuple) else value


def composed(group: str, name: str) -> dict[str, Any]:
    """The node of a choice, with what it inherits."""
    if group == "points":
        config = compose("invariance", [f"+points@points.chosen={name}"]).points.chosen
    elif group in STAGES:
        config = compose("track", ["predictions=x", f"{group}={name}"])[group]
    else:
        config = compose("train", [f"{group}={name}", *(["regions=image"] if name == "cascade" else [])])[group]
    return OmegaConf.to_container(config)  # type: ignore[return-value]


FILES = sorted(path for path in CONF.rglob("*.yaml") if any(nodes(yaml.safe_load(path.read_text()))))
CHOICES = [(group, path.stem) for group in COMPLETE for path in sorted((CONF / group).glob("*.yaml"))]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONF)))
def test_every_key_is_a_parameter(path: Path) -> None:
    """Those of libraries included."""
    name = str(path.relative_to(CONF).with_suffix(""))
    for node in nodes(yaml.safe_load(path.read_text())):
        known, passes_on = parameters(node["_target_"])
        unknown = options(node).keys() - known.keys() - READ_BY_WIRING.get(name, set())
        assert passes_on or not unknown, f"{node['_target_']} has no {sorted(unknown)}"


@pytest.mark.parametrize(("group", "name"), CHOICES, ids=[f"{group}-{name}" for group, name in CHOICES])
def test_a_choice_states_every_option_with_its_default(group: str, name: str) -> None:
    """A file that inherits from another one differs from the defaults in just the keys that it lists."""
    file = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    inherits = "_target_" not in file and group != "model"
    listed = options(file).keys() - {"defaults"} if inherits else set()
    node = composed(group, name)
    defaults, _ = parameters(node["_target_"])
    stated = options(node)
    optional = {
        n: d for n, d in defaults.items() if d is not inspect.Parameter.empty and n not in WIRED - stated.keys()
    }
    assert not optional.keys() - stated.keys(), "options of the constructor that the file does not state"
    different = {n for n in optional if as_lists(optional[n]) != as_lists(stated[n])}
    assert different == {n for n in listed if n in optional}


@pytest.mark.parametrize("verb", find_verbs())
def test_a_verb_and_its_file_have_the_same_keys_and_defaults(verb: str) -> None:
    """A schema may leave a default to the file; if it states one, it is the file's."""
    found = find_verbs()[verb]
    raw = yaml.safe_load((found.config or CONF / f"{config_name(verb)}.yaml").read_text())
    choices = [key for default in raw.get("defaults", []) if isinstance(default, dict) for key in default]
    groups = {key.removeprefix("optional ").split("@")[-1].split(".")[0] for key in choices}
    schema = {
        f.name: f.default_factory() if f.default_factory is not MISSING else f.default
        for f in fields(import_module(found.module).Options)
    }
    stated = {key: value for key, value in raw.items() if key != "defaults"}
    parts_of_models = {"backbone", "neck", "head", "detector"} if "model" in groups else set()
    assert stated.keys() | groups - {"experiment"} | parts_of_models == schema.keys()
    for key, value in stated.items():
        if schema[key] not in (MISSING, omegaconf.MISSING, [], {}):
            assert schema[key] == value, f"{key} is {value} in conf/{verb}.yaml and {schema[key]} in its Options"
