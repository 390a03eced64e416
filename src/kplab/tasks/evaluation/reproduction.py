"""How a run and its reproduction agree: curves, weights, predictions and scores, to the bit or within a tolerance.

Each comparison returns a ``Part``. Its text names the first difference, in the order in which a training makes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions

IDENTICAL, WITHIN, DIFFERENT, SKIPPED = "identical", "within tolerance", "different", "not compared"
#: The names of metrics in pixels contain it: mean_px, mean_px_macro.
PIXELS = "_px"


@dataclass(frozen=True)
class Tolerances:
    """The largest differences that are still "within tolerance".

    Args:
        keypoints: of a keypoint's position, and of metrics in pixels; pixels of the source image.
        scores: of other metrics, such as AP and PCK, and of the scores of instances and keypoints.
        relative: of weights and curves, as a share of the largest absolute value of the tensor or column.
    """

    keypoints: float = 0.01
    scores: float = 0.001
    relative: float = 0.001

    def __str__(self) -> str:
        return (
            f"keypoints {self.keypoints:g} px, scores {self.scores:g}, weights and curves {self.relative:g} of their "
            "largest value"
        )


@dataclass(frozen=True)
class Part:
    """The agreement of one part of a run with the same part of its reproduction.

    Args:
        what: e.g. "curves", "best.ckpt", "predictions dots-test".
        state: ``IDENTICAL``, ``WITHIN``, ``DIFFERENT`` or ``SKIPPED``.
        text: the first difference, or why the parts are not compared.
    """

    what: str
    state: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.what + ':':<25} {self.state}{': ' if self.text else ''}{self.text}"


def verdict(parts: Iterable[Part]) -> str:
    """The least agreement of all parts that are compared.

    >>> verdict([Part("a", IDENTICAL), Part("b", WITHIN), Part("c", SKIPPED)])
    'within tolerance'
    """
    states = {part.state for part in parts}
    return next((state for state in (DIFFERENT, WITHIN) if state in states), IDENTICAL)


def compare_curves(one: pd.DataFrame, other: pd.DataFrame, tolerances: Tolerances) -> Part:
    """Compare learning curves: the first epoch and column that differ.

    Args:
        one: of the run, see ``files.read_curves``; its epochs are compared.
        other: of the reproduction, which may have more epochs: a resumed run has only those since.
    """
    a, b = by_step(one), by_step(other)
    gone = [column for column in a if column not in b]
    if gone:
        return Part("curves", DIFFERENT, f"the reproduction has no column {gone[0]}")
    largest = {column: float(a[column].abs().max()) for column in a}
    first, beyond = "", ""
    for (epoch, step), row in a.iterrows():
        place = f"epoch {int(epoch)}"
        if (epoch, step) not in b.index:
            return Part("curves", DIFFERENT, first or f"{place}: the reproduction has no step {int(step)}")
        again = b.loc[(epoch, step)]
        for column, value in row.items():
            found = float(again[column])
            if value == found or (math.isnan(value) and math.isnan(found)):
                continue
            told = f"{place}, {column}: {both(value, found)} (step {int(step)})"
            first = first or told
            if not abs(value - found) <= tolerances.relative * largest[column]:
                beyond = beyond or told
                break
        if beyond:
            break
    if beyond and beyond != first:
        return Part("curves", DIFFERENT, f"{first}; beyond the tolerance first in {beyond}")
    return Part("curves", DIFFERENT if beyond else WITHIN if first else IDENTICAL, first)


def by_step(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per (epoch, step): Lightning writes several, and those of the learning rate without an epoch; no empty columns."""
    filled = frame.assign(epoch=frame["epoch"].bfill().ffill()).select_dtypes("number")
    return filled.groupby(["epoch", "step"]).first().dropna(axis=1, how="all")


