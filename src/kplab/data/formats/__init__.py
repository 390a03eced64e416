"""The label formats: a module each, found by listing this folder, so that a new format is one new file.

A format is a module ``data/formats/<name>.py`` whose docstring starts with a line of what it reads, with

- ``read(…, skeleton, …) -> Labels``: its arguments, described under ``Args:`` in its docstring, are the keys of a source in
  ``conf/dataset/*.yaml``;
- ``write(labels, path, …)``, where the format can be written.

Modules that start with an underscore are parts of a format. ``data.reading`` holds what all readers share.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Key:
    """One key of a reader.

    Args:
        name: of the argument.
        required: whether it has no default.
        default: the default, where it has one.
        text: its description in the reader's docstring.
    """

    name: str
    required: bool
    default: Any
    text: str

    def __str__(self) -> str:
        value = "" if self.required else f" = {json.dumps(self.default, default=str)}"
        return f"{self.name}{value}: {self.text.replace('``', '')}"


def find_formats() -> list[str]:
    """Names of all formats: the modules of this folder that do not start with an underscore."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def load_format(name: str) -> ModuleType:
    """The module of a format."""
    return import_module(f"{__name__}.{name}")


def keys_of(reader: Callable[..., Any]) -> list[Key]:
    """Keys of a reader's source in a dataset's config, from its signature and the ``Args:`` of its docstring.

    ``skeleton`` is left out: it is the dataset's own.
    """
    texts = argument_texts(reader)
    return [
        Key(name, p.default is p.empty, p.default, texts.get(name, ""))
        for name, p in inspect.signature(reader).parameters.items()
        if name != "skeleton" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def takes_any_key(reader: Callable[..., Any]) -> bool:
    """Whether a reader has ``**options``."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(reader).parameters.values())


def argument_texts(reader: Callable[..., Any]) -> dict[str, str]:
    """Descriptions under ``Args:`` of a docstring, by argument, each as one line."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)*)", inspect.getdoc(reader) or "", re.MULTILINE)
    entries = re.split(r"^    (?=\w+: )", section[1], flags=re.MULTILINE) if section else []
    pairs = (entry.partition(": ") for entry in entries if entry.strip())
    return {name: " ".join(text.split()) for name, _, text in pairs}


def summary(name: str) -> str:
    """The first line of a format's docstring."""
    return (load_format(name).__doc__ or "").strip().partition("\n")[0]


def describe_formats() -> str:
    """Every format with its target and keys, as ``kplab data --formats`` prints them."""
    parts = []
    for name in find_formats():
        module = load_format(name)
        written = "read and written" if hasattr(module, "write") else "read only"
        lines = [f"{name} ({written}): {summary(name).replace('``', '')}", f"  _target_: {module.__name__}.read"]
        lines += [
            textwrap.fill(str(key), 120, initial_indent=" " * 4, subsequent_indent=" " * 8)
            for key in keys_of(module.read)
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
