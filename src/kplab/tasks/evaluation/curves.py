"""Learning curves of runs, read from their files and described as charts. Neither pandas nor matplotlib is imported."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from kplab.runs.run import Run
from kplab.viz.plot import CURVE_KINDS, Plot, Series, curve_kind, numbers

#: Most rows of a table of curves that are read, the last ones: hours of a training logged each step.
MOST_ROWS = 200_000


def curves_by_epoch(run: Run) -> dict[str, dict[int, float]]:
    """``curves.csv`` of a run as column to epoch (from 1) to the mean of its rows; empty where there is none.

    The file may be written at this time: a line that has no end yet is left out. Learning rates, which are logged without
    an epoch, belong to the next row that has one.
    """
    shift = 0 if run.record.get("curves_counted_from") == 1 else 1  # an older kplab counted from 0
    path = run.folder / "curves.csv"
    if not path.is_file():
        return {}
    sums: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(newline="", errors="replace") as stream:
        waiting: list[tuple[str, float]] = []
        complete = (line for line in stream if line.endswith("\n"))
        for number, row in enumerate(csv.DictReader(complete)):
            if number > MOST_ROWS:
                break
            values = [(k, v) for k, text in row.items() if k and (v := as_number(text)) is not None]
            epoch = dict(values).get("epoch")
            rest = [(k, v) for k, v in values if k not in ("epoch", "step", "seconds")]
            if epoch is None:
                waiting = rest
                continue
            for name, value in (*waiting, *rest):
                sums[name][int(epoch) + shift].append(value)
            waiting = []
    return {name: {e: sum(v) / len(v) for e, v in sorted(by.items())} for name, by in sums.items()}


def as_number(text: Any) -> float | None:
    """A finite number, of text or of a number; None for anything else."""
    try:
        value = float(text)
        return value if math.isfinite(value) else None
    except (TypeError, ValueError):
        return None


def curve_plots(curves: Mapping[str, Mapping[str, Mapping[int, float]]]) -> list[Plot]:
    """Learning curves: of one run all columns in one chart per kind, of several runs one chart per column.

    Args:
        curves: name of a run to its ``curves_by_epoch``, in the order of their colours.
    """
    if len(curves) == 1:
        columns: dict[str, list[str]] = {kind: [] for kind in CURVE_KINDS}
        (own,) = curves.values()
        for column in own:
            if not column.endswith("_step"):
                columns[curve_kind(column)].append(column)
        return [
            Plot(
                f"curves-{kind.replace(' ', '_')}", kind, "line", "epoch", "",
                [Series(c, [float(e) for e in own[c]], numbers(list(own[c].values())), colour=i) for i, c in enumerate(names)],
                log_y=kind == "loss" and _spreads([v for c in names for v in own[c].values()]),
            )
            for kind, names in columns.items()
            if names
        ]  # fmt: skip
    every = [c for own in curves.values() for c in own if not c.endswith("_step") and curve_kind(c) != "learning rate"]
    found = []
    for column in (c for c in dict.fromkeys(every) if every.count(c) > 1):
        series = [
            Series(run, [float(e) for e in own[column]], numbers(list(own[column].values())), colour=i)
            for i, (run, own) in enumerate(curves.items())
            if column in own
        ]
        values = [v for own in curves.values() for v in own.get(column, {}).values()]
        log = curve_kind(column) == "loss" and _spreads(values)
        found.append(Plot(f"curves-{column.replace('/', '_')}", column, "line", "epoch", "", series, log_y=log))
    return found


def _spreads(values: Sequence[float]) -> bool:
    """Whether values are positive and spread over more than a decade."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > 10