def compare_weights(what: str, one: Mapping[str, Any], other: Mapping[str, Any], tolerances: Tolerances) -> Part:
    """Compare two checkpoints: the epoch they are of, and each tensor.

    Args:
        what: name of the file.
        one: content of the run's file: ``state_dict``, and ``epoch`` unless the model has no gradients.
        other: of the reproduction's.
    """
    epochs = [checkpoint.get("epoch") for checkpoint in (one, other)]
    if epochs[0] != epochs[1]:
        a, b = (None if epoch is None else int(epoch) + 1 for epoch in epochs)
        return Part(what, DIFFERENT, f"of epoch {a}, and of epoch {b} in the reproduction")
    a, b = one["state_dict"], other["state_dict"]
    if list(a) != list(b):
        odd = sorted({*a} ^ {*b})
        return Part(what, DIFFERENT, f"tensors of other names: {odd[0] if odd else 'in another order'}")
    gaps = {name: gap(tensor, b[name]) for name, tensor in a.items() if not equal(tensor, b[name])}
    if not gaps:
        return Part(what, IDENTICAL)
    far = [name for name, value in gaps.items() if not value <= tolerances.relative * largest_of(a[name])]
    first, worst = next(iter(far or gaps)), max(gaps, key=lambda name: gaps[name])
    return Part(
        what,
        DIFFERENT if far else WITHIN,
        f"{first}: by up to {gaps[first]:.3g}, values up to {largest_of(a[first]):.3g}; {len(gaps)} of {len(a)} tensors "
        f"differ, {worst} most, by {gaps[worst]:.3g}",
    )


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether tensors are equal to the bit, where NaN equals NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a, b) or (a.is_floating_point() and bool(((a == b) | (a.isnan() & b.isnan())).all()))


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference of two tensors; infinite for other shapes, and where only one is not finite."""
    if a.shape != b.shape or not a.numel():
        return math.inf
    x, y = a.double(), b.double()
    apart = torch.where((x == y) | (x.isnan() & y.isnan()), 0.0, (x - y).abs())
    return float(apart.nan_to_num(math.inf, math.inf).max())


def largest_of(tensor: Tensor) -> float:
    """The largest finite absolute value; 0 for whole numbers, such as counters, whose differences are never tolerated."""
    return (
        float(tensor.double().nan_to_num(0, 0, 0).abs().max()) if tensor.is_floating_point() and tensor.numel() else 0.0
    )


def compare_predictions(name: str, one: Predictions, other: Predictions, tolerances: Tolerances) -> Part:
    """Compare predictions: the first image and instance that differ.

    Args:
        name: ``<dataset>-<split>``.
        one: of the run.
        other: of the reproduction.
    """
    what, state, first, images = f"predictions {name}", IDENTICAL, "", 0
    farthest = 0.0
    for image_id in sorted({*one.poses, *other.poses}):
        file = one.files.get(image_id) or other.files.get(image_id) or image_id
        a, b = one.poses.get(image_id), other.poses.get(image_id)
        if a is None or b is None:
            text, kind, distance = "only one of them has it", DIFFERENT, 0.0
        else:
            kind, text, distance = compare_poses(a, b, one.skeleton.keypoints, tolerances)
        if kind == IDENTICAL:
            continue
        images, farthest = images + 1, max(farthest, distance)
        if not first or (kind == DIFFERENT and state != DIFFERENT):
            first = f"image {file}: {text}"
        state = kind if state != DIFFERENT else state
    if state == IDENTICAL:
        return Part(what, IDENTICAL)
    return Part(
        what, state, f"{first}; {images} of {len(one.poses)} images differ, keypoints by up to {farthest:.3g} px"
    )


def compare_poses(
    one: Poses, other: Poses, keypoints: tuple[str, ...], tolerances: Tolerances
) -> tuple[str, str, float]:
    """The agreement of the poses of an image, the first difference, and the largest distance of a keypoint, pixels.

    Instances are compared in their order; where that is beyond the tolerance, with the nearest ones, since instances of
    nearly equal scores may change places.
    """
    if len(one) != len(other):
        return DIFFERENT, f"{len(one)} instances, and {len(other)} in the reproduction", 0.0
    kind, text, distance = _in_order(one, other, keypoints, tolerances)
    if kind == DIFFERENT and len(one) > 1:
        cost = np.nan_to_num(np.linalg.norm(one.xy[:, None] - other.xy[None], axis=-1).mean(-1), nan=1e9)
        again = _in_order(one, other[linear_sum_assignment(cost)[1]], keypoints, tolerances)
        if again[0] != DIFFERENT:
            return WITHIN, again[1] or "instances in another order", again[2]
    return kind, text, distance


def _in_order(one: Poses, other: Poses, keypoints: tuple[str, ...], tolerances: Tolerances) -> tuple[str, str, float]:
    state, first, farthest = IDENTICAL, "", 0.0
    for i in range(len(one)):
        apart = np.linalg.norm(one.xy[i] - other.xy[i], axis=-1)
        apart[~one.labelled[i] & ~other.labelled[i]] = 0
        apart[one.labelled[i] != other.labelled[i]] = np.inf
        k = int(apart.argmax())
        scores = np.abs(np.append(one.keypoint_score[i] - other.keypoint_score[i], one.score[i] - other.score[i]))
        box = np.abs(np.nan_to_num(one.box[i]) - np.nan_to_num(other.box[i])).max()
        told = [
            (f"keypoint {keypoints[k]} is {apart[k]:.3g} px apart", apart[k], tolerances.keypoints),
            (f"scores differ by {scores.max():.3g}", scores.max(), tolerances.scores),
            (f"boxes differ by {box:.3g} px", box, tolerances.keypoints),
        ]
        farthest = max(farthest, float(apart[k])) if np.isfinite(apart[k]) else farthest
        for text, value, limit in told:
            kind = IDENTICAL if value == 0 else WITHIN if value <= limit else DIFFERENT
            if kind != IDENTICAL and (not first or (kind == DIFFERENT and state != DIFFERENT)):
                first = f"instance {i + 1}: {text}"
            state = kind if (kind != IDENTICAL and state != DIFFERENT) else state
    return state, first, farthest


def compare_scores(name: str, one: Mapping[str, Any], other: Mapping[str, Any], tolerances: Tolerances) -> Part:
    """Compare scores: the first metric that differs.

    Args:
        name: ``<dataset>-<split>``.
        one: content of the run's score file: ``summary`` and ``per_keypoint``.
        other: of the reproduction's.
    """
    a, b = metrics_of(one), metrics_of(other)
    state, first, count = IDENTICAL, "", 0
    for metric in [*a, *(metric for metric in b if metric not in a)]:
        x, y = a.get(metric), b.get(metric)
        if x == y:
            continue
        count += 1
        kind = DIFFERENT
        if isinstance(x, float) and isinstance(y, float):
            limit = tolerances.keypoints if PIXELS in metric.split()[0] else tolerances.scores
            kind = WITHIN if abs(x - y) <= limit else DIFFERENT
        if not first or (kind == DIFFERENT and state != DIFFERENT):
            first = f"{metric}: {both(x, y)}"
        state = kind if state != DIFFERENT else state
    return Part(f"scores {name}", state, f"{first}; {count} of {len(a)} numbers differ" if first else "")


def metrics_of(scores: Mapping[str, Any]) -> dict[str, Any]:
    """All numbers of a score file by name: 'AP', 'mean_px of nose'."""
    rows = {
        f"{metric} of {row['keypoint']}": value
        for row in scores["per_keypoint"]
        for metric, value in row.items()
        if metric != "keypoint"
    }
    return {**scores["summary"], **rows}


def both(one: Any, other: Any) -> str:
    """Two values, with as many digits as show their difference.

    >>> both(0.5, 0.51), both(1.0, 1.0 + 1e-8), both(2, None)
    ('0.5 and 0.51', '1 and 1.00000001', '2 and none')
    """
    texts: list[str] = []
    for digits in (6, 9, 17):
        texts = [f"{value:.{digits}g}" if isinstance(value, int | float) else "none" for value in (one, other)]
        if texts[0] != texts[1]:
            break
    return " and ".join(texts)


def as_json(parts: Iterable[Part]) -> list[dict[str, str]]:
    """Parts as plain data."""
    return [asdict(part) for part in parts]
