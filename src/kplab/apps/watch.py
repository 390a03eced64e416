"""The learning curves of a run in a notebook, drawn again while it is trained: here, or by another process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd
from IPython.display import display
from omegaconf import DictConfig

from kplab.apps.explore import with_picture
from kplab.errors import KplabError
from kplab.runs.run import Run
from kplab.tasks.evaluation.curves import curves_by_epoch
from kplab.viz import curves, look


def curves_of(run: Run) -> pd.DataFrame:
    """The curves of a run by epoch, which may be written at this time; rows of one epoch are averaged."""
    return pd.DataFrame(curves_by_epoch(run)).rename_axis("epoch").sort_index().reset_index()


class Curves(ipywidgets.VBox):
    """The curves of a run, and its status.

    Args:
        run: None: of the next one, see ``update``.
    """

    def __init__(self, run: Run | None = None) -> None:
        self.caption = ipywidgets.Label("waiting for the first epoch")
        self.picture = ipywidgets.Image(format="png")
        self.rows = -1
        super().__init__([self.caption, self.picture])
        if run is not None:
            self.update(run)

    def update(self, run: Run) -> None:
        """Read the curves of a run, which may be written at this time, and draw them if there is more than before."""
        table = curves_of(run)
        epoch = "" if table.empty else f", epoch {table['epoch'].iloc[-1]:.0f}"
        self.caption.value = f"{run.name}: {run.status}{epoch}"
        if table.empty or table.shape[1] < 2 or len(table) == self.rows:
            return
        self.rows = len(table)
        self.picture.value = look.png(curves.training(table))

    def follow(self, run: Run, every: float = 2.0) -> threading.Thread:
        """Draw the curves of a run until it has ended, in a thread; of one that another process trains, for example.

        Args:
            every: seconds.
        """
        pause = threading.Event()

        def follow() -> None:
            while Run.open(run.folder).status == "running":
                self.update(Run.open(run.folder))
                pause.wait(every)
            self.update(Run.open(run.folder))

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        return thread

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        return with_picture(super()._repr_mimebundle_(**options), self.picture.value)


def watch(learn: Callable[[], Run | None], runs_dir: Path, every: float = 2.0) -> Run | None:
    """Show the curves of a training while it goes on; returns what the training returns.

    Args:
        learn: trains a new run.
        runs_dir: the folder in which it appears.
        every: seconds between two drawings.
    """
    view, stop = Curves(), threading.Event()
    shown = display(view, display_id=True)
    known = set(Path(runs_dir).glob("*_*"))

    def follow() -> None:
        while not stop.wait(every):
            draw()

    def draw() -> None:
        try:
            for folder in sorted(set(Path(runs_dir).glob("*_*")) - known)[-1:]:
                view.update(Run.open(folder))
        except (KplabError, OSError):
            pass  # the folder is being made

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        return learn()
    finally:
        stop.set()
        thread.join()
        draw()
        if shown is not None:
            shown.update(view)  # for readers without a kernel


def train_and_watch(config: DictConfig, every: float = 2.0) -> Run | None:
    """Train a run, and show its curves meanwhile.

    Args:
        config: of ``kplab train``.
        every: seconds between two drawings.
    """
    from kplab.tasks.training.train import train

    return watch(lambda: train(config), Path(config.runs_dir), every)
