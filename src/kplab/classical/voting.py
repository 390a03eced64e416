"""Similarity maps as pairs of complex numbers, and votes for them: a generalised Hough transform without bins.

A point (x, y) is z = x + iy, and a similarity is z' = a z + b: |a| is its scale, arg a its angle (from the x axis towards
the y axis), b its shift. An array of N similarities is (N, 2) complex, with columns a and b. A frame is the similarity
from local coordinates to the image's.

In a subject's frame the mean shape has centroid 0 and RMS distance 1 from it. Maps of such frames have a natural distance:
sqrt(|a - a'|**2 + |b - b'|**2) is the RMS distance, in pixels, between the mean shapes that they draw.
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
    """The composition outer(inner(z)); both (..., 2) complex."""
    a = outer[..., 0] * inner[..., 0]
    return np.stack([a, outer[..., 0] * inner[..., 1] + outer[..., 1]], axis=-1)


def inverse(maps: np.ndarray) -> np.ndarray:
    """The inverse of each of (..., 2) complex maps."""
    a = 1 / maps[..., 0]
    return np.stack([a, -a * maps[..., 1]], axis=-1)


def fitted(shape: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The least-squares similarity from a shape to each of M others, over their labelled points.

    a = sum_k conj(s_k) z_k / sum_k |s_k|**2 of points about their means, b = mean z - a mean s

    Args:
        shape: (K,) complex.
        z: (M, K) complex, NaN where unlabelled; every row has a point.

    Returns:
        (M, 2) complex. A row with fewer than two labelled points has no angle and no size: it gets 0 degrees and the
        median size of the others (1 where there are no others).
    """
    known = np.isfinite(z)
    count = known.sum(1)
    s = np.where(known, shape, 0)
    z = np.where(known, z, 0)
    mean_s, mean_z = s.sum(1) / count, z.sum(1) / count
    s, z = np.where(known, s - mean_s[:, None], 0), np.where(known, z - mean_z[:, None], 0)
    spread = (np.abs(s) ** 2).sum(1)
    correlation = (s.conj() * z).sum(1)
    valid = (spread > 1e-12) & (np.abs(correlation) > 1e-12)
    a = np.where(valid, correlation / np.where(valid, spread, 1), np.nan)
    a = np.where(valid, a, np.median(np.abs(a[valid])) if valid.any() else 1.0)
    return np.stack([a, mean_z - a * mean_s], axis=1)


def mean_shape(z: np.ndarray, rounds: int = 20) -> np.ndarray:
    """Mean shape by generalised Procrustes analysis: centroid 0, RMS distance 1, angle of the most complete shape.

    Args:
        z: (M, K) complex, NaN where unlabelled; every row has a point.

    Returns:
        (K,) complex; 0, the centroid, for a keypoint that is never labelled.

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
    """V votes of features of an image for the frame of a subject.

    Args:
        maps: (V, 2) complex, from the subject's frame to the image.
        weight: (V,) positive.
        source: (V,) int64 feature of the image that votes; a unique negative number for a vote without a feature.
        owner: (V,) int64 exemplar of the stored feature that it matches.
        place: (V,) complex position of the feature, pixels; NaN for a vote without a feature.
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
        """Concatenate votes, in order."""
        return cls(*(np.concatenate([getattr(p, field.name) for p in parts]) for field in fields(cls)))

    def strongest(self, count: int) -> Votes:
        """The votes of largest weight, descending; of equal ones the first."""
        return self[np.argsort(-self.weight, kind="stable")[:count]]


def near(maps: np.ndarray, centre: np.ndarray, tolerance: float) -> np.ndarray:
    """Agreement of maps with centres: 1 - (distance / (tolerance * size))**2, at least 0.

    Args:
        maps: (V, 2) complex.
        centre: (C, 2) complex; its |a| is the size.
        tolerance: RMS distance of the shapes that the maps draw, in sizes.

    Returns:
        (C, V) in [0, 1].
    """
    # sums of products need no (C, V, 2) array of differences, which would be large
    own, other = (np.concatenate([m.real, m.imag], axis=1) for m in (centre, maps))
    middle = other.mean(0)
    own, other = own - middle, other - middle
    squared = (own**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * own @ other.T
    return np.clip(1 - squared / (tolerance * np.abs(centre[:, :1])) ** 2, 0, 1)


def peak(votes: Votes, tolerance: float, rounds: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """The mode of the votes: the vote of highest density, moved to the mean of the votes around it (mean shift).

    Returns:
        (2,) complex, and (V,) agreement of each vote with it.

    Source: Ballard, "Generalizing the Hough transform", 1981; Comaniciu & Meer, "Mean shift", 2002.
    """
    density = near(votes.maps, votes.maps, tolerance) @ votes.weight
    centre = votes.maps[np.argmax(density)]
    for _ in range(rounds):
        pull = near(votes.maps, centre[None], tolerance)[0] * votes.weight
        centre = (pull[:, None] * votes.maps).sum(0) / pull.sum()
    return centre, near(votes.maps, centre[None], tolerance)[0]


def agreed(z: np.ndarray, weight: np.ndarray, spread: float, rounds: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Robust mean of the votes for each of K points: iterated from their median towards the mode.

    Weights decrease as 1 / (1 + (distance / spread)**2), so that outliers have little influence.

    Args:
        z: (V, K) complex votes, NaN where a vote does not place a point.
        weight: (V, K), 0 or more.
        spread: pixels.

    Returns:
        (K,) complex, NaN for a point without votes, and (K,) the total weight of the votes that agree.
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
