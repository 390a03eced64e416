"""Counts repetitions in the angle of a joint over time, with two thresholds and a minimum duration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kplab.errors import ConfigError


@dataclass(frozen=True)
class Repetition:
    """One repetition: from rest over the turning point to rest.

    Args:
        start: seconds, where the angle left the rest.
        end: seconds, where it came back.
        turn: seconds of the smallest angle.
        degrees: the smallest angle.
    """

    start: float
    end: float
    turn: float
    degrees: float


@dataclass(frozen=True)
class Counted:
    """What was counted.

    Args:
        complete: repetitions.
        partial: movements that left the rest by ``margin`` but did not reach ``low``.
        interrupted: number of parts of movements that a gap, or an end of the recording, cuts off; they are not counted. A gap
            in the middle of a movement leaves two of them.
    """

    complete: list[Repetition]
    partial: list[Repetition]
    interrupted: int

    def __len__(self) -> int:
        return len(self.complete)


def count(
    times: np.ndarray, degrees: np.ndarray, low: float, high: float, min_duration: float = 0.4, min_rest: float = 0.1,
    max_gap: float = 0.5, margin: float = 15.0,
) -> Counted:  # fmt: skip
    """Count how often an angle goes from above ``high`` to below ``low`` and back.

    A single measurement that is wrong counts nothing, because each is replaced by the median of it and its neighbours.
    Where rest is the small angle, as in a jumping jack, give ``-degrees``, ``-high`` and ``-low``.

    Args:
        times: (T,) seconds, increasing.
        degrees: (T,) angle; NaN where it was not seen.
        low: degrees that a repetition goes below.
        high: degrees that it begins and ends above.
        min_duration: seconds of a repetition at least; shorter ones are noise.
        min_rest: seconds above ``high`` that end a repetition; shorter ones are noise.
        max_gap: seconds without a measurement after which a movement that was begun is given up.
        margin: degrees below ``high`` from which a movement that does not reach ``low`` is a partial repetition.

    Raises:
        ConfigError: the thresholds are in the wrong order, or the times are not increasing or of another number.
    """
    times, degrees = np.asarray(times, dtype=np.float64), np.asarray(degrees, dtype=np.float64)
    if not low < high:
        raise ConfigError(
            f"low={low} and high={high}: a repetition goes below low from above high, so give low < high."
        )
    if times.shape != degrees.shape or times.ndim != 1 or not (np.diff(times) > 0).all():
        raise ConfigError(
            f"{times.shape} times and {degrees.shape} angles: give one angle for each time, and increasing times."
        )
    complete: list[Repetition] = []
    partial: list[Repetition] = []
    interrupted = 0
    seen = np.isfinite(degrees)
    times, degrees = times[seen], degrees[seen]
    for part in np.split(np.arange(len(times)), np.flatnonzero(np.diff(times) > max_gap) + 1):
        t, d = times[part], _steady(degrees[part])
        for first, last, closed in _movements(t, d >= high, min_rest):
            turn = first + int(d[first : last + 1].argmin())
            found = Repetition(float(t[first]), float(t[last]), float(t[turn]), float(d[turn]))
            if found.degrees > high - margin:
                continue
            if not closed:
                interrupted += 1
            elif found.end - found.start >= min_duration:
                (complete if found.degrees < low else partial).append(found)
    return Counted(complete, partial, interrupted)


def _steady(values: np.ndarray) -> np.ndarray:
    """Running median of three."""
    if len(values) < 3:
        return values
    middle = np.median(np.stack([values[:-2], values[1:-1], values[2:]]), axis=0)
    return np.concatenate([values[:1], middle, values[-1:]])


def _movements(times: np.ndarray, rest: np.ndarray, min_rest: float) -> Iterator[tuple[int, int, bool]]:
    """First and last index of each movement with the rest before and after it, and whether it has both."""
    if not len(rest):
        return
    starts = np.concatenate([[0], np.flatnonzero(np.diff(rest)) + 1])
    ends = np.concatenate([starts[1:], [len(rest)]])
    rests = [
        (a, b)
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
        # what the recording cuts off may have been longer
        if rest[a] and (a == 0 or b == len(rest) or times[b] - times[a] >= min_rest)
    ]
    edges = [(0, 0), *rests, (len(rest), len(rest))]
    for (_, before), (after, _) in pairwise(edges):
        if before < after:
            yield max(before - 1, 0), min(after, len(rest) - 1), before > 0 and after < len(rest)
