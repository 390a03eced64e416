"""Compare runs by a paired bootstrap over images: every resample draws the same images for all runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kplab.errors import ScoreError
from kplab.metrics.coco_ap import average_precision
from kplab.metrics.pck import pck_key
from kplab.metrics.score import Scores, shown

# the lines of a card without which figures of two runs do not mean the same
COMPARED = (
    "skeleton",
    "keypoints",
    "sigmas",
    "sigma_source",
    "dataset",
    "split",
    "truth_hash",
    "area_source",
    "box_source",
    "boxes",
    "flip_test",
    "max_dets",
    "visibility",
    "pck_normalizer",
    "pck_thresholds",
    "min_score",
    "min_oks",
)
Statistic = Callable[[np.ndarray], np.ndarray]


class CardMismatch(ScoreError):
    """Two scores were made under different conditions, so that their difference would not be the models'."""


@dataclass
class Comparison:
    """Figures of several runs with 95 % intervals, and their differences.

    Args:
        values: one row per (run, metric): value, low, high.
        differences: one row per (a, b, metric): difference (a - b), low, high, zero_inside.
        per_keypoint: one row a keypoint, mean error in px, one column a run.
        resamples: how many times images were drawn.
        seed: of the draws.
        unit: what was drawn: 'image' or 'group'.
        forced: card lines that differ and were passed over.
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
        interval = "{} [{}, {}]"
        values = self.values.assign(
            shown=[
                interval.format(*(shown(v) for v in row))
                for row in self.values[["value", "low", "high"]].itertuples(index=False)
            ]
        )
        metrics = list(dict.fromkeys(values["metric"]))
        table = values.pivot_table(index="run", columns="metric", values="shown", aggfunc="first", sort=False)
        parts = [
            f"95 % intervals of {self.resamples} resamples of {self.unit}s, paired, seed {self.seed}",
            table.loc[list(dict.fromkeys(values["run"])), metrics].rename_axis(index=None, columns=None).to_string(),
        ]
        if len(self.differences):
            lines = [
                f"{d.a} - {d.b}: {d.metric} {d.difference:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
                f"{'' if d.zero_inside else '  differs'}"
                for d in self.differences.itertuples(index=False)
            ]
            parts += ["", *lines]
        parts += ["", "mean error, px", self.per_keypoint.to_string(index=False, float_format="{:.3f}".format)]
        parts += [f"passed over: {line}" for line in self.forced]
        return "\n".join(parts)

    def write(self, folder: Path) -> Path:
        """Write comparison.json and the tables as CSV; returns the path of the JSON."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tables = {"values": self.values, "differences": self.differences, "per_keypoint": self.per_keypoint}
        for name, table in tables.items():
            table.to_csv(folder / f"comparison.{name}.csv", index=False)
        content: dict[str, Any] = {"resamples": self.resamples, "seed": self.seed, "unit": self.unit}
        content["forced"] = self.forced
        # pandas writes null for NaN, which JSON does not have
        content |= {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
        path = folder / "comparison.json"
        path.write_text(json.dumps(content, indent=1))
        return path


def compare(scores: Mapping[str, Scores], resamples: int = 2000, seed: int = 0, force: bool = False) -> Comparison:
    """Compare runs on the same images.

    Interval: 2.5th to 97.5th percentile of the figure over resamples of images, or of groups (videos, subjects) where
    every table has a 'group' column: frames of one video are not independent.

    Args:
        scores: name to scores, in the order of the tables.
        resamples: draws of as many images (groups) as there are.
        seed: the same seed gives the same draws.
        force: compare although cards differ; the lines are then listed in ``forced``.

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
                f"not common to both, e.g. image {odd[0]}. Images are drawn in pairs: evaluate both on the same split."
            )
    grouped = all("group" in s.per_image for s in scores.values())
    group = first.per_image.set_index("image_id")["group"].loc[images].to_numpy() if grouped else None
    weights = draw_weights(len(images), resamples, np.random.default_rng(seed), group)
    once = np.ones((1, len(images)), dtype=np.int64)
    drawn: dict[tuple[str, str], tuple[float, np.ndarray]] = {}
    for name, s in scores.items():
        for metric, statistic in _statistics(s, images).items():
            drawn[name, metric] = float(statistic(once)[0]), statistic(weights)
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
    """How often each image occurs in each resample.

    Args:
        images: how many there are.
        resamples: R.
        rng: source of the draws.
        group: (images,) what stays together; None = every image by itself.

    Returns:
        (R, images) int64. As many groups are drawn, with replacement, as there are.
    """
    member = np.arange(images) if group is None else np.unique(np.asarray(group, dtype=str), return_inverse=True)[1]
    count = int(member.max()) + 1
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples)[:, member]


def interval(samples: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval; resamples in which the figure does not exist (NaN) are left out."""
    finite = samples[np.isfinite(samples)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def weighted_mean(values: np.ndarray, image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of values when image i counts weights[r, i] times.

    Args:
        values: (V,).
        image: (V,) index of the image of every value.
        weights: (R, images) int.

    Returns:
        (R,) NaN where no value is drawn.
    """
    images = weights.shape[1]
    total = weights @ np.bincount(image, values, minlength=images)
    count = weights @ np.bincount(image, minlength=images)
    return np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0)


def weighted_median(values: np.ndarray, image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Median of values when image i counts weights[r, i] times; as ``weighted_mean``."""
    order = np.argsort(values)
    values, image = values[order], image[order]
    out = np.full(len(weights), np.nan)
    for r, weight in enumerate(weights):
        reached = np.cumsum(weight[image])
        if len(reached) and reached[-1]:
            middle = (reached[-1] - 1) // 2, reached[-1] // 2
            out[r] = values[np.searchsorted(reached, middle, side="right")].mean()
    return out


def _statistics(scores: Scores, images: np.ndarray) -> dict[str, Statistic]:
    """Figures as functions of (R, images) weights; images are in ascending order of id, as in ``Matches``."""
    table = scores.keypoints[scores.keypoints["visible"] > 0]
    position = np.searchsorted(images, table["image_id"].to_numpy())
    error, relative = table["error_px"].to_numpy(), table["pck_error"].to_numpy()
    found, counted = np.isfinite(error), ~np.isnan(relative)

    def hits(threshold: float) -> Statistic:
        inside = (relative[counted] <= threshold).astype(np.float64)
        return lambda w: weighted_mean(inside, position[counted], w)

    return {
        "AP": lambda w: np.array([average_precision(scores.matches, row) for row in w]),
        "mean_px": lambda w: weighted_mean(error[found], position[found], w),
        "median_px": lambda w: weighted_median(error[found], position[found], w),
        **{pck_key(t): hits(t) for t in scores.card["pck_thresholds"]},
    }


def _check_cards(scores: Mapping[str, Scores], force: bool) -> list[str]:
    names = list(scores)
    first = scores[names[0]].card
    lines = []
    for name in names[1:]:
        card = scores[name].card
        for key in COMPARED:
            a, b = first.get(key), card.get(key)
            if a != b:
                lines.append(f"{key}: '{names[0]}' has {a}, '{name}' has {b}")
    if lines and not force:
        raise CardMismatch(
            "the scores were not made under the same conditions:\n  "
            + "\n  ".join(lines)
            + "\nEvaluate the runs alike, or set force=true to compare them all the same."
        )
    return lines


def _side_by_side(scores: Mapping[str, Scores]) -> pd.DataFrame:
    """Mean error of each keypoint, one column a run."""
    columns = [s.per_keypoint.set_index("keypoint")["mean_px"].rename(name) for name, s in scores.items()]
    return pd.concat(columns, axis=1).rename_axis("keypoint").reset_index()
