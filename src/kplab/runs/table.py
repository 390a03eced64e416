"""All runs of a folder as rows."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kplab.errors import RunError, describe
from kplab.runs.records import list_artefacts, read_record
from kplab.runs.run import Run


def rows(root: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """One row per run, newest first: name, status, duration, summaries of scores, and the error or what ended it early.

    A folder that can't be read has status "unreadable" and the reason as its error.
    """
    folders = sorted((p for p in Path(root).glob("*_*") if os.path.isdir(p)), key=lambda p: p.name, reverse=True)
    return [row(folder) for folder in folders[:limit]]


def row(folder: Path) -> dict[str, Any]:
    """The row of one run."""
    try:
        run = Run.open(folder)
    except RunError as error:
        return {"run": folder.name, "status": "unreadable", "error": str(error), "scores": {}}
    found, faults = scores(folder)
    return {
        "run": run.name,
        "status": run.status,
        "experiment": run.record.get("experiment", ""),
        "started": run.record.get("started", ""),
        "seconds": run.record.get("seconds"),
        "error": run.error or run.record.get("cut") or next(iter(faults), None),
        "scores": found,
    }


def scores(folder: Path, check: bool = True) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Summaries of the scores of a run.

    Args:
        check: the hashes of their files, too.

    Returns:
        name of each score file to its summary; and why others can't be read.
    """
    found: dict[str, dict[str, Any]] = {}
    faults = []
    try:
        for path in list_artefacts(folder / "scores"):
            try:
                if check:
                    read_record(path)
                found[path.stem] = summary(path)
            except RunError as error:
                faults.append(str(error))
    except (RunError, OSError) as error:
        faults.append(describe(error))
    return found, faults


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
