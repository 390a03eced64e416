"""Few-shot recognition of gestures, or of any poses that are alike up to position, size, rotation and mirroring.

The features of a pose are the distances between all pairs of its keypoints, divided by the size of the pose: the RMS
distance of its keypoints from their centroid. They determine the pose up to a similarity or its mirror image, so that left
and right hands share their examples. Classes are Gaussians of one covariance, S, which is estimated from few examples and
therefore shrunk towards a multiple of the identity:

    d(x, c)**2 = (x - mean_c)' ((1 - shrinkage) S + shrinkage tr(S) / F I)**-1 (x - mean_c)

A pose whose nearest class is further than nearly all left-out examples are from theirs is unknown. Where keypoints are
missing, the examples are compared by the other keypoints alone.

Source: Friedman, "Regularized discriminant analysis", 1989.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from kplab.errors import DataError
from kplab.structures.predictions import Predictions

UNKNOWN = "unknown"
#: Largest number of parts of the examples that are left out in turn to set the limit.
PARTS = 5


def features(xy: np.ndarray) -> np.ndarray:
    """Distances between all pairs of keypoints, relative to the size of the pose.

    Args:
        xy: (N, K, 2) keypoints, all finite, in any unit.

    Returns:
        (N, K (K - 1) / 2); NaN for a pose whose keypoints are all at one position.
    """
    first, second = np.triu_indices(xy.shape[1], 1)
    size = np.sqrt(((xy - xy.mean(1, keepdims=True)) ** 2).sum(-1).mean(-1))
    distances = np.linalg.norm(xy[:, first] - xy[:, second], axis=-1)
    return np.divide(distances, size[:, None], out=np.full_like(distances, np.nan), where=size[:, None] > 0)


@dataclass(frozen=True)
class _Classes:
    """Class means (C, F), and (F, F) the map to coordinates in which the covariance is the identity."""

    mean: np.ndarray
    whiten: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, label: np.ndarray, classes: int, shrinkage: float) -> _Classes:
        mean = np.stack([x[label == c].mean(0) for c in range(classes)])
        deviation = x - mean[label]
        spread = deviation.T @ deviation / max(len(x) - classes, 1)
        scale = np.trace(spread) / len(spread)
        # one example of each class has no spread: distances are then Euclidean
        spread = (1 - shrinkage) * spread + (shrinkage * scale or 1.0) * np.eye(len(spread))
        return cls(mean, np.linalg.inv(np.linalg.cholesky(spread)).T)

    def distances(self, x: np.ndarray) -> np.ndarray:
        """(N, C) distances of N feature vectors from the classes."""
        found: np.ndarray = np.linalg.norm((x @ self.whiten)[:, None] - (self.mean @ self.whiten)[None], axis=-1)
        return found


@dataclass(frozen=True)
class Recognised:
    """The gestures of N poses.

    Args:
        name: (N,) str: the nearest gesture, or ``UNKNOWN``.
        nearest: (N,) str: the nearest gesture, whatever its distance; empty where the pose has too few keypoints.
        distance: (N,) from the nearest gesture, in limits: above 1 is unknown. NaN where the pose has too few keypoints.
        keypoints: (N,) int number of keypoints that were compared.
    """

    name: np.ndarray
    nearest: np.ndarray
    distance: np.ndarray
    keypoints: np.ndarray


@dataclass(frozen=True)
class Gestures:
    """Examples of gestures; ``Gestures.learn`` makes it.

    Args:
        names: of C gestures.
        xy: (S, K, 2) the examples' keypoints.
        label: (S,) index of the gesture of each example.
        shrinkage: of the covariance, above 0 and at most 1.
        rejected: share of poses of the known gestures that may be reported as unknown.
        min_keypoints: poses with fewer keypoints are unknown.
    """

    names: tuple[str, ...]
    xy: np.ndarray
    label: np.ndarray
    shrinkage: float
    rejected: float
    min_keypoints: int
    _fitted: dict[bytes, tuple[_Classes, float]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def learn(
        cls,
        examples: Mapping[str, np.ndarray],
        shrinkage: float = 0.1,
        rejected: float = 0.05,
        min_keypoints: int | None = None,
    ) -> Gestures:
        """Store examples.

        Args:
            examples: name of each gesture to the (n, K, 2) keypoints of its n examples, in any unit; n may differ. With
                fewer than three examples of a gesture there is no limit, and no pose is unknown.
            shrinkage: of the covariance, above 0 and at most 1.
            rejected: share of poses of the known gestures that may be reported as unknown; sets the limit.
            min_keypoints: poses with fewer keypoints are unknown; None is two thirds of all.

        Raises:
            DataError: there are fewer than two gestures, a gesture has no example, examples differ in their number of
                keypoints, or a keypoint of an example is missing.
        """
        if len(examples) < 2:
            raise DataError(f"got examples of {len(examples)} gestures, but two or more are needed to tell them apart.")
        if not 0 < shrinkage <= 1 or not 0 <= rejected < 1:
            raise DataError(
                f"got shrinkage={shrinkage}, rejected={rejected}. Use 0 < shrinkage <= 1, 0 <= rejected < 1."
            )
        arrays = {name: np.asarray(xy, dtype=np.float64) for name, xy in examples.items()}
        shape = next(iter(arrays.values())).shape[1:]
        for name, xy in arrays.items():
            if xy.ndim != 3 or not len(xy) or xy.shape[1:] != shape or shape[1:] != (2,) or name == UNKNOWN:
                raise DataError(
                    f"gesture '{name}': got an array of shape {xy.shape}. Give (examples, keypoints, 2) with at least one "
                    f"example and as many keypoints as the other gestures ({shape[0]}), and a name other than '{UNKNOWN}'."
                )
            bad = ~np.isfinite(features(xy)).all(1)
            if bad.any():
                raise DataError(
                    f"gesture '{name}': a keypoint is missing, or all are at one position, in {int(bad.sum())} of {len(xy)} "
                    f"examples (number {int(np.argmax(bad))} is the first). Leave these examples out."
                )
        label = np.repeat(np.arange(len(arrays)), [len(xy) for xy in arrays.values()])
        least = -(-2 * shape[0] // 3) if min_keypoints is None else min_keypoints
        if not 3 <= least <= shape[0]:
            raise DataError(
                f"got min_keypoints={least}. A pose has a shape from 3 keypoints on, and {shape[0]} at most."
            )
        return cls(tuple(arrays), np.concatenate(list(arrays.values())), label, shrinkage, rejected, least)

    def __repr__(self) -> str:
        counts = np.bincount(self.label)
        return f"Gestures({', '.join(f'{name}: {n}' for name, n in zip(self.names, counts, strict=True))})"

    def classify(self, xy: np.ndarray) -> Recognised:
        """The gesture of each pose.

        Args:
            xy: (N, K, 2) keypoints in any unit; NaN where missing.

        Raises:
            DataError: the poses have another number of keypoints than the examples.
        """
        xy = np.asarray(xy, dtype=np.float64)
        if xy.ndim != 3 or xy.shape[1:] != self.xy.shape[1:]:
            raise DataError(
                f"poses of shape {xy.shape} can't be compared with examples of {self.xy.shape[1]} keypoints. Give "
                f"(N, {self.xy.shape[1]}, 2)."
            )
        known = np.isfinite(xy).all(-1)
        nearest, distance = np.full(len(xy), "", dtype=object), np.full(len(xy), np.nan)
        patterns = np.unique(known[known.sum(1) >= self.min_keypoints], axis=0)
        for pattern in patterns:
            rows = np.flatnonzero((known == pattern).all(1))
            x = features(xy[rows][:, pattern])
            rows, x = rows[np.isfinite(x).all(1)], x[np.isfinite(x).all(1)]
            classes, limit = self._fit(pattern)
            d = classes.distances(x)
            nearest[rows] = np.array(self.names, dtype=object)[d.argmin(1)]
            distance[rows] = d.min(1) / limit
        return Recognised(np.where(distance <= 1, nearest, UNKNOWN), nearest, distance, known.sum(1))

    def _fit(self, pattern: np.ndarray) -> tuple[_Classes, float]:
        """The classes by these (K,) keypoints, and the largest distance of a known pose."""
        key = pattern.tobytes()
        if key not in self._fitted:
            x = features(self.xy[:, pattern])
            self._fitted[key] = (
                _Classes.fit(x, self.label, len(self.names), self.shrinkage), self._limit(x)
            )  # fmt: skip
        return self._fitted[key]

    def _limit(self, x: np.ndarray) -> float:
        """The distance that ``rejected`` of the examples exceed, each left out in turn with others of its part."""
        counts = np.bincount(self.label)
        if counts.min() < 3 or not self.rejected:  # of two, one that is left out leaves no spread
            return float("inf")
        # the part of each example: its number among those of its gesture, modulo the number of parts
        number = np.arange(len(x)) - np.repeat(np.cumsum(counts) - counts, counts)
        part = number % min(PARTS, int(counts.min()))
        own = np.empty(len(x))
        for p in np.unique(part):
            out = part == p
            classes = _Classes.fit(x[~out], self.label[~out], len(self.names), self.shrinkage)
            own[out] = classes.distances(x[out])[np.arange(int(out.sum())), self.label[out]]
        return float(np.quantile(own, 1 - self.rejected))


def recognise(gestures: Gestures, predictions: Predictions, min_score: float = 0.0) -> pd.DataFrame:
    """The gesture of every predicted pose.

    Args:
        gestures: the examples.
        predictions: of the examples' skeleton.
        min_score: keypoints of a lower score count as missing.

    Returns:
        One row per pose: image_id, file, instance, track (-1 where unknown), gesture, nearest, distance, keypoints (see
        ``Recognised``).
    """
    ids = sorted(predictions.poses)
    poses = [predictions.poses[i] for i in ids]
    k = len(predictions.skeleton)
    xy = [np.where((p.keypoint_score >= min_score)[..., None], p.xy, np.nan) for p in poses]
    found = gestures.classify(np.concatenate([*xy, np.empty((0, k, 2))]))
    counts = [len(p) for p in poses]
    return pd.DataFrame(
        {
            "image_id": np.repeat(np.array(ids, dtype=np.int64), counts),
            "file": np.repeat(np.array([predictions.files.get(i, "") for i in ids], dtype=object), counts),
            "instance": np.concatenate([*(np.arange(n) for n in counts), np.empty(0, dtype=np.int64)]),
            "track": np.concatenate([*(p.track for p in poses), np.empty(0, dtype=np.int64)]),
            "gesture": found.name,
            "nearest": found.nearest,
            "distance": found.distance,
            "keypoints": found.keypoints,
        }
    )


def accuracy_by_shots(
    examples: Mapping[str, np.ndarray],
    tests: Mapping[str, np.ndarray],
    shots: Sequence[int],
    draws: int = 20,
    seed: int = 0,
    unknown: np.ndarray | None = None,
) -> pd.DataFrame:
    """Accuracy by the number of examples of each gesture, over random choices of the examples.

    Args:
        examples: gesture to (n, K, 2) keypoints, from which the examples are drawn.
        tests: gesture to (m, K, 2) keypoints of other poses.
        shots: numbers of examples of each gesture.
        draws: random choices of the examples.
        seed: of the choices.
        unknown: (u, K, 2) poses of none of the gestures; None leaves its column out.

    Returns:
        One row per number of shots: shots; accuracy, the mean share of right nearest gestures, with low and high, the 2.5 %
        and 97.5 % quantiles over the draws; rejected, the mean share of the tests that is reported as unknown; and
        unknown_rejected, of the poses of no gesture.

    Raises:
        DataError: there are fewer examples than shots.
    """
    least = min(len(xy) for xy in examples.values())
    if max(shots) > least:
        raise DataError(f"got shots up to {max(shots)}, but a gesture has {least} examples only.")
    truth = np.repeat(np.array(list(tests), dtype=object), [len(xy) for xy in tests.values()])
    xy = np.concatenate(list(tests.values()))
    rows = []
    for count in shots:
        right, rejected, kept_out = [], [], []
        for draw in range(draws):
            rng = np.random.default_rng([seed, count, draw])
            gestures = Gestures.learn({n: e[rng.choice(len(e), count, replace=False)] for n, e in examples.items()})
            found = gestures.classify(xy)
            right.append(float((found.nearest == truth).mean()))
            rejected.append(float((found.name == UNKNOWN).mean()))
            if unknown is not None:
                kept_out.append(float((gestures.classify(unknown).name == UNKNOWN).mean()))
        low, high = np.quantile(right, [0.025, 0.975])
        row = {"shots": count, "accuracy": float(np.mean(right)), "low": float(low), "high": float(high)}
        row["rejected"] = float(np.mean(rejected))
        rows.append(row | ({"unknown_rejected": float(np.mean(kept_out))} if unknown is not None else {}))
    return pd.DataFrame(rows)
