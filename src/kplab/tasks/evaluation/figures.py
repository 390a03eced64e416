"""Charts of runs, from their curves and score files: the ones of the dashboard, of a report and of ``kplab figure``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kplab.errors import ConfigError, RunError
from kplab.metrics.average_precision import RECALLS, precision_curves
from kplab.metrics.compare import Comparison, compare
from kplab.metrics.metric import Metric, metrics_of, row_of
from kplab.metrics.score import Scores
from kplab.runs.run import Run
from kplab.runs.table import labels_of
from kplab.structures.predictions import card_path
from kplab.tasks.evaluation.comparison import shared_scores
from kplab.tasks.evaluation.curves import as_number, curve_plots, curves_by_epoch
from kplab.tasks.evaluation.files import read_scores
from kplab.viz.plot import Plot, Series, numbers, thinned

#: Names of the charts of scores, and what each shows.
OF_SCORES = {
    "per_keypoint": "mean error of each keypoint",
    "pck": "PCK by distance",
    "error_cdf": "distribution of pixel errors",
    "precision_recall": "precision by recall",
}


def score_plots(scores: Mapping[str, Scores]) -> list[Plot]:
    """The charts of ``OF_SCORES``, with one series per run.

    Args:
        scores: name of a run to its scores, in the order of their colours.
    """
    return [per_keypoint(scores), pck(scores), error_cdf(scores), precision_recall(scores)]


def per_keypoint(scores: Mapping[str, Scores]) -> Plot:
    """Mean error of each keypoint."""
    first = next(iter(scores.values())).per_keypoint
    names = [str(n) for n in first["keypoint"]]
    series = []
    for i, (run, s) in enumerate(scores.items()):
        own = s.per_keypoint.set_index("keypoint")["mean_px"].reindex(names)
        series.append(Series(run, numbers(own.to_numpy(dtype=np.float64)), colour=i))
    kind = "bar" if len(scores) == 1 else "dot"
    return Plot("per_keypoint", "mean error of each keypoint", kind, "pixels", "", series, names, x_range=None)


def pck(scores: Mapping[str, Scores]) -> Plot:
    """Fraction of labelled keypoints within a distance, in units of the normaliser; missed ones are wrong."""
    card = next(iter(scores.values())).card
    end = 2 * max([*card["pck_thresholds"], card["auc_range"][1]]) / 1.5
    grid = np.linspace(0, end, 101)
    series = []
    for i, (run, s) in enumerate(scores.items()):
        error = s.keypoints.loc[s.keypoints["visible"] > 0, "pck_error"].to_numpy(dtype=np.float64)
        error = np.sort(error[~np.isnan(error)])
        share = np.searchsorted(error, grid, side="right") / max(1, len(error))
        series.append(Series(run, numbers(grid), numbers(share), colour=i))
    unit = "pixels" if card["pck_normalizer"] == "pixels" else f"distance / {card['pck_normalizer'].replace('_', ' ')}"
    return Plot("pck", "PCK", "line", unit, "fraction of keypoints", series, x_range=[0, float(end)], y_range=[0, 1])


def error_cdf(scores: Mapping[str, Scores]) -> Plot:
    """Fraction of labelled keypoints with at most this error; missed ones count, so that a curve may end below 1."""
    series, ends = [], [1.0]
    for i, (run, s) in enumerate(scores.items()):
        error = s.keypoints.loc[s.keypoints["visible"] > 0, "error_px"].to_numpy(dtype=np.float64)
        found = np.sort(error[np.isfinite(error)])
        if len(found):
            x, y = thinned(found, np.arange(1, len(found) + 1) / len(error))
            series.append(Series(run, numbers(x), numbers(y), colour=i))
            ends.append(float(np.quantile(found, 0.98)))
    return Plot(
        "error_cdf", "distribution of errors", "line", "error, pixels", "fraction of keypoints", series,
        x_range=[0, max(ends[1:] or ends)], y_range=[0, 1], steps=True,
    )  # fmt: skip


def precision_recall(scores: Mapping[str, Scores]) -> Plot:
    """Precision by recall at OKS thresholds .50 and .75 (dashed), all sizes."""
    series = []
    for i, (run, s) in enumerate(scores.items()):
        curves = precision_curves(s.matches)
        if curves is None:
            continue
        for name, which in (("0.50", 0), ("0.75", 5)):
            series.append(
                Series(f"{run} OKS {name}", numbers(RECALLS), numbers(curves[which]), colour=i, dashed=which > 0)
            )
    return Plot(
        "precision_recall",
        "precision and recall",
        "line",
        "recall",
        "precision",
        series,
        x_range=[0, 1],
        y_range=[0, 1],
    )


def comparison_plots(comparison: Comparison) -> list[Plot]:
    """Metrics with 95 % intervals, a chart for each metric; and their differences to the first run."""
    runs = list(dict.fromkeys(comparison.values["run"]))
    plots = []
    for metric, table in comparison.values.groupby("metric", sort=False):
        title = comparison.titles[str(metric)]
        rows = [(i, v.run, v.value, v.low, v.high) for i, v in enumerate(table.itertuples(index=False))]
        plots.append(_row_each(f"intervals-{metric}", title, rows))
    # of the differences a - b the charts show b - a: what changes from the first run to this one
    first = comparison.differences[comparison.differences["a"] == runs[0]]
    for metric, table in first.groupby("metric", sort=False):
        title = f"difference: {comparison.titles[str(metric)]}"
        rows = [
            (runs.index(d.b), f"{d.b} − {runs[0]}", -d.difference, -d.high, -d.low)
            for d in table.itertuples(index=False)
        ]
        plots.append(_row_each(f"differences-{metric}", title, rows, reference=0.0))
    return plots


def _row_each(
    name: str, title: str, rows: Sequence[tuple[int, str, float, float, float]], reference: float | None = None
) -> Plot:
    """A chart with one row for each (colour, name, value, low, high)."""

    def alone(value: float, row: int) -> list[float | None]:
        return [numbers([value])[0] if i == row else None for i in range(len(rows))]

    series = [
        Series(run, alone(value, i), colour=colour, low=alone(low, i), high=alone(high, i))
        for i, (colour, run, value, low, high) in enumerate(rows)
    ]
    return Plot(name, title, "dot", "", "", series, [run for _, run, *_ in rows], reference=reference, own_rows=True)


def pareto_plots(points: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """AP against error, speed and parameters: one point per run, and the front of those that none exceeds in both.

    Args:
        points: of each run, in the order of their colours: name, AP, mean_px, parameters, speed; what is unknown is None.
    """
    found = []
    for key, label, lower in (
        ("mean_px", "mean error, pixels", True), ("speed", "images a second, predicted", False),
        ("parameters", "parameters, millions", True),
    ):  # fmt: skip
        # an AP of -1 is unknown, as pycocotools states it
        known = [
            (i, p) for i, p in enumerate(points)
            if as_number(p.get(key)) is not None and (ap := as_number(p.get("AP"))) is not None and ap >= 0
        ]  # fmt: skip
        if not known:
            continue
        series = [Series(p["name"], [p[key]], [p["AP"]], labels=[p["name"]], colour=i) for i, p in known]
        front = pareto_front([(-p[key] if lower else p[key], p["AP"]) for _, p in known])
        on = sorted((known[i][1] for i in front), key=lambda p: p[key])
        if len(on) > 1:
            series.append(
                Series("Pareto front", [p[key] for p in on], [p["AP"] for p in on], colour="#777777", dashed=True)
            )
        better = "left" if lower else "right"
        found.append(
            Plot(f"pareto-{key}", f"AP and {label}", "scatter", label, "AP", series, note=f"better: up and {better}")
        )
    return found


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other point exceeds in one coordinate and reaches in the other; more is better.

    >>> pareto_front([(1.0, 1.0), (2.0, 0.5), (0.5, 0.9), (2.0, 0.4)])
    [0, 1]
    """

    def exceeded(p: tuple[float, float]) -> bool:
        return any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points)

    return [i for i, p in enumerate(points) if not exceeded(p)]


