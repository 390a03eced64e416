"""Errors in pixels, errors relative to the subject (NME), PCK and the area under its curve.

All of it is computed from the keypoint table of ``matching.match``, one row a keypoint. Two averages are told apart:
*pooled* counts every labelled keypoint once; *macro* averages the figures of the keypoints, so that a rarely labelled
one weighs as much as the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from kplab.errors import ScoreError

BOX_NORMALIZERS = ("box_longer_side", "box_diagonal")


def keypoint_pair(name: str, keypoints: Sequence[str]) -> tuple[str, str]:
    """The two keypoints of 'nameA-nameB'; names may contain hyphens themselves.

    Raises:
        ScoreError: no split of the name gives two known keypoints.
    """
    for i, letter in enumerate(name):
        if letter == "-" and name[:i] in keypoints and name[i + 1 :] in keypoints and name[:i] != name[i + 1 :]:
            return name[:i], name[i + 1 :]
    raise ScoreError(
        f"'{name}' is not a pair of keypoints. Write 'a-b' with two different names of: {', '.join(keypoints)}."
    )


def normalizer(table: pd.DataFrame, name: str) -> np.ndarray:
    """What errors are divided by.

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


def pck(relative: np.ndarray, threshold: float) -> float:
    """Fraction of labelled keypoints with relative error <= threshold (MPII's rule; mmpose has <); missed is wrong.

    >>> pck(np.array([0.05, 0.1, 0.3, np.inf, np.nan]), 0.1)
    0.5
    """
    counted = relative[~np.isnan(relative)]
    return float(np.mean(counted <= threshold)) if len(counted) else float("nan")


def auc(relative: np.ndarray, low: float, high: float) -> float:
    """Mean height of the PCK curve between two thresholds, integrated exactly: in [0, 1], 1 if every error <= low.

    mean_i clip((high - e_i) / (high - low), 0, 1), the area under the step curve of PCK divided by its width.
    """
    if not low < high:
        raise ScoreError(f"the range of the PCK curve is ({low}, {high}), but its end must lie above its start.")
    counted = relative[~np.isnan(relative)]
    return float(np.mean(np.clip((high - counted) / (high - low), 0.0, 1.0))) if len(counted) else float("nan")


def mean_or_nan(values: np.ndarray) -> float:
    """Mean of the finite values; NaN if there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def with_relative_errors(table: pd.DataFrame, pck_normalizer: str, nme_pair: str | None = None) -> pd.DataFrame:
    """The table with columns pck_error, box_error (diagonal) and, with a pair, nme_error: see ``relative_error``."""
    columns = {
        "pck_error": relative_error(table, pck_normalizer),
        "box_error": relative_error(table, "box_diagonal"),
    }
    if nme_pair is not None:
        columns["nme_error"] = relative_error(table, nme_pair)
    return table.assign(**columns)


def errors_of(table: pd.DataFrame, pck_thresholds: Sequence[float], auc_range: tuple[float, float]) -> dict[str, Any]:
    """Pooled figures of some rows of a table ``with_relative_errors``.

    Returns:
        n_keypoints (labelled) and n_keypoints_missed; mean_px (EPE), median_px, rmse_px and nme_box_diagonal over the
        predicted ones; nme over the pair's distance, with nme_left_out instances whose pair is unlabelled; pck@t, auc,
        and pck_left_out, the labelled keypoints without a normaliser.
    """
    labelled = table["visible"].to_numpy() > 0
    error = table["error_px"].to_numpy(dtype=np.float64)
    error = error[labelled & np.isfinite(error)]
    relative = table["pck_error"].to_numpy()
    figures: dict[str, Any] = {
        "n_keypoints": int(labelled.sum()),
        "n_keypoints_missed": int(labelled.sum()) - len(error),
        "mean_px": mean_or_nan(error),
        "median_px": float(np.median(error)) if len(error) else float("nan"),
        "rmse_px": float(np.sqrt(mean_or_nan(error**2))),
        "nme_box_diagonal": mean_or_nan(table["box_error"].to_numpy()),
    }
    if "nme_error" in table:
        figures["nme"] = mean_or_nan(table["nme_error"].to_numpy())
        unknown = table.loc[labelled & table["nme_error"].isna(), ["image_id", "instance"]]
        figures["nme_left_out"] = len(unknown.drop_duplicates())
    figures |= {pck_key(t): pck(relative, t) for t in pck_thresholds}
    figures["auc"] = auc(relative, *auc_range)
    figures["pck_left_out"] = int((labelled & np.isnan(relative)).sum())
    return figures


def pck_key(threshold: float) -> str:
    """What PCK at a threshold is called in tables: 'pck@0.1'."""
    return f"pck@{threshold:g}"


def by_keypoint(table: pd.DataFrame, pck_thresholds: Sequence[float], auc_range: tuple[float, float]) -> pd.DataFrame:
    """The figures of ``errors_of``, one row a keypoint, in the order of the skeleton."""
    parts = ((name, table[table["keypoint"] == name]) for name in table["keypoint"].cat.categories)
    return pd.DataFrame([{"keypoint": name, **errors_of(part, pck_thresholds, auc_range)} for name, part in parts])


def macro(per_keypoint: pd.DataFrame) -> dict[str, float]:
    """Mean over keypoints of every error figure, as '<figure>_macro'; keypoints never labelled are left out."""
    return {
        f"{name}_macro": mean_or_nan(per_keypoint[name].to_numpy(dtype=np.float64))
        for name in per_keypoint.columns
        if name.startswith(("mean_px", "median_px", "nme", "pck@", "auc")) and not name.endswith("left_out")
    }
