"""Progress in the terminal: a bar of at most 80 columns, and one line at the end; elsewhere that line only."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from kplab.errors import printable

T = TypeVar("T")

#: Seconds between two lines where there is no terminal.
MINUTE = 60.0

#: Columns that a bar takes at most.
WIDTH = 80


def track_images(
    items: Iterable[T], total: int | None, what: str, console: Console | None = None, unit: str = "images"
) -> Iterator[T]:
    """Yield the items, with a bar of what is done and left on a terminal, a line each minute elsewhere, and one at the end.

    Args:
        items: one an image.
        total: number of images, about; None: unknown.
        what: what is done, e.g. "predicting test".
        console: None is the terminal.
        unit: what the items are called.
    """
    console, what = console or terminal(), printable(what)
    begun = said = time.perf_counter()
    count = 0
    with bar(console, unit) as shown:
        task = shown.add_task(what, total=total)
        for item in items:
            yield item
            count += 1
            now = time.perf_counter()
            shown.update(task, completed=count, total=total if total is None else max(total, count))
            if now - said >= MINUTE and not console.is_terminal:
                said, speed = now, count / (now - begun)
                left = "" if total is None else f" of {total}, {max(0, total - count) / speed:.0f} s left"
                console.print(f"{what}: {count} {unit}{left}, {speed:.1f} {unit}/s", markup=False, highlight=False)
    seconds = time.perf_counter() - begun
    speed = count / seconds if seconds else 0.0
    console.print(f"{what}: {count} {unit} in {seconds:.1f} s, {speed:.1f} {unit}/s", markup=False, highlight=False)


@contextmanager
def working(what: str, console: Console | None = None, least: float = 0.0) -> Iterator[None]:
    """Show that a step of unknown length goes on, and one line at its end.

    Args:
        what: what is done, e.g. "scoring dots-test".
        console: None is the terminal.
        least: seconds below which there is no line at the end.
    """
    console, what = console or terminal(), printable(what)
    begun = time.perf_counter()
    with bar(console) as shown:
        shown.add_task(what, total=None)
        yield
    if (seconds := time.perf_counter() - begun) >= least:
        console.print(f"{what}: {seconds:.1f} s", markup=False, highlight=False)


def terminal(stderr: bool = False) -> Console:
    """The standard output, or error, at most ``WIDTH`` columns wide on a terminal; lines elsewhere are not wrapped."""
    # Jupyter's kernels claim to be a terminal, but keep every state of a bar
    console = Console(
        stderr=stderr, soft_wrap=True, force_jupyter=False, force_terminal=False if "ipykernel" in sys.modules else None
    )
    if console.is_terminal:
        console.width = min(WIDTH, console.width)
    return console


class Speed(ProgressColumn):
    """Items a second, over the last part of a task."""

    def __init__(self, unit: str) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self.unit = unit

    def render(self, task: Task) -> Text:
        """The speed; empty until it is known."""
        return Text(f"{task.speed:.1f} {self.unit}/s" if task.speed else "")


def bar(console: Console, unit: str = "images") -> Progress:
    """A bar that is removed at its end, and is not shown where there is no terminal: done, speed, time gone and left.

    Args:
        console: the terminal.
        unit: what is counted.
    """
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        BarColumn(bar_width=10),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        Speed(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        expand=True,
        disable=not console.is_terminal,
    )


def step_bar(console: Console) -> Progress:
    """A bar of steps that leaves most of the line to its description; removed at its end, not shown without a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        BarColumn(bar_width=12),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        console=console,
        transient=True,
        expand=True,
        disable=not console.is_terminal,
    )
