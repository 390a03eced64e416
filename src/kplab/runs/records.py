"""Records of artefacts: what a file holds, by which command it was made, and from what.

A record lies beside its artefact as ``<stem>.record.json``, for example ``dots-test.record.json`` beside ``dots-test.json``.
It is written last, so an artefact without one is incomplete, and the records of a folder list its artefacts.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from kplab.errors import ConfigError, RunError
from kplab.runs import provenance
from kplab.runs.files import replacing

SCHEMA = 1
SUFFIX = ".record.json"


def record_path(artefact: Path) -> Path:
    """Path of the record of an artefact.

    >>> record_path(Path("scores/dots-test.json")).name
    'dots-test.record.json'
    """
    return artefact.with_name(artefact.stem + SUFFIX)


def command() -> list[str]:
    """The command line of this process, the program without its folder."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def write_record(
    artefact: Path,
    workspace: Path,
    made_from: Mapping[str, Any],
    beside: Sequence[Path] = (),
    **entries: Any,
) -> Path:
    """Write the record of an artefact that is complete on disk.

    Args:
        artefact: the main file, which names the record.
        workspace: the folder whose git commit is recorded.
        made_from: name of each input to its ``Path``, which is hashed here, or to a hash (text) that is known already.
        beside: further files of the same artefact, in the same folder.
        entries: further lines of the record.

    Returns:
        Path of the record.
    """
    code, _ = provenance.code(workspace)
    record = {
        "schema": SCHEMA,
        "artefact": artefact.name,
        "sha256": {path.name: provenance.file_sha256(path) for path in (artefact, *beside)},
        "made_from": {name: _source(source) for name, source in made_from.items()},
        "command": command(),
        "made": datetime.now().astimezone().isoformat(timespec="seconds"),
        "code": code,
        "packages": provenance.packages(),
        "hardware": provenance.hardware(),
        **entries,
    }
    path = record_path(artefact)
    with replacing(path) as stream:
        stream.write(json.dumps(record, indent=1).encode())
    return path


def read_record(artefact: Path) -> dict[str, Any]:
    """Read the record of an artefact, and check that the artefact is what was recorded.

    Raises:
        RunError: there is no record, it can't be read, a file is missing, or its bytes have changed since.
    """
    path = record_path(artefact)
    if not path.is_file():
        raise RunError(
            f"{artefact}: has no record ({path.name}), so it is incomplete or was not made by kplab. Make it again."
        )
    try:
        record = json.loads(path.read_text())
        schema, hashes, made_by = record["schema"], dict(record["sha256"]), shlex.join(record["command"])
        if not isinstance(record["made_from"], dict):
            raise ValueError("made_from is no list of inputs")
        files = {plain_file(artefact, name): str(expected) for name, expected in hashes.items()}
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise RunError(f"{path}: can't be read as a record ({error!r}). Make {artefact.name} again.") from None
    if schema != SCHEMA:
        raise RunError(
            f"{path}: has schema version {schema}, but this kplab reads version {SCHEMA}. Make {artefact.name} again."
        )
    if artefact not in files:
        raise RunError(
            f"{path}: is not the record of {artefact.name}, but of {some(hashes)}. Make {artefact.name} again."
        )
    for file, expected in files.items():
        if not file.is_file():
            raise RunError(f"{file} is missing: it belongs to {artefact.name}. Make it again: {made_by}")
        try:
            found = provenance.file_sha256(file)
        except OSError as error:
            raise RunError(
                f"{file}: can't be read ({error.strerror}). Allow reading it, or make it again: {made_by}"
            ) from None
        if found != expected:
            raise RunError(
                f"{file}: has changed since it was written (sha256 {found[:12]}…, its record has {expected[:12]}…). "
                f"Restore it, or make it again: {made_by}"
            )
    return dict(record)


def list_artefacts(folder: Path) -> list[Path]:
    """The artefacts of a folder in the order of their names, as its records name them; none where it does not exist.

    Raises:
        RunError: a record can't be read.
    """
    found = []
    for path in sorted(Path(folder).glob(f"*{SUFFIX}")):
        try:
            found.append(plain_file(path, json.loads(path.read_text())["artefact"]))
        except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
            raise RunError(f"{path}: can't be read as a record ({error!r}). Delete it, or restore it.") from None
    return found


#: Types of the entries of ``run.json`` that kplab reads; those of a process are below.
RUN_TYPES: dict[str, type | tuple[type, ...]] = {
    "status": str,
    "experiment": str,
    "started": str,
    "error": (str, type(None)),
    "cut": (str, type(None)),
    "checkpoints": dict,
    "detections": (dict, type(None)),
    "data_sha256": str,
    "parent": (str, type(None)),
    "changed_on_resume": list,
    "reproduces": str,
    "seconds": (int, float, type(None)),
    "process": dict,
}
PROCESS_TYPES: dict[str, type | tuple[type, ...]] = {"pid": int, "written": (int, float)}


def run_fault(record: Any) -> str | None:
    """What is wrong with the content of a ``run.json``; None where nothing is. A missing entry is no fault.

    >>> run_fault([]), run_fault({"status": "finished"}), run_fault({"status": 3})
    ('it holds no entries but list', None, "'status' is 3")
    """
    if not isinstance(record, dict):
        return f"it holds no entries but {type(record).__name__}"
    parts = [(record, RUN_TYPES)]
    if isinstance(record.get("process"), dict):
        parts.append((record["process"], PROCESS_TYPES))
    for part, types in parts:
        for name, kind in types.items():
            if name in part and (not isinstance(part[name], kind) or isinstance(part[name], bool)):
                return f"'{name}' is {part[name]!r}"
    pid = record.get("process", {}).get("pid", 1)
    return None if abs(pid) < 2**31 else f"'pid' is {pid}"


def plain_file(beside: Path, name: Any) -> Path:
    """The file of a name in the folder of another file.

    Raises:
        ValueError: the name is none of a file in this folder.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is no file name")
    return beside.with_name(name)


def safe_name(text: str) -> str:
    """Text as part of a file name: it leads to no other folder.

    >>> safe_name("../a b"), safe_name("heatmap_flies")
    ('-a-b', 'heatmap_flies')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip(".") or "-"


def check_inside(folder: Path, *paths: Path) -> None:
    """Refuse to write through a link or a name that leads out of a folder.

    Args:
        folder: a run's, or the one that a command writes to.
        paths: files and folders that will be written in it.

    Raises:
        RunError: names the path, and where it leads.
    """
    home = folder.resolve()
    for path in paths:
        try:
            target = path.resolve()
        except (OSError, RuntimeError):  # links in a circle
            raise RunError(f"{path}: is a link that leads nowhere. Remove it.") from None
        if not target.is_relative_to(home):
            raise RunError(f"{path}: leads out of {folder}, to {target}. Remove the link, or correct the name.")


def make_folder(path: Path, key: str = "out") -> Path:
    """Make a folder for results, before the work starts; returns it.

    Args:
        path: of the folder.
        key: of the config that names it, for the message.

    Raises:
        ConfigError: it can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: can't be made ({error.strerror}). Name another folder: {key}=DIR.") from None
    return path


def some(names: Iterable[str], limit: int = 4) -> str:
    """The first few names, for a message."""
    listed = list(names)
    return ", ".join(listed[:limit]) + (" …" if len(listed) > limit else "") if listed else "none"


def _source(source: Any) -> dict[str, str]:
    """An input by its file name and hash, or by its hash alone."""
    if isinstance(source, Path):
        return {"file": source.name, "sha256": provenance.file_sha256(source)}
    return {"sha256": str(source)}
