"""``kplab runs``: list runs, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from kplab.errors import ConfigError, printable
from kplab.tasks import compose

EXAMPLE = "kplab runs"


@dataclass
class Options:
    """Keys of ``kplab runs``."""

    limit: int = 30
    runs_dir: str = MISSING


def main(args: list[str]) -> None:
    """Print all runs, newest first, with status and main metrics."""
    from rich.console import Console
    from rich.table import Table

    from kplab.metrics.metric import rows_of
    from kplab.runs.table import clock, rows

    config = compose("runs", args)
    if config.limit < 1:
        raise ConfigError(f"limit is {config.limit}, but must be at least 1.")
    found = rows(Path(config.runs_dir), config.limit)
    if not found:
        print(f"no runs in {config.runs_dir}. Make one with `kplab train` or `make demo`.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "status", "time", "scored on"):
        table.add_column(heading, no_wrap=heading == "run")
    for metric in rows_of("runs"):
        table.add_column(metric.label, justify="right")
    for row in found:
        head = [
            cell(row["run"]),
            f"[{colour(row)}]{cell(row['status'])}[/]",
            clock(row["seconds"]) if row.get("seconds") else "",
        ]
        lines = [[cell(name), *figures(summary)] for name, summary in row["scores"].items()] or [[""]]
        table.add_row(*head, *lines[0])
        for line in lines[1:]:
            table.add_row("", "", "", *line)
    Console(width=None if Console().is_terminal else 160).print(table)
    for row in found:
        for text in (row.get("error"), row.get("cut"), *row["notes"]):
            if text:
                print(printable(f"{row['run']}: {(str(text).splitlines() or [''])[0]}"))


def colour(row: dict[str, Any]) -> str:
    """The colour of a run's status: red is for failures."""
    if row["status"] == "stopped" or (row["status"] == "finished" and row.get("cut")):
        return "yellow"
    return {"finished": "green", "running": "cyan"}.get(row["status"], "red")


def cell(text: str) -> str:
    """Text of a record as it is shown in a table: neither controls of the terminal nor styles of rich."""
    from rich.markup import escape

    return escape(printable(text))


def figures(summary: dict[str, Any]) -> list[str]:
    """The metrics of a summary as cells; of a family its last member, after the member's value: '0.2 0.934'."""
    from kplab.metrics.metric import rows_of

    cells = []
    for row in rows_of("runs"):
        keys = row.keys(summary)
        cell = row.text(summary[keys[-1]]) if keys else ""
        cells.append(f"{keys[-1].rpartition('@')[2]} {cell}" if keys and row.each else cell)
    return cells
