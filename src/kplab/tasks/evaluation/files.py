"""Files of a run that later verbs read, checked against their records."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kplab.errors import DataError, RunError
from kplab.metrics.score import Scores
from kplab.runs.provenance import file_sha256
from kplab.runs.records import list_artefacts, read_record, record_path
from kplab.runs.run import Run
from kplab.runs.table import is_outdated, outdated_text
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton


def score_files(run: Run) -> dict[str, Path]:
    """The score files of a run by name, ``<dataset>-<split>``."""
    return {path.stem: path for path in list_artefacts(run.folder / "scores")}


def check_current(run: Run, name: str) -> None:
    """Check that scores are of the predictions that the run has now.

    Args:
        name: of the scores.

    Raises:
        RunError: the split has been predicted again since, or the scores are not those of their record.
    """
    path = score_files(run)[name]
    record = read_record(path)
    if is_outdated(run.folder, record):
        raise RunError(f"{path}: the scores are outdated: {outdated_text(run.folder, record)}")


def read_curves(run: Run) -> pd.DataFrame | None:
    """The learning curves of a run, with epochs counted from 1; None where it has no such file or nothing was logged.

    Raises:
        RunError: the file can't be read.
    """
    path = run.folder / "curves.csv"
    if not path.is_file():
        return None
    try:
        frame = pd.read_csv(path, float_precision="round_trip")
        if frame.empty:
            return None
        if "epoch" not in frame or not pd.api.types.is_numeric_dtype(frame["epoch"].dtype):
            raise ValueError("it has no column of epochs")
    except pd.errors.EmptyDataError:
        return None
    except (ValueError, OSError) as error:
        said = str(error).splitlines()[0]
        raise RunError(
            f"{path}: can't be read as curves ({said}). Restore it; the training itself is not affected."
        ) from None
    # an older kplab counted from 0, and did not record it
    return frame if run.record.get("curves_counted_from") == 1 else frame.assign(epoch=frame["epoch"] + 1)


def read_scores(path: Path) -> Scores:
    """Read scores whose files are those that their record names.

    Raises:
        RunError: there is no record, or a file has changed since.
        ScoreError: the files are not of one evaluation, or can't be read.
    """
    read_record(path)
    return Scores.read(path)


def read_predictions(path: Path, skeleton: Skeleton, recorded: bool = True) -> Predictions:
    """Read predictions that are the file which their record and their card describe.

    Args:
        path: of the results file.
        skeleton: of the predictions.
        recorded: refuse a file without a record. Without it, a file of another system needs neither record nor card.

    Raises:
        DataError: the file is no results file, or is not the one that its card describes.
        RunError: there is no record, or a file has changed since.
    """
    if recorded or record_path(path).is_file():
        read_record(path)
    predictions = Predictions.read(path, skeleton)
    digest = file_sha256(path)
    stated = str(predictions.card.get("sha256", digest))
    if stated != digest:
        raise DataError(
            f"{path}: is not the file that its card describes (sha256 {digest[:12]}…, the card has {stated[:12]}…). "
            "Predict again, or delete the card if the file was changed on purpose."
        )
    return predictions
