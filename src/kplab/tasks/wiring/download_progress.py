"""Progress of downloads in the terminal; elsewhere one line for each step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from kplab.errors import printable


class Reporter:
    """Shows steps as lines, and one bar for what goes on; see ``data.catalogue.get.Reporter``."""

    def __init__(self, console: Console, bars: Progress) -> None:
        self.console, self.bars = console, bars
        self.tasks: dict[str, TaskID] = {}

    def step(self, text: str) -> None:
        """Print a line."""
        self._end()
        self.console.print(printable(text), markup=False, highlight=False)

    def downloaded(self, name: str, done: int, total: int | None) -> None:
        """Update the bar of a download."""
        of = f" of {total / 1e6:.1f}" if total is not None else ""
        self.bars.update(self._task(name), completed=done, total=total, state=f"{done / 1e6:.1f}{of} MB")

    def unpacked(self, name: str, files: int) -> None:
        """Update the count of unpacked files."""
        self.bars.update(self._task(f"unpacking {name}"), state=f"{files} files")

    def _task(self, text: str) -> TaskID:
        if text not in self.tasks:
            self._end()
            self.tasks[text] = self.bars.add_task(printable(text), total=None, state="")
        return self.tasks[text]

    def _end(self) -> None:
        for task in self.tasks.values():
            self.bars.remove_task(task)
        self.tasks = {}


@contextmanager
def shown() -> Iterator[Reporter]:
    """A reporter on the standard output; bars are shown on terminals only."""
    console = Console(soft_wrap=True)
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[state]}", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bars:
        yield Reporter(console, bars)
