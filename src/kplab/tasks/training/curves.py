"""The learning curves of a run: ``curves.csv``, written during its training and drawn at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger

from kplab.runs.run import Run
from kplab.tasks.evaluation.files import read_curves
from kplab.viz import curves, look

#: Number of the first epoch in ``curves.csv``, for the record of the run. An older kplab counted from 0 there.
COUNTED_FROM = 1


class CurveLogger(CSVLogger):
    """Lightning's CSV file, with epochs counted from 1 as everywhere in kplab."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:  # type: ignore[override]
        """Write a row."""
        counted = {"epoch": metrics["epoch"] + COUNTED_FROM} if "epoch" in metrics else {}
        super().log_metrics({**metrics, **counted}, step)


def curve_logger(folder: Path) -> CurveLogger:
    """A logger that writes ``curves.csv`` in a run's folder."""
    logger = CurveLogger(folder, name="", version="")
    logger.experiment.metrics_file_path = str(folder / "curves.csv")
    return logger


def draw_curves(run: Run) -> Path | None:
    """Draw ``curves.csv`` of a run as ``curves.png`` beside it.

    Returns:
        Path of the picture; None where no epoch was trained.
    """
    frame = read_curves(run)
    if frame is None or frame.empty:
        return None
    try:
        figure = curves.training(frame)
    except ValueError:
        return None  # nothing was logged
    return look.write_png(run.folder / "curves.png", figure)
