"""Similarity maps as pairs of complex numbers, and votes for them: a generalised Hough transform without bins.

A point (x, y) is z = x + iy, and a similarity is z' = a z + b: |a| is its scale, arg a its angle (from the x axis towards
the y axis), b its shift. An array of N similarities is (N, 2) complex, its columns a and b. A frame is the similarity
from its own coordinates to the picture's.

Maps of a subject's own frame, in which its mean shape has its centroid in 0 and RMS distance 1 from it, have a natural
distance: sqrt(|a - a'|**2 + |b - b'|**2) is the RMS distance, in pixels, between the mean shapes that they draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np


def as_complex(xy: np.ndarray) -> np.ndarray:
    """(..., 2) points to (...) complex; NaN where either coordinate is."""
    return xy[..., 0] + 1j * xy[..., 1]


def as_points(z: np.ndarray) -> np.ndarray:
    """(...) complex to (..., 2) points."""
    return np.stack([z.real, z.imag], axis=-1)


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Outer after inner; both (..., 2) complex."""
    a = outer[..., 0] * inner[..., 0]
    return np.stack([a, outer[..., 0] * inner[..., 1] + outer[..., 1]], axis=-1)


def inverse(maps: np.ndarray) -> np.ndarray:
    """(..., 2) complex maps, each undone."""
    a = 1 / maps[..., 0]
    return np.stack([a, -a * maps[..., 1]], axis=-1)


