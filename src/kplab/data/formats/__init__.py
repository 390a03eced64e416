"""The label formats: a module each, found by listing this folder, so that a new format is one new file.

A format is a module ``data/formats/<name>.py`` whose docstring starts with a line of what it reads, with

- ``read(…, skeleton, …) -> Labels``: its arguments, described under ``Args:`` in its docstring, are the keys of a source in
  ``conf/dataset/*.yaml``;
- ``write(labels, path, …)``, where the format can be written; a format for export only has no ``read``;
- ``HOLDS``, what a file has a place for (``data.holds.Holds``);
- ``recognise(path) -> bool``, whether a file or folder is of this format, and ``names(path, …) -> Names``, its keypoints.

Modules that start with an underscore are parts of a format. ``data.reading`` holds what all readers share.
"""

from __future__ import annotations

import contextlib
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

from kplab.data.holds import table
from kplab.errors import DataError


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


def find_formats(what: str = "read") -> list[str]:
    """Names of the formats that can be read or written: the modules of this folder that do not start with an underscore.

    Args:
        what: read or write: the function that the module defines. Modules are not imported.
    """
    paths = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return [path.stem for path in paths if re.search(rf"^def {what}\(", path.read_text(), re.MULTILINE)]


def all_formats() -> list[str]:
    """Names of all formats."""
    return sorted({*find_formats("read"), *find_formats("write")})


def recognised(path: Path) -> list[str]:
    """Names of the formats that a file or folder is recognised as; damaged ones are of none."""
    found = []
    for name in find_formats():
        with contextlib.suppress(DataError, OSError):
            if load_format(name).recognise(path):
                found.append(name)
    return found


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
    """Every format with its target and keys, as ``kplab data formats`` prints them."""
    parts = []
    for name in all_formats():
        module = load_format(name)
        can = [word for word in ("read", "write") if hasattr(module, word)]
        how = {"read write": "read and written", "read": "read only", "write": "written only"}[" ".join(can)]
        lines = [textwrap.fill(f"{name} ({how}): {summary(name).replace('``', '')}", 120, subsequent_indent=" " * 4)]
        for word in can:
            lines.append(
                f"  _target_: {module.__name__}.read" if word == "read" else "  kplab data convert write.KEY=…:"
            )
            lines += [
                textwrap.fill(str(key), 120, initial_indent=" " * 4, subsequent_indent=" " * 8)
                for key in keys_of(getattr(module, word))
                if word == "read" or key.name not in ("labels", "path", "folder")
            ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def table_of_formats() -> list[str]:
    """The table of what each format holds, in Markdown, as docs/formats.md has it."""
    rows = []
    for name in all_formats():
        module = load_format(name)
        can = ["yes" if hasattr(module, word) else "no" for word in ("read", "write")]
        rows.append((name, ", ".join(can), module.HOLDS))
    return table(rows)
