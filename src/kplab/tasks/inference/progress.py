"""Progress in the terminal: a bar of at most 80 columns, and one line at the end; elsewhere that line only."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from kplab.errors import printable

T = TypeVar("T")

#: Columns that a bar takes at most.
WIDTH = 80


def track_images(items: Iterable[T], total: int, what: str, console: Console | None = None) -> Iterator[T]:
    """Yield the items, with a bar of what is done and left on a terminal, and one line at the end.

    Args:
        items: one an image.
        total: number of images.
        what: what is done, e.g. "predicting test".
        console: None is the terminal.
    """
    console, what = console or terminal(), printable(what)
    begun = time.perf_counter()
    with bar(console) as shown:
        task = shown.add_task(what, total=total)
        for item in items:
            yield item
            shown.advance(task)
    seconds = time.perf_counter() - begun
    console.print(
        f"{what}: {total} images in {seconds:.1f} s, {total / seconds:.1f} images/s", markup=False, highlight=False
    )


@contextmanager
def working(what: str, console: Console | None = None) -> Iterator[None]:
    """Show that a step of unknown length goes on, and one line at its end.

    Args:
        what: what is done, e.g. "scoring dots-test".
        console: None is the terminal.
    """
    console, what = console or terminal(), printable(what)
    begun = time.perf_counter()
    with bar(console) as shown:
        shown.add_task(what, total=None)
        yield
    console.print(f"{what}: {time.perf_counter() - begun:.1f} s", markup=False, highlight=False)


def terminal(stderr: bool = False) -> Console:
    """The standard output, or error, at most ``WIDTH`` columns wide on a terminal; lines elsewhere are not wrapped."""
    # Jupyter's kernels claim to be a terminal, but keep every state of a bar
    console = Console(
        stderr=stderr, soft_wrap=True, force_jupyter=False, force_terminal=False if "ipykernel" in sys.modules else None
    )
    if console.is_terminal:
        console.width = min(WIDTH, console.width)
    return console


def bar(console: Console) -> Progress:
    """A bar that is removed at its end, and is not shown where there is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        BarColumn(bar_width=20),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
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
