"""Comparison of runs with paired intervals, from their score files alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kplab import config as configs
from kplab.errors import RunError, printable
from kplab.metrics.compare import Comparison, compare
from kplab.runs.records import check_inside, make_folder, write_record
from kplab.runs.run import Run
from kplab.runs.table import labels_of
from kplab.tasks.evaluation.files import check_current, read_scores, score_files
from kplab.viz import compare as figures


def score_name(runs: list[Run], split: str | None) -> str:
    """The name of the one score file that all runs have, or of that of a split.

    Raises:
        RunError: they share none, or several.
    """
    have = [set(score_files(run)) for run in runs]
    shared = set.intersection(*have)
    if split is not None:
        shared = {name for name in shared if name == split or name.endswith(f"-{split}")}
    if not shared:
        listed = "; ".join(
            f"{run.name}: {', '.join(sorted(names)) or 'none'}" for run, names in zip(runs, have, strict=True)
        )
        raise RunError(
            f"the runs share no scores{f' of split {split}' if split else ''} ({listed}). Run kplab evaluate first."
        )
    if len(shared) > 1:
        raise RunError(f"the runs share several scores: {', '.join(sorted(shared))}. Choose one: split=NAME.")
    return shared.pop()


def shared_scores(
    runs: list[Run], split: str | None, labels: Sequence[str] | None = None
) -> tuple[str, dict[str, Path]]:
    """The name of the scores that all runs have, and by each run's label its file.

    Args:
        labels: names of the runs; None chooses short ones.

    Raises:
        RunError: they share none, or several; or predictions have been made again since they were scored.
    """
    name = score_name(runs, split)
    for run in runs:
        check_current(run, name)
    return name, dict(zip(labels or labels_of(runs), (score_files(run)[name] for run in runs), strict=True))


def compare_runs(
    runs: list[Run],
    split: str | None = None,
    out: Path | None = None,
    resamples: int = 2000,
    seed: int = 0,
    force: bool = False,
    labels: Sequence[str] | None = None,
) -> tuple[Comparison, Path]:
    """Compare runs; writes comparison.json, tables, figures and their record.

    Args:
        labels: names of the runs in tables and figures; None chooses short ones.

    Returns:
        the comparison, and its folder.

    Raises:
        CardMismatch: the scores were not made in the same way, and ``force`` is not set.
        RunError: the runs share no scores, or a score file is not what its record names.
    """
    name, paths = shared_scores(runs, split, labels)
    scores = {label: read_scores(path) for label, path in paths.items()}
    result = compare(scores, resamples, seed, force)
    if out is None:
        out = runs[0].folder / "comparisons" / f"{name}_{len(runs)}_runs_{runs[-1].name}"
        check_inside(runs[0].folder, out)
    path = result.write(make_folder(out))
    keypoints = {label: s.keypoints for label, s in scores.items()}
    drawn = figures.write_all(result.values, result.differences, result.per_keypoint, keypoints, out, result.titles)
    beside = [*(out / file for file in result.files[1:]), *drawn]
    write_record(path, configs.workspace(), paths, beside, runs=[run.name for run in runs], scores=name)
    print(printable(result.text() + f"\ncomparison: {out}"), flush=True)
    return result, out
