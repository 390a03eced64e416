"""Left and right: whether the names of mirror pairs fit the positions better when they are exchanged.

The features x of a subject are odd: exchanging the names of the pairs in question changes their sign. So an inverted subject
has the features of a correct one, negated, and p(correct) = 1 / (1 + exp(-w x)) has one vector w for both. It is fitted with
every subject as an example of a correct one, by logistic regression with label noise: with a small
probability the names of an example are exchanged. The value v of a subject is w x of the fit without itself, to first
order, and its log odds are b v. The scale b is the most likely one for the signs of all values, if a share s of the subjects
is exchanged: p(v > 0) = (1 - s) / (1 + exp(-b |v|)) + s / (1 + exp(b |v|)). If few values are negative, and correct subjects
have values of median m and deviation d to the side of the inverted ones, the log odds are also 2 m v / d**2, by normal
distributions of equal width around m and -m; the larger scale is taken. Where the features do not tell left from right, as
positions of people seen from the front and from behind, the odds are near 0, and no subject is found.

Sources: label noise: Bootkrajang and Kaban, Label-noise robust logistic regression and its applications, ECML PKDD 2012.
Approximate leave-one-out: Rad and Maleki, A scalable estimate of the out-of-sample prediction error via approximate
leave-one-out cross-validation, JRSS B 82, 2020.
"""

from __future__ import annotations

import numpy as np

from kplab.data.check.tails import NORMAL

FITTED = 4000
"""Subjects that the fit uses at most, evenly spread."""

SPREAD = (2.0, 6.0)
"""Standard deviation of the log odds of a subject before any data, which sets the penalty of the weights: the number of
subjects for each feature, in this range. With few subjects, large weights would fit single ones."""

NOISE = 0.05
"""Probability that the names of an example are exchanged, in the fit: so a few wrong ones change it little."""

STEPS = 25
"""Newton steps, at most."""

INVERTED = 0.1
"""If more subjects than this share have a negative value, the features hardly tell left from right, and the widths of the two
distributions say nothing: legs are often crossed."""

UNDECIDED = 0.075
"""Share of negative log odds above which looks are no evidence: five faults in a hundred, and half as many others."""

SCALES = np.geomspace(0.25, 64, 33)
"""Candidates for the scale b."""

EXCHANGED = np.array([0.001, 0.003, 0.01, 0.02, 0.05, 0.1])
"""Candidates for the share s."""

LOG_SCALE = 1.4
"""Standard deviation of log b before any data."""

MEANS = 3.0
"""Weight of the mean features of a pair beside those with single points, so that they are penalised less: a few dozen subjects
determine a few weights only."""

USED = 12
"""Pairs, and keypoints of the middle, that the features of a whole subject are made of, evenly spread over its keypoints."""


def mirror_pairs(flip: tuple[int, ...]) -> np.ndarray:
    """(P, 2) indices of the keypoints that a mirror image exchanges."""
    return np.array([(i, j) for i, j in enumerate(flip) if i < j], dtype=np.int64).reshape(-1, 2)


