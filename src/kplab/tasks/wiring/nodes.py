"""Objects from config nodes: the only place that calls Hydra's ``instantiate``."""

from __future__ import annotations

import inspect
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from kplab import config as configs
from kplab.errors import ConfigError, KplabError, RunError
from kplab.runs.run import Run
from kplab.tasks.wiring.allowed import check_targets


def build_node(config: DictConfig, what: str, **objects: Any) -> Any:
    """Build the object that a config node describes.

    Args:
        what: the group of the node, for messages.
        objects: arguments that are objects already.

    Raises:
        ConfigError: a target is not allowed or does not exist, an option is unknown, missing or of a wrong type, or a
            library refuses it.
            Errors of kplab's and the user's own code that are no ``KplabError`` are bugs and pass with their traceback.
    """
    check_targets(config, what)
    try:
        partial = instantiate(config, _convert_="all", _partial_=True)
    except InstantiationException as error:
        for cause in causes(error):
            if isinstance(cause, KplabError | OSError) or raised_by_own_code(cause):
                raise cause from None
        raise ConfigError(f"{what}: {error.__cause__ or error} (see conf/{what})") from error
    target = partial.func
    check_options(target, {**partial.keywords, **objects}, set(objects), what)
    try:
        return partial(**objects)
    except (ValueError, TypeError) as error:
        if isinstance(error, KplabError) or is_own(target):
            raise
        raise ConfigError(f"{what}: {error} (see conf/{what})") from error


def check_options(target: Any, arguments: dict[str, Any], objects: set[str], what: str) -> None:
    """Check options against the signature of their class or function.

    Args:
        target: class or function; unless it is a library's, the types are checked too.
        arguments: all that it will be called with.
        objects: names of the arguments that are no options of a config.

    Raises:
        ConfigError: an option is unknown, missing or of a wrong type; says which there are.
    """
    signature = inspect.signature(target)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        known = ", ".join(name for name in signature.parameters if name not in objects)
        raise ConfigError(f"{what}: {error}. Options of {target.__qualname__}: {known} (see conf/{what}).") from None
    if not is_own(target):
        return
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError:
        return  # annotations with names that are imported for type checkers only
    faults = []
    for name in arguments.keys() - objects:
        try:
            msgspec.convert(arguments[name], hints.get(name, Any), strict=True, dec_hook=as_path)
        except msgspec.ValidationError as error:
            faults.append(f"{what}.{name} is {arguments[name]!r}: {error} (see conf/{what}).")
        except TypeError:
            continue  # a type that no config can state
    if faults:
        raise ConfigError("\n".join(sorted(faults)))


def as_path(kind: type, value: Any) -> Any:
    """Convert text to a path, the one type besides the plain ones that a config can state; objects pass as they are.

    Raises:
        ValueError: the value is not of the type.
    """
    if kind is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, kind):
        raise ValueError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")
    return value


def causes(error: BaseException) -> Iterator[BaseException]:
    """The chain of exceptions that led to one, the first one last."""
    cause = error.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__


def is_own(target: Any) -> bool:
    """Whether a class or function is kplab's or the user's own, and no installed library's."""
    name = str(getattr(target, "__module__", ""))
    return is_own_code(name, getattr(sys.modules.get(name), "__file__", None))


def is_own_code(name: str, file: str | None) -> bool:
    """Whether a module is kplab's, or its file lies outside the folders of Python's libraries."""
    if name.partition(".")[0] == "kplab":
        return True
    libraries = (sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
    return file is not None and Path(file).is_file() and not any(Path(file).is_relative_to(p) for p in libraries)


def raised_by_own_code(error: BaseException) -> bool:
    """Whether an exception was raised in kplab's or the user's own code."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and is_own_code(str(frames[-1].f_globals.get("__name__", "")), frames[-1].f_code.co_filename)


def load_config(run: Run) -> DictConfig:
    """The config that a run was made with."""
    path = run.folder / "config.yaml"
    if not path.is_file():
        raise RunError(f"{run.folder}: half written: it has no config.yaml. Train the run again.")
    OmegaConf.register_new_resolver("workspace", lambda: str(configs.workspace()), replace=True)
    try:
        config = OmegaConf.load(path)
        if "dataset" not in config or "model" not in config:
            raise ValueError("it has no dataset or no model")
    except (ValueError, OSError, YAMLError) as error:
        said = str(error).splitlines()[0]
        raise RunError(f"{path}: half written or damaged ({said}). Train the run again.") from None
    return config  # type: ignore[return-value]
