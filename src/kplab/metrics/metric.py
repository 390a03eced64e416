"""The table of metrics, which every output reads: score text, comparison, list of runs, benchmark, training and figures.

To add a metric, write its function and its row in ``METRICS``. This module imports NumPy alone, because a training's
configuration is checked against the table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from kplab.metrics.average_precision import Matches, average_precision, weighted_stats
from kplab.metrics.statistics import auc, mean_or_nan, median_or_nan, pck, weighted_mean, weighted_median

if TYPE_CHECKING:
    import pandas as pd

#: Outputs that show metrics: the figures of a score, its table of keypoints, intervals and differences, the list of runs,
#: the table of a benchmark, and what a validation logs (and may be monitored).
OUTPUTS = ("score", "keypoints", "compare", "runs", "benchmark", "validation")
_ERRORS = ("error_px", "pck_error", "box_error", "nme_error")


@dataclass(frozen=True)
class Evidence:
    """What a metric is computed from: errors of labelled keypoints, and matches of instances.

    Args:
        errors: name to (V,) values, one per labelled keypoint. error_px: pixels, NaN where it was not predicted. pck_error,
            box_error, nme_error: relative, infinite where it was not predicted and NaN without a normaliser.
        image: (V,) index of the image of each keypoint.
        matches: of COCO's evaluation; None where only errors are known, as for one keypoint.
        weight: (images,) how often each image counts in ``matches``; None: once.
    """

    errors: Mapping[str, np.ndarray]
    image: np.ndarray
    matches: Matches | None = None
    weight: np.ndarray | None = None

    @classmethod
    def of(cls, table: pd.DataFrame, image_id: np.ndarray | None = None, matches: Matches | None = None) -> Evidence:
        """Take the labelled keypoints of a table.

        Args:
            table: one row per keypoint, see ``pck.with_relative_errors``.
            image_id: ids of all images, ascending; None takes those of the table.
            matches: of the same images.
        """
        labelled = table[table["visible"] > 0]
        of_row = labelled["image_id"].to_numpy()
        ids = np.unique(of_row) if image_id is None else image_id
        errors = {name: labelled[name].to_numpy(dtype=np.float64) for name in _ERRORS if name in labelled}
        return cls(errors, np.searchsorted(ids, of_row), matches)

    def __getitem__(self, name: str) -> np.ndarray:
        """Errors by name."""
        return self.errors[name]

    @cached_property
    def coco(self) -> dict[str, float]:
        """COCO's ten figures; -1 where there is nothing to find."""
        assert self.matches is not None, "a metric of level 'set' needs matches"
        weight = np.ones(len(self.matches.image_id), dtype=np.int64) if self.weight is None else self.weight
        return weighted_stats(self.matches, weight)

    def resampled(self, weight: np.ndarray) -> Evidence:
        """The evidence when image i counts ``weight[i]`` times."""
        rows = np.repeat(np.arange(len(self.image)), weight[self.image])
        return Evidence({k: v[rows] for k, v in self.errors.items()}, self.image[rows], self.matches, weight)


@dataclass(frozen=True)
class Metric:
    """A row of the table.

    Args:
        name: key in summaries and tables; with ``each``, of the family, whose members are '<name>@<value>'.
        label: heading for people.
        digits: decimals shown.
        higher_is_better: the direction; a monitored metric is maximised if true.
        level: 'keypoint' is computed from errors, for all keypoints and for each; 'set' from the matches of all instances.
        value: (Evidence) -> float, or (Evidence, value of the setting) -> float.
        resample: (Evidence, [value of the setting,] (R, images) weights) -> (R,), if there is a faster way than to call
            ``value`` for each resample.
        setting: field of ``ScoreSettings`` that the metric depends on; there is no such metric where that is None.
        each: whether there is one metric for each value of the setting.
        shown_in: of ``OUTPUTS``.
    """

    name: str
    label: str
    digits: int
    higher_is_better: bool
    level: str
    value: Callable[..., float]
    resample: Callable[..., np.ndarray] | None = None
    setting: str | None = None
    each: bool = False
    shown_in: tuple[str, ...] = OUTPUTS
    given: tuple[Any, ...] = field(default=(), repr=False)

    def compute(self, evidence: Evidence) -> float:
        """The metric of all that there is; NaN where it does not exist (for COCO's figures -1)."""
        return float(self.value(evidence, *self.given))

    def computed_for(self, evidence: Evidence, weights: np.ndarray) -> np.ndarray:
        """The metric of each resample.

        Args:
            evidence: of all images.
            weights: (R, images) int, how often each image counts.

        Returns:
            (R,) NaN where the metric does not exist.
        """
        if self.resample is not None:
            return self.resample(evidence, *self.given, weights)
        values = np.array([self.compute(evidence.resampled(row)) for row in weights])
        return np.where(values == -1, np.nan, values) if self.level == "set" else values

    def keys(self, names: Iterable[str]) -> list[str]:
        """Those of some names that are this metric, or members of this family."""
        member = re.compile(re.escape(self.name) + r"@[-+.\de]+")
        return [n for n in names if n == self.name or (self.each and member.fullmatch(n))]

    def text(self, value: float | None, sign: bool = False) -> str:
        """A value as text; '-' for None, NaN and COCO's -1.

        >>> AP.text(0.51), AP.text(-1.0), AP.text(-0.25, sign=True)
        ('0.510', '-', '-0.250')
        """
        if value is None or math.isnan(value) or (value == -1 and not sign):
            return "-"
        return f"{value:{'+' if sign else ''}.{self.digits}f}"


