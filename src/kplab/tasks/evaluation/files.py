"""Files of a run that later verbs read, checked against their records."""

from __future__ import annotations

from pathlib import Path

from kplab.errors import DataError
from kplab.metrics.score import Scores
from kplab.runs.provenance import file_sha256
from kplab.runs.records import list_artefacts, read_record, record_path
from kplab.runs.run import Run
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton


def score_files(run: Run) -> dict[str, Path]:
    """The score files of a run by name, ``<dataset>-<split>``."""
    return {path.stem: path for path in list_artefacts(run.folder / "scores")}


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
