"""All runs of a folder as rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kplab.errors import RunError
from kplab.runs.run import Run


def rows(root: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """One row a run, newest first: name, status, duration, and the main scores of its newest score file.

    A folder that can't be read is a row too, with status "unreadable" and the reason.
    """
    folders = sorted((p for p in Path(root).glob("*_*") if p.is_dir()), key=lambda p: p.name, reverse=True)
    return [row(folder) for folder in folders[:limit]]


def row(folder: Path) -> dict[str, Any]:
    """The row of one run."""
    try:
        run = Run.open(folder)
    except RunError as error:
        return {"run": folder.name, "status": "unreadable", "error": str(error), "scores": {}}
    return {
        "run": run.name,
        "status": run.status,
        "experiment": run.record.get("experiment", ""),
        "started": run.record.get("started", ""),
        "seconds": run.record.get("seconds"),
        "error": run.error,
        "scores": scores(folder),
    }


def scores(folder: Path) -> dict[str, dict[str, Any]]:
    """Score file name to its summary, for every score file of a run."""
    out = {}
    for path in sorted((folder / "scores").glob("*.json")):
        if path.name == "record.json":
            continue
        try:
            out[path.stem] = json.loads(path.read_text()).get("summary", {})
        except (json.JSONDecodeError, OSError):
            out[path.stem] = {}
    return out


def clock(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