def point_of(run: Run, name: str, scores: Scores) -> dict[str, Any]:
    """What ``pareto_plots`` shows of a run.

    Args:
        name: of the run in the chart.
        scores: that AP and error are taken from.
    """
    parameters = run.record.get("parameters")
    return {
        "name": name,
        "AP": scores.summary.get("AP"),
        "mean_px": scores.summary.get("mean_px"),
        "parameters": parameters / 1e6 if isinstance(parameters, int) else None,
        "speed": speed_of(run, scores),
    }


def speed_of(run: Run, scores: Scores) -> float | None:
    """Images a second that the scored predictions were made with, from their card; None where it is not stated."""
    for path in sorted((run.folder / "predictions").glob("*.json")):
        if path.name.endswith((".card.json", ".record.json")) or not card_path(path).is_file():
            continue
        try:
            card = json.loads(card_path(path).read_text())
        except (ValueError, OSError, RecursionError):
            continue
        if isinstance(card, dict) and card.get("sha256") == scores.card.get("predictions_hash"):
            return as_number(card.get("images_per_s"))
    return None


def plots_of(runs: Sequence[Run], split: str | None, wanted: Sequence[str] = ()) -> list[Plot]:
    """The charts of runs: curves, scores and, of several runs, intervals and accuracy against cost.

    Args:
        runs: in the order of their colours.
        split: as of ``kplab compare``: a split, or the name of scores; None where the runs share one.
        wanted: names of charts; others may be left out, as some take seconds. Empty: all.

    Raises:
        RunError: the runs share no scores, or several, and not only curves are wanted.
        CardMismatch: intervals are wanted of scores that were not made in the same way.
    """
    labels = labels_of(list(runs))
    plots = curve_plots({label: curves_by_epoch(run) for label, run in zip(labels, runs, strict=True)})
    if wanted and all(name.startswith("curves-") for name in wanted):
        return plots
    _, paths = shared_scores(list(runs), split, labels)
    scores = {label: read_scores(path) for label, path in paths.items()}
    plots += score_plots(scores)
    if len(runs) > 1:
        plots += pareto_plots([point_of(run, label, scores[label]) for label, run in zip(labels, runs, strict=True)])
    if not wanted or any(name.startswith(("intervals-", "differences-")) for name in wanted):
        plots += comparison_plots(compare(scores))
    return plots


def metrics_shown(scores: Scores, output: str = "score") -> list[Metric]:
    """The metrics of scores that an output shows."""
    return metrics_of(scores.card, output)


def label_of(name: str) -> str:
    """The heading of a metric by its name."""
    row = row_of(name)
    return name if row is None else row.label + name.removeprefix(row.name)


def choose(plots: Iterable[Plot], wanted: Sequence[str]) -> list[Plot]:
    """The charts of these names; all without a name.

    Raises:
        ConfigError: there is no such chart; names those there are.
    """
    listed = list(plots)
    unknown = [name for name in wanted if name not in {p.name for p in listed}]
    if unknown:
        raise ConfigError(
            f"there is no chart {', '.join(unknown)}. These runs have: {', '.join(p.name for p in listed)}."
        )
    if not listed:
        raise RunError("these runs have neither curves nor scores in common, so there is nothing to draw.")
    return [p for p in listed if not wanted or p.name in wanted]
