"""Tracks of a video: a number that occurs twice in an image, and subjects that jump."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from kplab.data.check.checked import Checked
from kplab.data.check.finding import Finding, rule
from kplab.data.check.tails import upper_limit

LEAST_STEP = 0.5
"""Sizes of the subject from one labelled frame to the next; a shorter step is never reported."""


@rule(
    "error",
    "instances with the track of another one",
    "a track occurs twice in the image",
    "Give one of them another track.",
)
def track_twice(data: Checked) -> Iterator[Finding]:
    """Two instances of an image have the same track."""
    track, image = data.labels.poses.track, data.image_of
    seen: Counter[tuple[int, int]] = Counter()
    for i in np.flatnonzero(track >= 0):
        key = (int(image[i]), int(track[i]))
        seen[key] += 1
        if seen[key] > 1:
            yield data.at(i, None, f"track {key[1]}")


@rule(
    "warning",
    "instances whose track jumps",
    "the distance from the frame before is an outlier",
    "Check whether two tracks are exchanged here.",
)
def track_jump(data: Checked) -> Iterator[Finding]:
    """A track moves much farther between two labelled frames than usual."""
    p, image = data.labels.poses, data.image_of
    hull = p.extent()
    centre = (hull[:, :2] + hull[:, 2:]) / 2
    sizes = data.of_instances(data.dataset.sizes)
    group = np.unique(data.labels.group.astype(str), return_inverse=True)[1]
    rows = np.flatnonzero((p.track >= 0) & data.counted & np.isfinite(sizes))
    rows = rows[np.lexsort((data.frame[image[rows]], p.track[rows], group[image[rows]]))]
    if len(rows) < 2:
        return
    same = (p.track[rows[1:]] == p.track[rows[:-1]]) & (group[image[rows[1:]]] == group[image[rows[:-1]]])
    gap = np.maximum(data.frame[image[rows[1:]]] - data.frame[image[rows[:-1]]], 1)
    step = np.linalg.norm(centre[rows[1:]] - centre[rows[:-1]], axis=1) / np.fmin(sizes[rows[1:]], sizes[rows[:-1]])
    speed = np.where(same, step / gap, np.nan)
    limit = max(LEAST_STEP, upper_limit(speed))
    skipped = -1
    for t in np.flatnonzero(speed > limit):
        if t == skipped:
            continue  # the way back of a jump that was reported
        i = int(rows[t + 1])
        if t + 1 < len(speed) and speed[t + 1] > limit:
            across = np.linalg.norm(centre[rows[t + 2]] - centre[rows[t]]) / sizes[rows[t]] / (gap[t] + gap[t + 1])
            skipped = int(t) + 1 if across <= limit else -1
        text = f"track {p.track[i]}: {step[t]:.1f} sizes from {data.labels.names[image[rows[t]]]}"
        yield data.at(i, None, text, float(speed[t]), limit)
