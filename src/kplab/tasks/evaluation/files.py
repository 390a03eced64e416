"""Files of a run that later verbs read, checked against their records."""

from __future__ import annotations

from pathlib import Path

from kplab.metrics.score import Scores
from kplab.runs.records import list_artefacts, read_record
from kplab.runs.run import Run


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