def fitted(shape: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The least-squares similarity from a shape to each of M others, over the points that these have.

    a = sum_k conj(s_k) z_k / sum_k |s_k|**2 of points about their means, b = mean z - a mean s

    Args:
        shape: (K,) complex.
        z: (M, K) complex, NaN where unlabelled; every row has a point.

    Returns:
        (M, 2) complex. Where fewer than two points are labelled there is neither angle nor size: those are 0 degrees and
        the median size of the others (1 where there are no others).
    """
    known = np.isfinite(z)
    count = known.sum(1)
    s = np.where(known, shape, 0)
    z = np.where(known, z, 0)
    mean_s, mean_z = s.sum(1) / count, z.sum(1) / count
    s, z = np.where(known, s - mean_s[:, None], 0), np.where(known, z - mean_z[:, None], 0)
    spread = (np.abs(s) ** 2).sum(1)
    turned = (s.conj() * z).sum(1)
    sure = (spread > 1e-12) & (np.abs(turned) > 1e-12)
    a = np.where(sure, turned / np.where(sure, spread, 1), np.nan)
    a = np.where(sure, a, np.median(np.abs(a[sure])) if sure.any() else 1.0)
    return np.stack([a, mean_z - a * mean_s], axis=1)


def mean_shape(z: np.ndarray, rounds: int = 20) -> np.ndarray:
    """Generalised Procrustes analysis of similarities: centroid 0, RMS distance 1, the first full shape's angle.

    Args:
        z: (M, K) complex, NaN where unlabelled; every row has a point.

    Returns:
        (K,) complex; 0, the centroid, for a keypoint that nobody has.

    Source: Gower, "Generalized Procrustes analysis", 1975.
    """
    known = np.isfinite(z)
    first = z[np.argmax(known.sum(1))]
    shape = _normalised(first)
    for _ in range(rounds):
        maps = inverse(fitted(shape, z))
        own = np.where(known, maps[:, :1] * np.where(known, z, 0) + maps[:, 1:], 0)
        shape = _normalised(np.where(known.any(0), own.sum(0) / np.maximum(known.sum(0), 1), np.nan))
    return shape


def _normalised(shape: np.ndarray) -> np.ndarray:
    known = np.isfinite(shape)
    centred = np.where(known, shape - shape[known].mean(), 0)
    size = np.sqrt((np.abs(centred) ** 2).sum() / known.sum())
    return centred / size if size > 0 else centred


@dataclass
class Votes:
    """V votes of features of a picture for where a subject's own frame lies.

    Args:
        maps: (V, 2) complex, own frame to picture.
        weight: (V,) positive.
        source: (V,) int64, which feature of the picture votes; its own negative number for a vote of none.
        owner: (V,) int64, whose remembered feature it was taken for.
        place: (V,) complex, where the feature lies, pixels; NaN for a vote of none.
    """

    maps: np.ndarray
    weight: np.ndarray
    source: np.ndarray
    owner: np.ndarray
    place: np.ndarray

    def __len__(self) -> int:
        return len(self.weight)

    def __getitem__(self, index: np.ndarray) -> Votes:
        return Votes(*(getattr(self, field.name)[index] for field in fields(self)))

    @classmethod
    def concat(cls, parts: Sequence[Votes]) -> Votes:
        """All votes of several, in order."""
        return cls(*(np.concatenate([getattr(p, field.name) for p in parts]) for field in fields(cls)))

    def strongest(self, most: int) -> Votes:
        """At most so many votes, by falling weight; of equal ones the first."""
        return self[np.argsort(-self.weight, kind="stable")[:most]]


def near(maps: np.ndarray, centre: np.ndarray, tolerance: float) -> np.ndarray:
    """How much each map agrees with others: 1 - (distance / (tolerance * size))**2, and 0 beyond.

    Args:
        maps: (V, 2) complex.
        centre: (C, 2) complex, whose sizes |a| count.
        tolerance: RMS distance of the shapes drawn, in sizes.

    Returns:
        (C, V) in [0, 1].
    """
    # sums of products and no array of (C, V, 2) differences, which would be large
    own, other = (np.concatenate([m.real, m.imag], axis=1) for m in (centre, maps))
    middle = other.mean(0)
    own, other = own - middle, other - middle
    squared = (own**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * own @ other.T
    return np.clip(1 - squared / (tolerance * np.abs(centre[:, :1])) ** 2, 0, 1)


def peak(votes: Votes, tolerance: float, rounds: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """The map that most votes agree on: the densest vote, moved to the mean of those around it (mean shift).

    Returns:
        (2,) complex, and (V,) how much each vote agrees with it.

    Source: Ballard, "Generalizing the Hough transform", 1981; Comaniciu & Meer, "Mean shift", 2002.
    """
    density = near(votes.maps, votes.maps, tolerance) @ votes.weight
    centre = votes.maps[np.argmax(density)]
    for _ in range(rounds):
        pull = near(votes.maps, centre[None], tolerance)[0] * votes.weight
        centre = (pull[:, None] * votes.maps).sum(0) / pull.sum()
    return centre, near(votes.maps, centre[None], tolerance)[0]


def agreed(z: np.ndarray, weight: np.ndarray, spread: float, rounds: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """For each of K points the place that the votes for it gather around: from their median towards the mode.

    Weights fall as 1 / (1 + (distance / spread)**2), so that a few votes that are far off don't pull.

    Args:
        z: (V, K) complex votes, NaN where a vote says nothing of a point.
        weight: (V, K), 0 or more.
        spread: pixels.

    Returns:
        (K,) complex, NaN where nobody votes, and (K,) the weight of the votes that agree.
    """
    weight = np.where(np.isfinite(z), weight, 0)
    z = np.where(weight > 0, z, 0)
    total = weight.sum(0)
    place = _median(z.real, weight) + 1j * _median(z.imag, weight)
    pull = weight
    for _ in range(rounds):
        pull = weight / (1 + np.abs(z - place) ** 2 / spread**2)
        place = (pull * z).sum(0) / np.maximum(pull.sum(0), 1e-300)
    return np.where(total > 0, place, np.nan), pull.sum(0)


def _median(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted median of each column."""
    order = np.argsort(values, axis=0, kind="stable")
    sums = np.cumsum(np.take_along_axis(weight, order, 0), axis=0)
    half = np.argmax(sums >= sums[-1] / 2, axis=0)
    return np.take_along_axis(values, order, 0)[half, np.arange(values.shape[1])]
