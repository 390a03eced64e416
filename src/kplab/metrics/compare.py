"""Comparison of runs by a paired bootstrap over images: every resample draws the same images for all runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kplab.errors import ScoreError
from kplab.metrics.metric import Evidence, Metric, metrics_of, row_of
from kplab.metrics.score import Scores

#: Lines of a card that may differ between runs that are compared; all others must be equal.
EXEMPT = (
    "predictions_hash",  # the predictions are what is compared
    "n_images",  # the images themselves are compared, one by one
    "turns",  # an option of the model, as the number of its passes
)


class CardMismatch(ScoreError):
    """Scores were made under different conditions, so their difference would not be the models' alone."""


@dataclass
class Comparison:
    """Metrics of several runs with 95 % intervals, and their differences.

    Args:
        values: one row per (run, metric): value, low, high.
        differences: one row per (a, b, metric): difference (a - b), low, high, zero_inside.
        per_keypoint: one row per keypoint, mean error in pixels, one column per run.
        resamples: number of resamples.
        seed: of the resampling.
        unit: what was drawn: 'image' or 'group'.
        forced: card lines that differ, where ``force`` allowed it.
    """

    values: pd.DataFrame
    differences: pd.DataFrame
    per_keypoint: pd.DataFrame
    resamples: int
    seed: int
    unit: str
    forced: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Tables for the terminal."""
        shown = [
            f"{_row(v.metric).text(v.value)} [{_row(v.metric).text(v.low)}, {_row(v.metric).text(v.high)}]"
            for v in self.values.itertuples(index=False)
        ]
        values = self.values.assign(shown=shown)
        metrics = list(dict.fromkeys(values["metric"]))
        table = values.pivot_table(index="run", columns="metric", values="shown", aggfunc="first", sort=False)
        parts = [
            f"95 % intervals of {self.resamples} resamples of {self.unit}s, paired, seed {self.seed}",
            table.loc[list(dict.fromkeys(values["run"])), metrics].rename_axis(index=None, columns=None).to_string(),
        ]
        if len(self.differences):
            parts += ["", *(_difference(d) for d in self.differences.itertuples(index=False))]
        parts += ["", "mean error, px", self.per_keypoint.to_string(index=False, float_format="{:.3f}".format)]
        parts += [f"card differs, allowed by force: {line}" for line in self.forced]
        return "\n".join(parts)

    @property
    def titles(self) -> dict[str, str]:
        """Name of each metric to the title of its panel in a figure: label and better direction."""
        names = dict.fromkeys(self.values["metric"])
        return {name: f"{_label(name)} {'↑' if _row(name).higher_is_better else '↓'}" for name in names}

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that ``write`` writes, the JSON first."""
        return ("comparison.json", *(f"comparison.{name}.csv" for name in _TABLES))

    def write(self, folder: Path) -> Path:
        """Write comparison.json and the tables as CSV; returns the path of the JSON."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tables = {name: getattr(self, name) for name in _TABLES}
        for name, table in tables.items():
            table.to_csv(folder / f"comparison.{name}.csv", index=False)
        content: dict[str, Any] = {"resamples": self.resamples, "seed": self.seed, "unit": self.unit}
        content["forced"] = self.forced
        # pandas writes null for NaN, which JSON does not have
        content |= {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
        path = folder / "comparison.json"
        path.write_text(json.dumps(content, indent=1))
        return path


_TABLES = ("values", "differences", "per_keypoint")


def compare(scores: Mapping[str, Scores], resamples: int = 2000, seed: int = 0, force: bool = False) -> Comparison:
    """Compare runs on the same images by the metrics that ``metric.METRICS`` shows in a comparison.

    Interval: 2.5th to 97.5th percentile of the metric over resamples of images, or of groups (videos, subjects) where
    every table has a 'group' column: frames of one video are not independent.

    Args:
        scores: name to scores, in the order of the tables.
        resamples: number of resamples, each of as many images (groups) as there are.
        seed: the same seed gives the same resamples.
        force: compare although cards differ; the lines are listed in ``forced``.

    Raises:
        CardMismatch: a line of the cards differs and ``force`` is not set.
        ScoreError: no scores, or the scores are not of the same images.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993 (percentile interval, pairs).
    """
    if not scores:
        raise ScoreError("there is nothing to compare. Name at least one run that has scores.")
    forced = _check_cards(scores, force)
    first = next(iter(scores.values()))
    images = np.sort(first.per_image["image_id"].to_numpy())
    for name, s in scores.items():
        own = np.sort(s.per_image["image_id"].to_numpy())
        if not np.array_equal(own, images):
            odd = np.setxor1d(own, images)
            raise ScoreError(
                f"'{name}' was scored on {len(own)} images and '{next(iter(scores))}' on {len(images)}; {len(odd)} are "
                f"not common to both, e.g. image {odd[0]}. Evaluate both on the same split."
            )
    grouped = all("group" in s.per_image for s in scores.values())
    group = first.per_image.set_index("image_id")["group"].loc[images].to_numpy() if grouped else None
    weights = draw_weights(len(images), resamples, np.random.default_rng(seed), group)
    once = np.ones((1, len(images)), dtype=np.int64)
    drawn: dict[tuple[str, str], tuple[float, np.ndarray]] = {}
    for name, s in scores.items():
        evidence = Evidence.of(s.keypoints, images, s.matches)
        for m in metrics_of(s.card, "compare"):
            drawn[name, m.name] = float(m.computed_for(evidence, once)[0]), m.computed_for(evidence, weights)
    values = pd.DataFrame(
        [(name, metric, value, *interval(samples)) for (name, metric), (value, samples) in drawn.items()],
        columns=["run", "metric", "value", "low", "high"],
    )
    differences = []
    for a, b in combinations(scores, 2):
        for metric in (m for name, m in drawn if name == a and (b, m) in drawn):
            (value_a, samples_a), (value_b, samples_b) = drawn[a, metric], drawn[b, metric]
            low, high = interval(samples_a - samples_b)
            differences.append((a, b, metric, value_a - value_b, low, high, bool(low <= 0 <= high)))
    columns = ["a", "b", "metric", "difference", "low", "high", "zero_inside"]
    return Comparison(
        values,
        pd.DataFrame(differences, columns=columns),
        _side_by_side(scores),
        resamples,
        seed,
        "group" if grouped else "image",
        forced,
    )


def draw_weights(images: int, resamples: int, rng: np.random.Generator, group: np.ndarray | None = None) -> np.ndarray:
    """Draw how often each image occurs in each resample.

    Args:
        images: number of images.
        resamples: number R of resamples.
        rng: random generator.
        group: (images,) group of each image, drawn as a whole; None = every image by itself.

    Returns:
        (R, images) int64. As many groups are drawn, with replacement, as there are.
    """
    member = np.arange(images) if group is None else np.unique(np.asarray(group, dtype=str), return_inverse=True)[1]
    count = int(member.max()) + 1
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples)[:, member]


def interval(samples: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval; resamples without a value (NaN) are left out."""
    finite = samples[np.isfinite(samples)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def _row(name: str) -> Metric:
    """The row of the table of metrics by the name of a metric, which is known."""
    row = row_of(name)
    assert row is not None, f"{name} is not in the table of metrics"
    return row


def _label(name: str) -> str:
    """The label of a metric, members of a family with their value: 'PCK@0.1'."""
    return _row(name).label + name.removeprefix(_row(name).name)


def _difference(d: Any) -> str:
    """A row of ``Comparison.differences`` as a line of text."""
    difference, low, high = (_row(d.metric).text(v, sign=True) for v in (d.difference, d.low, d.high))
    return f"{d.a} - {d.b}: {d.metric} {difference} [{low}, {high}]{'' if d.zero_inside else '  differs'}"


def _check_cards(scores: Mapping[str, Scores], force: bool) -> list[str]:
    names = list(scores)
    first = scores[names[0]].card
    lines = []
    for name in names[1:]:
        card = scores[name].card
        for key in dict.fromkeys((*first, *card)):
            a, b = first.get(key), card.get(key)
            if a != b and key not in EXEMPT:
                lines.append(f"{key}: '{names[0]}' has {a}, '{name}' has {b}")
    if lines and not force:
        raise CardMismatch(
            "the scores were not made under the same conditions:\n  "
            + "\n  ".join(lines)
            + "\nEvaluate the runs alike, or compare them in spite of it: force=true."
        )
    return lines


def _side_by_side(scores: Mapping[str, Scores]) -> pd.DataFrame:
    """Mean error of each keypoint, one column per run."""
    columns = [s.per_keypoint.set_index("keypoint")["mean_px"].rename(name) for name, s in scores.items()]
    return pd.concat(columns, axis=1).rename_axis("keypoint").reset_index()
