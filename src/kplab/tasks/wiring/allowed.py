"""What a config may build: an allow-list, so that the config of a run from elsewhere can't call arbitrary code.

A target is a class or function that a config names in ``_target_``. It is allowed if it is one of ``RULES``, or if it is
defined in a module that ``conf/allowed_modules.txt`` of the workspace names.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kplab import config as configs
from kplab.errors import ConfigError

USER_FILE = "allowed_modules.txt"


@dataclass(frozen=True)
class Rule:
    """A kind of target.

    Args:
        module: the target's path lies in this module or in its submodules, and so does its definition.
        base: allows the subclasses of these classes, as "module:class module:class"; or "" for all public functions.
        name: allows only the class or function of this name.
    """

    module: str
    base: str = ""
    name: str | None = None

    def fits(self, target: Any) -> bool:
        """Whether an object is of this kind."""
        if not within(str(getattr(target, "__module__", "")), self.module):
            return False
        if self.name is not None and getattr(target, "__name__", None) != self.name:
            return False
        if not self.base:
            return inspect.isfunction(target) and not target.__name__.startswith("_")
        return inspect.isclass(target) and any(issubclass(target, base) for base in self.bases())

    def bases(self) -> Iterator[type]:
        """The base classes; a library that the target does not use is not imported for them."""
        for path in self.base.split():
            module, _, name = path.partition(":")
            yield getattr(import_module(module), name)


RULES = (
    Rule("kplab.models", "torch.nn:Module"),
    Rule("kplab.classical", "builtins:object"),
    Rule("kplab.data.formats", name="read"),
    Rule("kplab.data.augment", "builtins:object", name="Augment"),
    Rule("kplab.synthetic", name="generate"),
    Rule("kplab.tasks.training.optimize"),
    Rule("kplab.tasks.inference.tracking", "builtins:object"),
    Rule("albumentations", "albumentations:BasicTransform albumentations:BaseCompose"),
    Rule("torch.optim", "torch.optim:Optimizer torch.optim.lr_scheduler:LRScheduler"),
    Rule(
        "lightning.pytorch",
        "lightning.pytorch:Trainer lightning.pytorch.loggers:Logger lightning.pytorch.strategies:Strategy",
    ),
)


def check_targets(config: DictConfig, what: str) -> None:
    """Refuse a config node in which a target, at any depth, is not allowed. Nothing is called.

    Args:
        what: the group of the node, for messages.

    Raises:
        ConfigError: names the target, its place, and how to allow it.
    """
    for where, target in targets_of(OmegaConf.to_container(config, resolve=True), what):
        find_target(target, where)


def targets_of(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Every target of a resolved node with the path of the node that names it.

    Raises:
        ConfigError: a text would be an interpolation when it is resolved once more, which could hide a target.
    """
    if isinstance(node, Mapping):
        if node.get("_target_") is not None:
            yield where, node["_target_"]
        for key, value in node.items():
            yield from targets_of(value, f"{where}.{key}")
    elif isinstance(node, Sequence) and not isinstance(node, str | bytes):
        for i, value in enumerate(node):
            yield from targets_of(value, f"{where}[{i}]")
    elif isinstance(node, str) and "${" in node:
        raise ConfigError(
            f"{where}: {node!r} is an interpolation that yields an interpolation. Write the value itself."
        )


def find_target(target: Any, where: str) -> Any:
    """The class or function that a config names, if it is allowed.

    Modules outside the allow-list are not imported.

    Args:
        target: dotted path, as in ``_target_``.
        where: the config node, for messages.

    Raises:
        ConfigError: it is not allowed, or does not exist.
    """
    own = user_modules()
    packages = [rule.module for rule in RULES] + own
    if not isinstance(target, str) or not any(within(target, package) for package in packages):
        raise refusal(target, where)
    found = locate(target)
    if found is None:
        raise ConfigError(f"{where}: there is no '{target}'. Correct _target_.")
    if any(rule.fits(found) for rule in RULES) or is_defined_in(found, own):
        return found
    raise refusal(target, where)


def refusal(target: Any, where: str) -> ConfigError:
    """The error of a target that is not allowed."""
    return ConfigError(
        f"{where}: _target_ {target!r} is not allowed. A config may name kplab's own parts, albumentations' transforms, "
        "torch's optimisers and schedulers, and Lightning's trainer, loggers and strategies. If this is your own class or "
        f"function, write the module that defines it on a line of {user_file()}."
    )


def is_defined_in(target: Any, modules: Sequence[str]) -> bool:
    """Whether a class or function is defined in one of these modules: what they only import is not."""
    if not (inspect.isclass(target) or inspect.isroutine(target)):
        return False
    return any(within(str(getattr(target, "__module__", "")), module) for module in modules)


def within(path: str, module: str) -> bool:
    """Whether a dotted path is a module or lies inside it.

    >>> within("a.b.C", "a.b"), within("a.bc.C", "a.b")
    (True, False)
    """
    return f"{path}.".startswith(f"{module}.")


def locate(path: str) -> Any:
    """The object at a dotted path, as Hydra finds it; None where there is none."""
    first, *rest = path.split(".")
    if not all((first, *rest)):
        return None
    name = first
    try:
        found: Any = import_module(first)
        for part in rest:
            name = f"{name}.{part}"
            if not hasattr(found, part) and isinstance(found, ModuleType):
                import_module(name)
            found = getattr(found, part)
    except AttributeError:
        return None
    except ModuleNotFoundError as error:
        if error.name is None or not within(path, error.name):
            raise  # an existing module imports one that does not exist
        return None
    return found


def user_file() -> Path:
    """The file that names the user's own modules."""
    return configs.workspace() / "conf" / USER_FILE


def user_modules() -> list[str]:
    """The modules that the user allows; none where the file is missing, or belongs to a run.

    Raises:
        ConfigError: the file can't be read, or a line is no name of a module.
    """
    path = user_file()
    if not path.is_file() or any((folder / "run.json").exists() for folder in path.parents):
        return []
    try:
        lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: can't be read ({error}). Write one module a line, as text.") from None
    names = [line for line in lines if line]
    wrong = [name for name in names if not all(part.isidentifier() for part in name.split("."))]
    if wrong:
        raise ConfigError(f"{path}: {wrong[0]!r} is no name of a module. Write one module a line: my_package.heads")
    return names
