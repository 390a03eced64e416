"""Records of artefacts: what a file holds, by which command it was made, and from what.

A record lies beside its artefact as ``<stem>.record.json``, for example ``dots-test.record.json`` beside ``dots-test.json``.
It is written last, so an artefact without one is incomplete, and the records of a folder list its artefacts.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from kplab.errors import RunError
from kplab.runs import provenance

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
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(record, indent=1))
    scratch.replace(path)
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
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise RunError(f"{path}: can't be read as a record ({error!r}). Make {artefact.name} again.") from None
    if schema != SCHEMA:
        raise RunError(
            f"{path}: has schema version {schema}, but this kplab reads version {SCHEMA}. Make {artefact.name} again."
        )
    for name, expected in hashes.items():
        file = artefact.with_name(name)
        if not file.is_file():
            raise RunError(f"{file} is missing: it belongs to {artefact.name}. Make it again: {made_by}")
        found = provenance.file_sha256(file)
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
            found.append(path.with_name(json.loads(path.read_text())["artefact"]))
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise RunError(f"{path}: can't be read as a record ({error!r}). Delete it, or restore it.") from None
    return found


def _source(source: Any) -> dict[str, str]:
    """An input by its file name and hash, or by its hash alone."""
    if isinstance(source, Path):
        return {"file": source.name, "sha256": provenance.file_sha256(source)}
    return {"sha256": str(source)}
