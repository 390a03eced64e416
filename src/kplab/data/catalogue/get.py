"""Fetching a dataset of the catalogue: download, verify, unpack, and state what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kplab.data.catalogue.download import Limits, check_address, digest, fetch, verify
from kplab.data.catalogue.entry import Entry, File
from kplab.data.catalogue.unpack import unpack
from kplab.errors import DataError
from kplab.runs.files import replacing_text

#: Folder of archives within a dataset's, and the file that lists what is complete.
DOWNLOADS, RECEIPT = "downloads", "catalogue.json"


class Reporter(Protocol):
    """Shows what goes on."""

    def step(self, text: str) -> None:
        """State what begins or was done, in a line."""

    def downloaded(self, name: str, done: int, total: int | None) -> None:
        """State how many bytes of a file are there."""

    def unpacked(self, name: str, files: int) -> None:
        """State how many files of an archive are unpacked."""


@dataclass
class Got:
    """What ``get`` did.

    Args:
        present: files that were complete before.
        fetched: files that are complete now, with their SHA-256.
        unknown: of these, those that the catalogue states no checksum of.
    """

    present: list[str] = field(default_factory=list)
    fetched: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def get(entry: Entry, limits: Limits, reporter: Reporter, keep: bool = False) -> Got:
    """Fetch all files of a dataset that are not there.

    A file that lies in the folder ``downloads`` of the dataset is not fetched: it is verified and used.

    Args:
        entry: of the catalogue.
        limits: of the downloads.
        reporter: shows progress.
        keep: keep archives after they are unpacked.

    Raises:
        DataError: a file can't be fetched, is damaged, or has to be fetched by hand; those before it are complete.
    """
    for file in entry.files:
        if file.url is not None:
            check_address(file.url, file.http, limits)
    receipt = _read_receipt(entry.folder)
    wanted = [file for file in entry.files if not _is_complete(receipt.get(file.name), file)]
    _check_space(entry.folder, wanted)
    got = Got(present=[file.name for file in entry.files if file not in wanted])
    by_hand = []
    for file in wanted:
        path = entry.folder / DOWNLOADS / file.name
        own = not path.is_file()
        if own and file.url is None:
            by_hand.append(file)
            continue
        if own:
            reporter.step(f"{file.name}: from {file.url}")
            fetch(file, path, limits, _curried(reporter.downloaded, file.name))
        else:
            reporter.step(f"{file.name}: found in {path.parent}")
            verify(path, file)
        sha256, size = digest(path), path.stat().st_size
        home = entry.folder / file.into
        if file.unpack:
            count = unpack(path, home, _curried(reporter.unpacked, file.name))
            reporter.step(f"{file.name}: {count} files in {home}")
            if own and not keep:
                path.unlink()
        else:
            home.mkdir(parents=True, exist_ok=True)
            path.replace(home / file.name)
        got.fetched[file.name] = sha256
        if file.checksum is None:
            got.unknown.append(file.name)
        receipt[file.name] = {"url": file.url, "sha256": sha256, "bytes": size, "checksum": file.checksum}
        _write_receipt(entry.folder, receipt)
    if by_hand:
        lines = "\n".join(f"  {file.name}: {file.by_hand}" for file in by_hand)
        raise DataError(
            f"{entry.name}: {len(by_hand)} files can't be fetched without a browser, a form or a login. Put each under "
            f"its name into {entry.folder / DOWNLOADS}, and run the command again:\n{lines}"
        )
    return got


def missing_paths(dataset: dict[str, Any], folder: Path) -> list[Path]:
    """Files and folders below a dataset's folder that its sources name, and that don't exist."""
    found = []
    for source in (dataset.get("sources") or {}).values():
        for value in source.values():
            if isinstance(value, str) and Path(value).is_relative_to(folder) and not Path(value).exists():
                found.append(Path(value))
    return list(dict.fromkeys(found))


def _curried(report: Callable[..., None], name: str) -> Callable[..., None]:
    return lambda *values: report(name, *values)


def _is_complete(entry: Any, file: File) -> bool:
    """Whether the receipt lists a file, and with the checksum of the catalogue where it states one."""
    if not isinstance(entry, dict):
        return False
    return file.checksum in (None, entry.get("checksum"), f"sha256:{entry.get('sha256')}")


def _check_space(folder: Path, files: list[File]) -> None:
    """Refuse downloads that the disk can't hold: archive and content of the largest, and the content of the others."""
    sizes = [file.bytes or 0 for file in files]
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(place).free, sum(sizes) + max(sizes, default=0)
    if needed > free:
        raise DataError(
            f"{folder}: about {needed / 1e9:.3g} GB are needed, and the disk has {free / 1e9:.3g} GB left. Free some, or "
            "name another folder: dataset.folder=DIR."
        )


def _read_receipt(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / RECEIPT).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder / RECEIPT}: can't be read ({error}). Delete it to have all files fetched again."
        ) from None
    return dict(content) if isinstance(content, dict) else {}


def _write_receipt(folder: Path, receipt: dict[str, Any]) -> None:
    with replacing_text(folder / RECEIPT) as stream:
        stream.write(json.dumps(receipt, indent=1) + "\n")
