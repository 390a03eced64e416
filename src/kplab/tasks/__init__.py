"""The verbs of ``kplab``, one module each, and the composition of their configurations.

A verb is a module ``tasks/<verb>.py``, with its configuration in ``conf/<verb>.yaml``, or a package ``apps/<verb>/``, with
its configuration in ``apps/<verb>/<verb>.yaml``. Its docstring starts with "``kplab <verb>``: what it does.", and it defines
``EXAMPLE``, a dataclass ``Options`` (the top-level keys of the configuration) and ``main(args)``, which returns the exit
status or None for 0. Optional are
``check(config) -> list[str]``, the errors of a config, ``complete(config, choices)``, which fills in what depends on the
chosen groups, and ``rebase(overrides) -> (config or None, overrides)``, a config to apply the overrides to in place of the
verb's own. The module imports no large package at its top, because ``--cfg`` imports it.

A verb may have actions, such as ``kplab data convert``: modules ``tasks/<verb>_actions/<action>.py`` that define what a verb
does, with a configuration of their own in ``conf/<verb>_<action>.yaml``. Its docstring starts with "``kplab <verb> <action>``: ".
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from kplab.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

#: What the module of a verb must define.
REQUIRED = ("EXAMPLE", "Options", "main")


@dataclass(frozen=True)
class Verb:
    """A verb, as read from its source.

    Args:
        name: as typed after ``kplab``: one word, or two for an action of a verb.
        summary: one line.
        example: a command.
        module: to import, e.g. ``kplab.tasks.train``.
        config: of an app, the YAML file in its folder; None: ``conf/<verb>.yaml``.
    """

    name: str
    summary: str
    example: str
    module: str
    config: Path | None


def find_verbs(package: Path | None = None) -> dict[str, Verb]:
    """All verbs by name, read from the sources of ``tasks/*.py`` and ``apps/*/__init__.py`` without importing them.

    Args:
        package: folder that has ``tasks`` and ``apps``; None is kplab's own.

    Raises:
        ConfigError: a module lacks a part of a verb; names the module and the part.
    """
    package = package or Path(__file__).parents[1]
    found = {}
    for path in sorted((package / "tasks").glob("[!_]*.py")):
        found[path.stem] = read_verb(path, path.stem, "tasks", None)
    for path in sorted((package / "tasks").glob("[!_]*_actions/[!_]*.py")):
        verb = path.parent.name.removesuffix("_actions")
        if verb not in found:
            raise ConfigError(f"{path}: an action of a verb that does not exist. Add tasks/{verb}.py.")
        found[f"{verb} {path.stem}"] = read_verb(path, f"{verb} {path.stem}", f"tasks.{path.parent.name}", None)
    found = dict(sorted(found.items()))
    for path in sorted((package / "apps").glob("[!_]*/__init__.py")):
        name = path.parent.name
        if name in found:
            raise ConfigError(f"{path}: tasks/{name}.py is a verb of that name already. Rename the app.")
        found[name] = read_verb(path, name, "apps", path.with_name(f"{name}.yaml"))
    return found


def read_verb(path: Path, name: str, room: str, config: Path | None) -> Verb:
    """Read a verb from the source of its module.

    Raises:
        ConfigError: a part is missing.
    """
    tree = ast.parse(path.read_text())
    first = (ast.get_docstring(tree) or "").partition("\n")[0]
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)} | set(constants)
    missing = [part for part in REQUIRED if part not in defined]
    if not first.startswith(f"``kplab {name}``: "):
        missing.append(f'a first line "``kplab {name}``: …"')
    if config is not None and not config.is_file():
        missing.append(f"the file {config.name}")
    if missing:
        raise ConfigError(f"{path}: the verb lacks {', '.join(missing)}. See kplab/tasks/__init__.py.")
    example = str(ast.literal_eval(constants["EXAMPLE"]))
    return Verb(name, first.partition(": ")[2].rstrip("."), example, f"kplab.{room}.{name.split()[-1]}", config)


def compose(verb: str, overrides: list[str], base: DictConfig | None = None) -> DictConfig:
    """Compose the configuration of a verb with overrides, and check it against the verb's ``Options``.

    Args:
        base: a config that was composed before, to apply the overrides to in place of the verb's own.

    Raises:
        ConfigError: an override is unknown or malformed, or values have wrong types; all such errors in one message.
    """
    from omegaconf import OmegaConf

    from kplab.config import compose as compose_config

    found = find_verbs()[verb]
    module = import_module(found.module)
    if base is None:
        base = None if found.config is None else OmegaConf.load(found.config)  # type: ignore[assignment]
        if hasattr(module, "rebase"):
            base, overrides = module.rebase(overrides)
    check, complete = getattr(module, "check", None), getattr(module, "complete", None)
    return compose_config(verb, overrides, module.Options, check, complete, base)
