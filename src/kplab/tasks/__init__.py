"""The verbs of ``kplab``, one module each, and the composition of their configurations.

A verb is a module ``tasks/<verb>.py``. Its docstring starts with "``kplab <verb>``: what it does.", and it defines
``EXAMPLE``, a dataclass ``Options`` (the top-level keys of ``conf/<verb>.yaml``) and ``main(args)``. Optional are
``check(config) -> list[str]``, the faults of a config, and ``complete(config, choices)``, which fills in what depends on the
chosen groups, and ``rebase(overrides) -> (config or None, overrides)``, a config to apply the overrides to in place of
``conf/<verb>.yaml``. The module imports no large package at its top, because ``--help`` and ``--cfg`` read all verbs.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from kplab.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

#: What the module of a verb must define.
REQUIRED = ("EXAMPLE", "Options", "main")


@dataclass(frozen=True)
class Verb:
    """Name, summary and example of a verb, for the help.

    Args:
        name: of the verb and its module.
        summary: one line.
        example: a command.
    """

    name: str
    summary: str
    example: str


def find_verbs(folder: Path | None = None) -> dict[str, Verb]:
    """All verbs by name, read from the sources of ``tasks/*.py`` without importing them.

    Raises:
        ConfigError: a module lacks a part of a verb; names the module and the part.
    """
    found = {}
    for path in sorted((folder or Path(__file__).parent).glob("[!_]*.py")):
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
        missing = [name for name in REQUIRED if name not in defined]
        if not first.startswith(f"``kplab {path.stem}``: "):
            missing.append(f'a first line "``kplab {path.stem}``: …"')
        if missing:
            raise ConfigError(f"{path}: the verb lacks {', '.join(missing)}. See kplab/tasks/__init__.py.")
        summary = first.partition(": ")[2].rstrip(".")
        found[path.stem] = Verb(path.stem, summary, str(ast.literal_eval(constants["EXAMPLE"])))
    return found


def load_verb(name: str) -> ModuleType:
    """Import the module of a verb."""
    return import_module(f"kplab.tasks.{name}")


def compose(verb: str, overrides: list[str]) -> DictConfig:
    """Compose ``conf/<verb>.yaml`` with overrides, and check it against the verb's ``Options``.

    Raises:
        ConfigError: an override is unknown or malformed, or values have wrong types; all such faults in one message.
    """
    from kplab.config import compose as compose_config

    module = load_verb(verb)
    base, overrides = module.rebase(overrides) if hasattr(module, "rebase") else (None, overrides)
    check, complete = getattr(module, "check", None), getattr(module, "complete", None)
    return compose_config(verb, overrides, module.Options, check, complete, base)
