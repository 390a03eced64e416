"""The learning curves of a run, drawn at the end of its training."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kplab.viz import curves, look


def draw_curves(folder: Path) -> Path | None:
    """Draw ``curves.csv`` of a run as ``curves.png`` beside it.

    Returns:
        Path of the picture; None where no epoch was trained.
    """
    path = folder / "curves.csv"
    if not path.is_file():
        return None
    try:
        figure = curves.training(pd.read_csv(path))
    except (ValueError, pd.errors.EmptyDataError):
        return None  # nothing was logged
    return look.write_png(path.with_suffix(".png"), figure)