def whole_features(xy: np.ndarray, flip: tuple[int, ...]) -> np.ndarray:
    """(N, F) features that change sign when all pairs are exchanged.

    For the pair p with the vector d from right to left, and every point a that an exchange leaves in place (a keypoint of
    the middle, or the middle of another pair): the sine of the angle between d and the vector from the middle of p to a.
    Further the mean of these of each pair, everywhere, and where a keypoint of the middle is unlabelled: a nose that is not
    seen tells front from back.
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
    parts = [np.where(known, sines, 0).reshape(len(xy), -1), MEANS * mean, MEANS * with_absent.reshape(len(xy), -1)]
    return np.concatenate(parts, axis=1)


def appearance_features(patches: np.ndarray, flip: tuple[int, ...]) -> np.ndarray:
    """(N, F) features that change sign when all pairs are exchanged: left minus right, in standard deviations of the dataset.

    Args:
        patches: (N, K, F) numbers that describe the image around each keypoint; NaN where unknown.
        flip: permutation of the keypoints.
    """
    pairs = _spread(mirror_pairs(flip))
    known = np.isfinite(patches).all(-1)
    spread = patches[known].std(0) if known.any() else np.ones(patches.shape[-1])
    difference = (patches[:, pairs[:, 0]] - patches[:, pairs[:, 1]]) / np.maximum(spread, 1e-3)
    return np.nan_to_num(difference).reshape(len(patches), -1) / np.sqrt(patches.shape[-1])


def prediction_features(
    xy: np.ndarray, predicted: np.ndarray, score: np.ndarray, sizes: np.ndarray, flip: tuple[int, ...]
) -> np.ndarray:
    """(N, F) features that change sign when all names of the labels are exchanged.

    For each pair, how much closer its predicted points are to the labels as they are than to the exchanged ones, as a share
    of the sum of both distances and of the usual error; the mean of these, and their mean weighted by the scores.

    Args:
        xy: (N, K, 2) labels; NaN where unlabelled.
        predicted: (N, K, 2) of a model that has not seen these labels; NaN without a prediction.
        score: (N, K) of the predicted points.
        sizes: (N,) of the subjects, pixels.
        flip: permutation of the keypoints.
    """
    a, b = _spread(mirror_pairs(flip)).T
    as_is = _length(predicted[:, a] - xy[:, a]) + _length(predicted[:, b] - xy[:, b])
    exchanged = _length(predicted[:, a] - xy[:, b]) + _length(predicted[:, b] - xy[:, a])
    relative = (np.minimum(as_is, exchanged) / sizes[:, None])[np.isfinite(as_is + exchanged)]
    usual = np.median(relative) if len(relative) else 1.0
    share = (exchanged - as_is) / _positive(exchanged + as_is + usual * sizes[:, None])
    known = np.isfinite(share)
    share = np.where(known, share, 0)
    weight = np.where(known, np.sqrt(np.nan_to_num(score[:, a] * score[:, b]).clip(0)), 0)
    mean = share.sum(1) / np.maximum(known.sum(1), 1)
    weighted = (share * weight).sum(1) / np.maximum(weight.sum(1), 1e-9)
    return np.concatenate([share, MEANS * mean[:, None], MEANS * weighted[:, None]], axis=1)


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


def decided(odds: np.ndarray) -> np.ndarray:
    """The log odds, or NaN for all subjects if more than a share ``UNDECIDED`` of them are negative.

    The looks of a side depend on the view too: some frames of an animal that turns are not exchanged, but of another view.
    """
    negative = float((odds < 0).sum()) / max(1, int(np.isfinite(odds).sum()))
    return odds if negative <= UNDECIDED else np.full_like(odds, np.nan)


def log_odds(features: np.ndarray) -> np.ndarray:
    """(N,) log of the odds that the names are correct rather than exchanged, before any prior; NaN where unknown.

    Args:
        features: (N, F), odd; a row of zeros is a subject without any of them.
    """
    known = np.abs(features).sum(1) > 0
    out = np.full(len(features), np.nan)
    if known.sum() < 20:
        return out
    x = features[known]
    x = x[:, np.abs(x).sum(0) > 0]
    used = np.zeros(len(x), dtype=bool)
    used[:: max(1, len(x) // FITTED)] = True
    value = _left_out(x, used)
    scale = _scale(value[used])
    if (value < 0).sum() <= max(2, INVERTED * len(value)):
        median, tenth = np.quantile(value, [0.5, 0.1])
        scale = max(scale, 2 * median / max((median - tenth) / NORMAL, 0.2) ** 2)
    out[known] = scale * value
    return out


def _scale(value: np.ndarray) -> float:
    """The most likely scale of the values as log odds, by their signs."""
    p = _sigmoid(SCALES[:, None] * np.abs(value))[:, None]  # (B, 1, N)
    share = EXCHANGED[:, None]
    positive = (1 - share) * p + share * (1 - p)  # (B, S, N)
    likelihood = (
        np.log(np.where(value > 0, positive, 1 - positive)).sum(-1) - 0.5 * (np.log(SCALES) / LOG_SCALE)[:, None] ** 2
    )
    return float(SCALES[likelihood.max(1).argmax()])


def _left_out(x: np.ndarray, used: np.ndarray) -> np.ndarray:
    """(N,) w x of each subject, fitted to the used ones without the subject itself."""
    a = x[used]
    spread = np.clip(a.shape[0] / a.shape[1], *SPREAD)
    penalty = float((a**2).sum(1).mean()) / spread**2
    weights = np.zeros(a.shape[1])
    for _ in range(STEPS):
        p, correct, inverse = _state(a, weights, penalty)
        step = inverse @ (a.T @ (correct - p) - penalty * weights)
        weights += step
        if np.abs(a @ step).max() < 1e-3:
            break
    p, correct, inverse = _state(a, weights, penalty)
    leverage = np.einsum("nf,fg,ng->n", a, inverse, a)
    value = x @ weights
    value[used] -= leverage * (correct - p) / np.maximum(1 - p * (1 - p) * leverage, 0.1)
    return value


def _state(a: np.ndarray, weights: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p(correct) by the weights, by the weights and the noise, and the inverse of the Hessian."""
    p = _sigmoid(a @ weights)
    correct = (1 - NOISE) * p / ((1 - NOISE) * p + NOISE * (1 - p))
    return p, correct, np.linalg.inv((a.T * (p * (1 - p))) @ a + penalty * np.eye(a.shape[1]))


def _sigmoid(t: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(t, -40, 40)))


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
