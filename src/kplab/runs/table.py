"""All runs of a folder as rows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kplab.errors import RunError, describe
from kplab.runs.provenance import file_sha256
from kplab.runs.records import list_artefacts, plain_file, read_record, record_path
from kplab.runs.run import Run

#: Numbers of a pair of splits in the record of a run, and examples that are listed of it at most.
LEAKS, EXAMPLES = ("images", "same", "near", "neighbours", "groups"), 50


def rows(root: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """One row per run, newest first: name, status, duration, summaries of scores, what ended it early, error, and notes.

    A folder that can't be read has status "unreadable" and the reason as its error. Scores that are not those of the
    present predictions are left out, with a note.
    """
    folders = sorted((p for p in Path(root).glob("*_*") if os.path.isdir(p)), key=lambda p: p.name, reverse=True)
    return [row(folder) for folder in folders[:limit]]


def row(folder: Path) -> dict[str, Any]:
    """The row of one run."""
    try:
        run = Run.open(folder)
    except RunError as error:
        return {"run": folder.name, "status": "unreadable", "error": str(error), "scores": {}, "notes": []}
    found, faults, notes = scores(folder)
    if "reproduces" in run.record:
        notes.insert(0, reproduction(run))
    return {
        "run": run.name,
        "status": run.status,
        "experiment": run.record.get("experiment", ""),
        "started": run.record.get("started", ""),
        "seconds": run.record.get("seconds"),
        "error": run.error or next(iter(faults), None),
        "cut": run.cut,
        "scores": found,
        "notes": notes,
    }


def leaks_of(record: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """What every two splits of a run share, from its record; None where it does not state it.

    Returns:
        for each pair ``one``, ``other``, the numbers of ``LEAKS`` (None where the record lacks one) and ``examples``: lines.
    """
    found = record.get("leaks")
    if not isinstance(found, list):
        return None
    rows = []
    for leak in found:
        if not isinstance(leak, dict):
            continue
        numbers = {key: n if type(n := leak.get(key)) is int else None for key in LEAKS}
        kinds = examples if isinstance(examples := leak.get("examples"), dict) else {}
        pairs = [(kind, pair) for kind, listed in kinds.items() if isinstance(listed, list) for pair in listed]
        lines = [f"{kind}: {', '.join(map(str, pair))}" for kind, pair in pairs if isinstance(pair, list)]
        rows.append(
            {"one": str(leak.get("one")), "other": str(leak.get("other")), **numbers, "examples": lines[:EXAMPLES]}
        )
    return rows


def scores(folder: Path, check: bool = True) -> tuple[dict[str, dict[str, Any]], list[str], list[str]]:
    """Summaries of the scores of a run.

    Args:
        check: the hashes of their files, too; else those that records state are trusted.

    Returns:
        name of each score file to its summary; why others can't be read; and which are outdated.
    """
    found: dict[str, dict[str, Any]] = {}
    faults, notes = [], []
    try:
        for path in list_artefacts(folder / "scores"):
            try:
                record = read_record(path) if check else read_json(record_path(path))
                if is_outdated(folder, record, check):
                    notes.append(f"scores {path.stem} are outdated: {outdated_text(folder, record)}")
                else:
                    found[path.stem] = summary(path)
            except RunError as error:
                faults.append(str(error))
    except (RunError, OSError) as error:
        faults.append(describe(error))
    return found, faults, notes


def is_outdated(folder: Path, record: dict[str, Any], check: bool = True) -> bool:
    """Whether the predictions that scores were made from have been replaced since.

    Args:
        folder: of the run.
        record: of the scores. Scores whose predictions are no longer there are not outdated.
        check: hash the predictions; else the hash that their own record states is taken.
    """
    made_from = record.get("made_from")
    source = made_from.get("predictions") if isinstance(made_from, dict) else None
    if not isinstance(source, dict) or "file" not in source:
        return False
    try:
        path = plain_file(folder / "predictions" / "x", source["file"])
    except ValueError:
        return False  # of a file elsewhere
    if not path.is_file():
        return False
    if check:
        return file_sha256(path) != source.get("sha256")
    try:
        return bool(read_json(record_path(path))["sha256"][path.name] != source.get("sha256"))
    except (RunError, KeyError, TypeError):
        return False


def read_json(path: Path) -> dict[str, Any]:
    """The entries of a JSON file.

    Raises:
        RunError: it can't be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError) as error:
        raise RunError(f"{path}: can't be read ({error!r}). Restore it, or make it again.") from None
    if not isinstance(content, dict):
        raise RunError(f"{path}: holds no entries. Restore it, or make it again.")
    return content


def outdated_text(folder: Path, record: dict[str, Any]) -> str:
    """What to do about outdated scores, given their record."""
    file, split = str(record["made_from"]["predictions"]["file"]), str(record.get("split", "NAME"))
    regions = file.removesuffix(".json").rpartition(f"-{split}-")[2] if f"-{split}-" in file else None
    more = f" regions={regions}" if regions else ""
    return (
        f"predictions/{file} is another file than was scored. Run: kplab evaluate run={folder.name} split={split}{more}"
    )


def reproduction(run: Run) -> str:
    """Which run this one reproduces, and the verdict."""
    path = run.folder / "reproduction.json"
    try:
        read_record(path)
        verdict = str(json.loads(path.read_text())["verdict"])
    except (RunError, ValueError, KeyError, TypeError, OSError, RecursionError):
        verdict = "no verdict"
    return f"reproduces {run.record['reproduces']}: {verdict}"


def summary(path: Path) -> dict[str, Any]:
    """The summary of a score file: metrics to numbers, or None.

    Raises:
        RunError: the file holds none.
    """
    try:
        found = dict(json.loads(path.read_text())["summary"])
        wrong = [name for name, value in found.items() if not isinstance(value, int | float | None)]
        if wrong:
            raise ValueError(f"{wrong[0]} is no number")
        return found
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise RunError(f"{path}: can't be read as scores ({error!r}). Evaluate the run again.") from None


def clock(seconds: float) -> str:
    """A duration as text, in the two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def labels_of(runs: Sequence[Run]) -> list[str]:
    """Short names: the runs' experiments if they differ, else the names of their folders."""
    short = [str(run.record.get("experiment", run.name)) for run in runs]
    return short if len(set(short)) == len(short) else [run.name for run in runs]
