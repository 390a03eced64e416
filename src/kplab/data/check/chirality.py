"""Left and right: whether the names of mirror pairs fit the positions better when they are exchanged.

The features of a subject are odd: exchanging the names of the pairs in question changes their sign. So an inverted subject
has the features of a correct one, negated, and one linear function tells them apart. It is fitted by ridge regression to the
value 1 for every subject; inverted ones are expected near -1. Each subject gets the value of the fit without itself
(leave-one-out, in closed form). If correct subjects have values of mean m and deviation d, then

    log p(correct) / p(inverted) = 2 m value / d**2

by normal distributions of equal width. A value that is not beyond the tail of the others (``upper_limit``) is no evidence
against the names, since legs may be crossed. Where left and right can't be told apart by position, as for people seen from
the front and from behind, m is small and d large, and no subject is found.

Source: leave-one-out residuals of ridge regression: Allen, The relationship between variable selection and data
augmentation and a method for prediction, Technometrics 16, 1974.
"""

from __future__ import annotations

import numpy as np

from kplab.data.check.tails import EXPECTED, NORMAL, upper_limit

FITTED = 4000
"""Subjects that the fit uses at most, evenly spread."""

SHRINKAGE = 0.1
"""Ridge penalty, as a share of the mean sum of squares of a feature."""

WHOLE, PAIR = 0.1, 0.02
"""If more subjects than this share look inverted, position does not tell left from right, and none is found: legs that cross
in one image of fifty are no mistake."""


USED = 12
"""Pairs, and keypoints of the middle, that the features of a whole subject are made of, evenly spread over its keypoints."""


def mirror_pairs(flip: tuple[int, ...]) -> np.ndarray:
    """(P, 2) indices of the keypoints that a mirror image exchanges."""
    return np.array([(i, j) for i, j in enumerate(flip) if i < j], dtype=np.int64).reshape(-1, 2)


def whole_features(xy: np.ndarray, flip: tuple[int, ...]) -> np.ndarray:
    """(N, F) features that change sign when all pairs are exchanged.

    For the pair p with the vector d from right to left, and every point a that an exchange leaves in place (a keypoint of
    the middle, or the middle of another pair): the sine of the angle between d and the vector from the middle of p to a.
    Further the mean of these of each pair where a point is unlabelled: a nose that is not seen tells front from back.
    """
    pairs = _spread(mirror_pairs(flip))
    middles = _spread(np.array([k for k, other in enumerate(flip) if other == k], dtype=np.int64))
    fixed = np.concatenate([xy[:, middles], (xy[:, pairs[:, 0]] + xy[:, pairs[:, 1]]) / 2], axis=1)
    across = xy[:, pairs[:, 0]] - xy[:, pairs[:, 1]]
    centre = (xy[:, pairs[:, 0]] + xy[:, pairs[:, 1]]) / 2
    sines = _sine(across[:, :, None], fixed[:, None] - centre[:, :, None])  # (N, P, A)
    known = np.isfinite(sines)
    mean = np.where(known, sines, 0).sum(2) / np.maximum(known.sum(2), 1)
    absent = ~np.isfinite(xy[:, middles]).all(-1)
    with_absent = mean[:, :, None] * absent[:, None]
    parts = [np.where(known, sines, 0).reshape(len(xy), -1), with_absent.reshape(len(xy), -1)]
    return np.concatenate(parts, axis=1)


def pair_features(xy: np.ndarray, flip: tuple[int, ...], p: int) -> np.ndarray:
    """(N, F) features that change sign when pair p alone is exchanged.

    With every other pair q: the cosine between the vectors of p and q from right to left; and how much shorter the
    distances within the sides are than those across, as a share of their sum. And the sines of ``whole_features`` of p.
    """
    pairs = mirror_pairs(flip)
    left, right = xy[:, pairs[:, 0]], xy[:, pairs[:, 1]]
    across = left - right
    own, others = across[:, p, None], np.delete(across, p, axis=1)
    cosines = (own * others).sum(-1) / _positive(np.linalg.norm(own, axis=-1) * np.linalg.norm(others, axis=-1))
    other_left, other_right = np.delete(left, p, axis=1), np.delete(right, p, axis=1)
    within = _length(left[:, p, None] - other_left) + _length(right[:, p, None] - other_right)
    crossed = _length(left[:, p, None] - other_right) + _length(right[:, p, None] - other_left)
    shares = (crossed - within) / _positive(crossed + within)
    middles = [k for k, other in enumerate(flip) if other == k]
    fixed = np.concatenate([xy[:, middles], (other_left + other_right) / 2], axis=1)
    sines = _sine(own, fixed - (left[:, p, None] + right[:, p, None]) / 2)
    return np.nan_to_num(np.concatenate([cosines, 3 * shares, sines], axis=1))


def log_odds(features: np.ndarray, most: float = WHOLE, share: float = EXPECTED) -> np.ndarray:
    """(N,) log of the odds that the names are correct rather than exchanged, before any prior; NaN where unknown.

    Args:
        features: (N, F), odd; a row of zeros is a subject without any of them.
        most: largest share of subjects that may look inverted.
        share: of correct subjects that may be beyond the tail.
    """
    known = np.abs(features).sum(1) > 0
    out = np.full(len(features), np.nan)
    if known.sum() < 20:
        return out
    x = features[known]
    x = x[:, np.abs(x).sum(0) > 0]
    used = np.zeros(len(x), dtype=bool)
    used[:: max(1, len(x) // FITTED)] = True
    value = np.ones(len(x))
    for _ in range(4):
        # what looks inverted takes no part in the next fit
        kept = used & (value > 0)
        value = _left_out(x, kept)
    if (value < 0).mean() > most:
        return out
    median, tenth = np.quantile(value, [0.5, 0.1])
    spread = max((median - tenth) / NORMAL, 0.05)
    odds = 2 * median * value / spread**2
    out[known] = np.where(-value > upper_limit(-value, share), odds, np.maximum(odds, 0))
    return out


def _left_out(x: np.ndarray, used: np.ndarray) -> np.ndarray:
    """(N,) value of each subject by a ridge regression to 1 of the used ones without the subject itself."""
    a = x[used]
    penalty = SHRINKAGE * float((a**2).sum()) / a.shape[1] + 1e-9
    inverse = np.linalg.inv(a.T @ a + penalty * np.eye(a.shape[1]))
    value = x @ (inverse @ a.sum(0))
    leverage = np.einsum("nf,fg,ng->n", a, inverse, a)
    value[used] = 1 - (1 - value[used]) / np.maximum(1 - leverage, 1e-6)
    return value


def _spread(items: np.ndarray) -> np.ndarray:
    """At most ``USED`` of the rows, evenly spread."""
    return items[np.linspace(0, len(items) - 1, USED).round().astype(int)] if len(items) > USED else items


def _sine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sine of the angle from a to b; NaN where either is unknown or 0."""
    return (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]) / _positive(_length(a) * _length(b))


def _length(a: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a, axis=-1)


def _positive(a: np.ndarray) -> np.ndarray:
    return np.where(a > 0, a, np.nan)
