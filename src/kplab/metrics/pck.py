"""Metrics of keypoint errors: pooled, by keypoint and averaged over keypoints.

They are computed from the keypoint table of ``matching.match``, one row per keypoint. *Pooled* counts every labelled
keypoint once; *macro* averages the figures of the keypoints, so that a rarely labelled one weighs as much as the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kplab.errors import ScoreError
from kplab.metrics.metric import Evidence, metrics_of
from kplab.metrics.statistics import mean_or_nan

BOX_NORMALIZERS = ("box_longer_side", "box_diagonal")


def keypoint_pair(name: str, keypoints: Sequence[str]) -> tuple[str, str]:
    """Split a name into the two keypoints of 'nameA-nameB'; their names may contain hyphens.

    Raises:
        ScoreError: it is no two known keypoints.
    """
    for i, letter in enumerate(name):
        if letter == "-" and name[:i] in keypoints and name[i + 1 :] in keypoints and name[:i] != name[i + 1 :]:
            return name[:i], name[i + 1 :]
    raise ScoreError(
        f"'{name}' is not a pair of keypoints. Write 'a-b' with two different names of: {', '.join(keypoints)}."
    )


def normalizer(table: pd.DataFrame, name: str) -> np.ndarray:
    """The length that errors are divided by.

    Args:
        table: keypoints of ``Matching``.
        name: 'box_longer_side', 'box_diagonal' of the true box; 'pixels' for 1; or 'nameA-nameB', the true distance of
            two keypoints (torso, head, eyes).

    Returns:
        (rows,) pixels; NaN where there is no box, or a keypoint of the pair is not labelled, or the length is 0.

    Raises:
        ScoreError: an unknown name.
    """
    if name == "pixels":
        return np.ones(len(table))
    if name in BOX_NORMALIZERS:
        length = table[name].to_numpy(dtype=np.float64)
    else:
        names = list(table["keypoint"].cat.categories)
        try:
            a, b = (names.index(n) for n in keypoint_pair(name, names))
        except ScoreError as error:
            raise ScoreError(f"normalizer: {error} Or use one of: {', '.join((*BOX_NORMALIZERS, 'pixels'))}.") from None
        xy = table[["true_x", "true_y"]].to_numpy(dtype=np.float64).reshape(-1, len(names), 2)
        length = np.repeat(np.linalg.norm(xy[:, a] - xy[:, b], axis=-1), len(names))
    return np.where(length > 0, length, np.nan)


def relative_error(table: pd.DataFrame, name: str) -> np.ndarray:
    """Errors divided by a normaliser.

    Returns:
        (rows,) NaN where the keypoint is not labelled or the normaliser is unknown: left out of every mean. Infinite
        where a labelled keypoint was not predicted: wrong at every threshold.
    """
    labelled = table["visible"].to_numpy() > 0
    error = table["error_px"].to_numpy(dtype=np.float64)
    error = np.where(labelled, np.where(np.isnan(error), np.inf, error), np.nan)
    return error / normalizer(table, name)


def with_relative_errors(table: pd.DataFrame, pck_normalizer: str, nme_pair: str | None = None) -> pd.DataFrame:
    """Add columns pck_error, box_error (diagonal) and, with a pair, nme_error to a table: see ``relative_error``."""
    columns = {
        "pck_error": relative_error(table, pck_normalizer),
        "box_error": relative_error(table, "box_diagonal"),
    }
    if nme_pair is not None:
        columns["nme_error"] = relative_error(table, nme_pair)
    return table.assign(**columns)


def errors_of(table: pd.DataFrame, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Counts and every metric of level 'keypoint' over some rows of a table.

    Args:
        table: of ``with_relative_errors``.
        settings: fields of ``ScoreSettings``: which thresholds, pair and range.

    Returns:
        n_keypoints (labelled), n_keypoints_missed (labelled, but not predicted), the metrics by name, pck_left_out (labelled
        keypoints without a normaliser) and, with a pair, nme_left_out (instances whose pair is not labelled).
    """
    labelled = table["visible"].to_numpy() > 0
    evidence = Evidence.of(table)
    figures: dict[str, Any] = {
        "n_keypoints": int(labelled.sum()),
        "n_keypoints_missed": int((~np.isfinite(evidence["error_px"])).sum()),
        **{m.name: m.compute(evidence) for m in metrics_of(settings) if m.level == "keypoint"},
        "pck_left_out": int(np.isnan(evidence["pck_error"]).sum()),
    }
    if "nme_error" in table:
        unknown = table.loc[labelled & table["nme_error"].isna(), ["image_id", "instance"]]
        figures["nme_left_out"] = len(unknown.drop_duplicates())
    return figures


def by_keypoint(table: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """The figures of ``errors_of``, one row per keypoint, in the order of the skeleton."""
    parts = ((name, table[table["keypoint"] == name]) for name in table["keypoint"].cat.categories)
    return pd.DataFrame([{"keypoint": name, **errors_of(part, settings)} for name, part in parts])


def macro(per_keypoint: pd.DataFrame, settings: Mapping[str, Any]) -> dict[str, float]:
    """Mean over keypoints of every metric of level 'keypoint', as '<name>_macro'; keypoints never labelled are left out."""
    names = [m.name for m in metrics_of(settings) if m.level == "keypoint"]
    return {f"{name}_macro": mean_or_nan(per_keypoint[name].to_numpy(dtype=np.float64)) for name in names}
