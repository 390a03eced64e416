"""Names of runs and of their files that a page gives: those that lead out of the folder of runs are refused."""

from __future__ import annotations

from pathlib import Path

from kplab.errors import RunError
from kplab.runs.records import plain_file
from kplab.runs.run import Run


def find_run(runs_dir: Path, name: str) -> Run:
    """The run of a folder's name.

    Raises:
        RunError: it is no name of a folder inside ``runs_dir``, or no run.
    """
    try:
        folder = plain_file(runs_dir / "x", name)
    except ValueError:
        raise RunError(f"'{name}' is no name of a run.") from None
    if name.startswith(".") or not folder.resolve().is_relative_to(runs_dir.resolve()):
        raise RunError(f"'{name}' is no run of {runs_dir}.")
    return Run.open(folder)


def file_of(run: Run, folder: str, name: str) -> Path:
    """A file of a run by its plain name.

    Raises:
        RunError: the name, or a link, leads out of the run's folder.
    """
    try:
        path = plain_file(run.folder / folder / "x", name)
    except ValueError:
        raise RunError(f"'{name}' is no name of a file.") from None
    if not path.resolve().is_relative_to(run.folder.resolve()):
        raise RunError(f"{path}: leads out of {run.folder}.")
    return path
