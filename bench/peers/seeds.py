"""Differences between two systems that were each trained with one or several seeds."""

from __future__ import annotations

import numpy as np

from kplab.metrics.compare import draw_weights, interval
from kplab.metrics.metric import Evidence, metrics_of
from kplab.metrics.score import Scores

Interval = list[float] | None


def over_seeds(
    pairs: list[tuple[Scores, Scores]], metrics: tuple[str, ...], resamples: int = 2000
) -> dict[str, Interval]:
    """The mean over seeds of a metric of the first system less that of the second, with its 95 % interval.

    Each resample draws images (groups, where the scores have them) and seeds with replacement; both systems and all seeds
    have the same images. With one seed it is the interval of ``kplab compare``, which refuses systems that predict in
    different ways. With few seeds the interval is too narrow: three can't show how much trainings vary.

    Args:
        pairs: scores of both systems on the same images, one pair a seed.
        metrics: names of metrics that ``kplab compare`` has.

    Returns:
        metric to [difference, low, high]; None where a system has no value.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993 (percentile interval, pairs).
    """
    first = pairs[0][0]
    images = np.sort(first.per_image["image_id"].to_numpy())
    group = (
        first.per_image.set_index("image_id")["group"].loc[images].to_numpy() if "group" in first.per_image else None
    )
    rng = np.random.default_rng(0)
    weights = draw_weights(len(images), resamples, rng, group)
    once = np.ones((1, len(images)), dtype=np.int64)
    drawn = rng.integers(len(pairs), size=(resamples, len(pairs)))
    found: dict[str, Interval] = {}
    for metric in metrics_of(first.card, "compare"):
        if metric.name not in metrics:
            continue
        plain, varied = [], []
        for pair in pairs:
            evidence = [Evidence.of(scores.keypoints, images, scores.matches) for scores in pair]
            plain.append(np.subtract(*(metric.computed_for(e, once)[0] for e in evidence)))
            varied.append(np.subtract(*(metric.computed_for(e, weights) for e in evidence)))
        samples = np.take_along_axis(np.stack(varied, axis=1), drawn, axis=1).mean(1)
        value = float(np.mean(plain))
        found[metric.name] = [value, *interval(samples)] if np.isfinite(value) else None
    return found
