"""``kplab runs``: list runs, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from kplab.errors import ConfigError
from kplab.tasks import compose

EXAMPLE = "kplab runs"


@dataclass
class Options:
    """Keys of ``kplab runs``."""

    limit: int = 30
    runs_dir: str = MISSING


def main(args: list[str]) -> None:
    """Print all runs, newest first, with status and main scores."""
    from rich.console import Console
    from rich.table import Table

    from kplab.runs.table import clock, rows

    config = compose("runs", args)
    if config.limit < 1:
        raise ConfigError(f"limit is {config.limit}, but must be at least 1.")
    found = rows(Path(config.runs_dir), config.limit)
    if not found:
        print(f"no runs in {config.runs_dir}. Make one with `kplab train` or `make demo`.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "status", "time", "scored on", "AP", "mean px", "PCK"):
        table.add_column(
            heading, no_wrap=heading == "run", justify="right" if heading in ("AP", "mean px", "PCK") else "left"
        )
    for row in found:
        colour = {"finished": "green", "running": "cyan"}.get(row["status"], "red")
        head = [row["run"], f"[{colour}]{row['status']}[/]", clock(row["seconds"]) if row.get("seconds") else ""]
        lines = [[name, *figures(summary)] for name, summary in row["scores"].items()] or [["", "", "", ""]]
        table.add_row(*head, *lines[0])
        for line in lines[1:]:
            table.add_row("", "", "", *line)
    Console(width=None if Console().is_terminal else 160).print(table)
    for row in found:
        if row.get("error"):
            print(f"{row['run']}: {str(row['error']).splitlines()[0]}")


def figures(summary: dict[str, Any]) -> list[str]:
    """AP never without the pixel error beside it."""

    def shown(value: Any, digits: int) -> str:
        return "-" if value is None or value == -1 else f"{value:.{digits}f}"

    pck = next((f"{key[3:]} {shown(v, 3)}" for key, v in summary.items() if key.startswith("pck@0.2")), "")
    return [shown(summary.get("AP"), 3), shown(summary.get("mean_px"), 2), pck]
