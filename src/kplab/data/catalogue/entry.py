"""Entries of the catalogue: what the node ``catalogue`` of a dataset's configuration states."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from kplab.errors import ConfigError

#: Hash functions of checksums, with the number of hex digits.
ALGORITHMS = {"sha256": 64, "md5": 32}
REQUIRED = ("title", "homepage", "licence", "citation", "tried", "files")
OPTIONAL = ("note",)


@dataclass(frozen=True)
class File:
    """One file of a dataset.

    Args:
        name: of the downloaded file, without a folder.
        url: its address; None where it can't be fetched without a browser, a form or a login.
        by_hand: how to get a file without an address.
        checksum: ``sha256:HEX`` or ``md5:HEX``; None where none is known.
        bytes: size of the file, about; None where it is not known.
        into: folder below the dataset's that it is unpacked into, or moved to; "" is the dataset's own.
        unpack: whether it is an archive to unpack.
        http: whether the publisher offers no https, so that http is allowed.
    """

    name: str
    url: str | None = None
    by_hand: str = ""
    checksum: str | None = None
    bytes: int | None = None
    into: str = ""
    unpack: bool = True
    http: bool = False


@dataclass(frozen=True)
class Entry:
    """A dataset of the catalogue.

    Args:
        name: of the dataset's configuration.
        title: of the dataset.
        homepage: address of its page.
        licence: terms of use, in words.
        citation: of the paper, one line.
        tried: whether the addresses were tried with kplab.
        folder: of the dataset.
        files: to fetch.
        note: what else to know, such as the size.
    """

    name: str
    title: str
    homepage: str
    licence: str
    citation: str
    tried: bool
    folder: Path
    files: tuple[File, ...]
    note: str = ""

    @classmethod
    def from_config(cls, dataset: Mapping[str, Any]) -> Entry:
        """The entry of a dataset's configuration.

        Args:
            dataset: the content of ``conf/dataset/*.yaml``, resolved.

        Raises:
            ConfigError: it has none, or a key is missing, unknown or of a wrong form.
        """
        name, node = str(dataset.get("name")), dataset.get("catalogue")
        if not node:
            raise ConfigError(
                f"dataset '{name}' is not in the catalogue: its configuration has no key 'catalogue'. kplab data get "
                "without a dataset lists those that are."
            )
        where = f"dataset '{name}', catalogue"
        _check_keys(node, where, REQUIRED, OPTIONAL)
        if not dataset.get("folder"):
            raise ConfigError(f"dataset '{name}' has no key 'folder'. Name the folder that its files are put into.")
        files = tuple(_file(one, f"{where}, file {i + 1}") for i, one in enumerate(node["files"]))
        if not files:
            raise ConfigError(f"{where}: 'files' is empty. List the files of the dataset.")
        names = [file.name for file in files]
        if len(set(names)) != len(names):
            raise ConfigError(f"{where}: two files have one name: {', '.join(names)}. Give each a 'name' of its own.")
        texts = {key: str(node[key]) for key in ("title", "homepage", "licence", "citation")}
        note = str(node.get("note") or "")
        return cls(name, tried=bool(node["tried"]), folder=Path(dataset["folder"]), files=files, note=note, **texts)

    def lines(self) -> list[str]:
        """What a user reads before anything is fetched: title, page, licence and citation."""
        known = [file.bytes for file in self.files if file.bytes]
        size = f"{sum(known) / 1e9:.3g} GB" if len(known) == len(self.files) else "size not known"
        lines = [
            f"{self.title}: {len(self.files)} files, {size}",
            f"  page:     {self.homepage}",
            f"  licence:  {self.licence} (a summary: the page has the terms)",
            f"  cite:     {self.citation}",
        ]
        if self.note:
            lines.append(f"  note:     {self.note}")
        if not self.tried:
            lines.append("  The addresses were not tried with kplab: they are those that are published.")
        return lines


def find_entries(folder: Path) -> list[Entry]:
    """The entries of all configurations of datasets in a folder, by name.

    Args:
        folder: of ``*.yaml``; those without an entry are left out.
    """
    found = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml"))]
    return [Entry.from_config(dataset) for dataset in found if dataset.get("catalogue")]


def _check_keys(node: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    if not isinstance(node, Mapping):
        raise ConfigError(f"{where}: expected keys and values, found {type(node).__name__}.")
    missing = [key for key in required if node.get(key) is None]
    unknown = [str(key) for key in node if key not in (*required, *optional)]
    if missing or unknown:
        faults = [f"needs '{key}'" for key in missing] + [f"has no key '{key}'" for key in unknown]
        raise ConfigError(f"{where}: {', '.join(faults)}. Its keys: {', '.join((*required, *optional))}.")


def _file(node: Any, where: str) -> File:
    keys = tuple(File.__dataclass_fields__)
    _check_keys(node, where, (), keys)
    given = {key: value for key, value in node.items() if value is not None}
    if bool(given.get("url")) == bool(given.get("by_hand")):
        raise ConfigError(f"{where}: give 'url', or 'by_hand' with how to get the file without an address.")
    if "name" not in given and "url" in given:
        given["name"] = unquote(PurePosixPath(urlsplit(str(given["url"])).path).name)
    name, into = str(given.get("name") or ""), str(given.get("into") or "")
    if not name or name in (".", "..") or re.search(r"[/\\\0]", name):
        raise ConfigError(f"{where}: '{name}' is no file name. Give 'name', without a folder.")
    if PurePosixPath(into).is_absolute() or ".." in PurePosixPath(into).parts:
        raise ConfigError(f"{where}: into='{into}' leads out of the dataset's folder. Name a folder in it.")
    checksum = given.get("checksum")
    if checksum is not None:
        algorithm, _, digits = str(checksum).partition(":")
        if not re.fullmatch(r"[0-9a-f]+", digits) or ALGORITHMS.get(algorithm) != len(digits):
            raise ConfigError(f"{where}: checksum '{checksum}' is none. Write sha256:HEX or md5:HEX, or null.")
    return File(**{**given, "name": name})
