"""``kplab compare``: runs side by side with paired intervals. Neither model nor data is loaded."""

from __future__ import annotations

from pathlib import Path

from kplab import config as configs
from kplab.errors import RunError
from kplab.metrics.compare import Comparison, compare
from kplab.metrics.score import Scores
from kplab.runs.run import Run, write_record
from kplab.viz import compare as figures


def score_file(runs: list[Run], split: str | None) -> str:
    """The one score file that all runs have, or that of a split.

    Raises:
        RunError: they share none, or several.
    """
    have = [{p.stem for p in (run.folder / "scores").glob("*.json")} - {"record"} for run in runs]
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


def compare_runs(
    runs: list[Run],
    split: str | None = None,
    out: Path | None = None,
    resamples: int = 2000,
    seed: int = 0,
    force: bool = False,
) -> tuple[Comparison, Path]:
    """Compare runs; writes comparison.json, csv tables and figures.

    Raises:
        CardMismatch: the scores were not made in the same way, and ``force`` is not set.
    """
    name = score_file(runs, split)
    scores = {
        label: Scores.read(run.folder / "scores" / f"{name}.json")
        for label, run in zip(labels_of(runs), runs, strict=True)
    }
    result = compare(scores, resamples, seed, force)
    out = out or runs[0].folder / "comparisons" / f"{name}_{len(runs)}_runs_{runs[-1].name}"
    result.write(out)
    figures.write_all(
        result.values, result.differences, result.per_keypoint, {k: s.keypoints for k, s in scores.items()}, out
    )
    write_record(out, configs.workspace(), runs=[run.name for run in runs], scores=name)
    print(result.text() + f"\ncomparison: {out}", flush=True)
    return result, out


def labels_of(runs: list[Run]) -> list[str]:
    """Short names: the experiment where it tells the runs apart, else the folder's name."""
    short = [str(run.record.get("experiment", run.name)) for run in runs]
    return short if len(set(short)) == len(short) else [run.name for run in runs]