def _coco(name: str) -> Callable[[Evidence], float]:
    return lambda evidence: evidence.coco[name]


def _ap_resampled(evidence: Evidence, weights: np.ndarray) -> np.ndarray:
    assert evidence.matches is not None, "AP needs matches"
    return np.array([average_precision(evidence.matches, row) for row in weights])


def _mean_px_resampled(evidence: Evidence, weights: np.ndarray) -> np.ndarray:
    found = np.isfinite(evidence["error_px"])
    return weighted_mean(evidence["error_px"][found], evidence.image[found], weights)


def _median_px_resampled(evidence: Evidence, weights: np.ndarray) -> np.ndarray:
    found = np.isfinite(evidence["error_px"])
    return weighted_median(evidence["error_px"][found], evidence.image[found], weights)


def _pck_resampled(evidence: Evidence, threshold: float, weights: np.ndarray) -> np.ndarray:
    counted = ~np.isnan(evidence["pck_error"])
    hits = (evidence["pck_error"][counted] <= threshold).astype(np.float64)
    return weighted_mean(hits, evidence.image[counted], weights)


AP = Metric("AP", "AP", 3, True, "set", _coco("AP"), _ap_resampled)
METRICS: tuple[Metric, ...] = (
    AP,
    *(Metric(name, name, 3, True, "set", _coco(name), shown_in=("score",)) for name in ("AP50", "AP75")),
    *(Metric(name, name, 3, True, "set", _coco(name), shown_in=()) for name in ("APm", "APl")),
    Metric("AR", "AR", 3, True, "set", _coco("AR"), shown_in=("score",)),
    *(Metric(name, name, 3, True, "set", _coco(name), shown_in=()) for name in ("AR50", "AR75", "ARm", "ARl")),
    Metric(
        "mean_px", "mean px", 3, False, "keypoint", lambda e: mean_or_nan(e["error_px"]), _mean_px_resampled
    ),  # also called EPE
    Metric(
        "median_px", "median px", 3, False, "keypoint", lambda e: median_or_nan(e["error_px"]), _median_px_resampled,
        shown_in=("score", "keypoints", "compare", "benchmark", "validation"),
    ),
    Metric(
        "rmse_px", "RMSE px", 3, False, "keypoint", lambda e: math.sqrt(mean_or_nan(e["error_px"] ** 2)), shown_in=()
    ),
    Metric(
        "nme_box_diagonal", "NME (box)", 3, False, "keypoint", lambda e: mean_or_nan(e["box_error"]), shown_in=()
    ),
    Metric(
        "pck", "PCK", 3, True, "keypoint", lambda e, t: pck(e["pck_error"], t), _pck_resampled,
        setting="pck_thresholds", each=True,
    ),
    Metric(
        "nme", "NME", 3, False, "keypoint", lambda e, _: mean_or_nan(e["nme_error"]),
        setting="nme_pair", shown_in=("score",),
    ),
    Metric(
        "auc", "AUC", 3, True, "keypoint", lambda e, ends: auc(e["pck_error"], *ends),
        setting="auc_range", shown_in=("score",),
    ),
)  # fmt: skip


def metrics_of(settings: Mapping[str, Any], output: str | None = None) -> list[Metric]:
    """Every metric that exists under some settings, families by their members.

    Args:
        settings: fields of ``ScoreSettings``, as in a card.
        output: of ``OUTPUTS``: only the metrics shown there.
    """
    found = []
    for row in rows_of(output):
        value = None if row.setting is None else settings.get(row.setting)
        if row.setting is None:
            found.append(row)
        elif row.each:
            found += [
                replace(row, name=f"{row.name}@{v:g}", label=f"{row.label}@{v:g}", given=(v,)) for v in value or ()
            ]
        elif value is not None:
            found.append(replace(row, given=(value,)))
    return found


def rows_of(output: str | None = None) -> list[Metric]:
    """Rows of the table that an output shows; all without one."""
    return [row for row in METRICS if output is None or output in row.shown_in]


def row_of(name: str) -> Metric | None:
    """The row of a metric or of its family; None for an unknown name."""
    return next((row for row in METRICS if row.keys([name])), None)
