"""Left and right, exchanged axes, and subjects that are labelled twice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from kplab.data.check.checked import Checked
from kplab.data.check.chirality import mirror_pairs
from kplab.data.check.finding import Finding, rule

ODDS = float(np.log(99))
"""Log odds against the names from which on an exchange is reported: more likely than not if one subject in a hundred is
exchanged."""

PAIR_ODDS = float(np.log(1999))
"""The same for a single pair: one in two thousand, since legs and paws may be crossed."""

MEASURED = 10
"""Subjects with both sides labelled, from which on the order of all is judged."""

CROSSED = 0.8
"""Connections between the sides count as crossed where their length is below this share of the length within the sides."""

TWICE = 0.08
"""Two labels of one subject differ by less than this share of the diagonal of their keypoints, on average."""


@rule(
    "warning",
    "subjects with left and right exchanged",
    "the positions fit the other subjects with all left and right names exchanged",
    "Exchange the names, if the picture confirms it (left is the subject's own left).",
)
def left_right_exchanged(data: Checked) -> Iterator[Finding]:
    """Left and right of a whole subject are exchanged."""
    odds = data.of_instances(data.dataset.whole_odds)
    for i in np.flatnonzero(odds < -ODDS):
        yield data.at(i, None, f"log odds {-odds[i]:.1f}", float(-odds[i]), ODDS)


@rule(
    "warning",
    "subjects with left and right exchanged, by their looks",
    "the colours around the keypoints fit the other subjects with all left and right names exchanged",
    "Exchange the names, if the picture confirms it (left is the subject's own left).",
    pixels=True,
)
def left_right_appearance(data: Checked) -> Iterator[Finding]:
    """The colours around keypoints are those of the other side on other subjects."""
    if data.dataset.deep:
        odds = data.of_instances(data.dataset.appearance)
        for i in np.flatnonzero(odds < -ODDS):
            yield data.at(i, None, f"log odds {-odds[i]:.1f}", float(-odds[i]), ODDS)


@rule(
    "warning",
    "mirror pairs that are exchanged",
    "the positions fit the other subjects with the two names of a pair exchanged",
    "Exchange the two names, if the picture confirms it.",
)
def pair_exchanged(data: Checked) -> Iterator[Finding]:
    """The two keypoints of one mirror pair are exchanged."""
    pairs = mirror_pairs(data.labels.skeleton.flip)
    odds = data.of_instances(data.dataset.pair_odds)
    limit = PAIR_ODDS + float(np.log(max(1, len(pairs))))  # a subject has as many chances as pairs
    whole = data.of_instances(data.dataset.whole_odds) < -ODDS
    if not len(pairs):
        return
    names = data.labels.skeleton.keypoints
    lowest = np.where(np.isfinite(odds), odds, np.inf).min(1)
    for i in np.flatnonzero((lowest < -limit) & ~whole):
        p = int(np.nanargmin(odds[i]))
        a, b = (int(k) for k in pairs[p])
        text = f"{names[a]} and {names[b]}, log odds {-odds[i, p]:.1f}"
        yield data.at(i, a, text, float(-odds[i, p]), limit)


@rule(
    "warning",
    "left-right scrambled orders",
    f"of two pairs, points are closer to those of the other side in most of at least {MEASURED} subjects, so that the order of "
    "the names is probably not that of the points",
    "Compare with the pictures, and exchange names with rename.",
)
def sides_scrambled(data: Checked) -> Iterator[Finding]:
    """Left and right of a pair are exchanged in most subjects of a split.

    Of two pairs, such as shoulders and elbows, the points of one side are usually closer to each other than to those of the
    other side. The other rules compare with the other subjects, and find what is wrong in a few of them.
    """
    xy, names = data.labels.poses.xy, data.labels.skeleton.keypoints
    found = []
    for (a, b), (c, d) in combinations(mirror_pairs(data.labels.skeleton.flip).tolist(), 2):
        within = np.linalg.norm(xy[:, a] - xy[:, c], axis=1) + np.linalg.norm(xy[:, b] - xy[:, d], axis=1)
        across = np.linalg.norm(xy[:, a] - xy[:, d], axis=1) + np.linalg.norm(xy[:, b] - xy[:, c], axis=1)
        known = np.isfinite(within) & np.isfinite(across)
        crossed = int((across[known] < CROSSED * within[known]).sum())
        if known.sum() >= MEASURED and 2 * crossed > known.sum():
            found.append((crossed, int(known.sum()), (a, b, c, d)))
    if found:
        crossed, count, (a, b, c, d) = max(found)
        text = f"in {crossed} of {count} subjects {names[a]} is closer to {names[d]}, and {names[b]} to {names[c]}"
        yield Finding(None, None, a, f"{text} ({len(found)} such pairs)", crossed / count, 0.5)


@rule(
    "error",
    "subjects with x and y exchanged",
    "the keypoints lie in the box only with x and y exchanged",
    "Exchange the columns of the file.",
)
def axes_exchanged(data: Checked) -> Iterator[Finding]:
    """The keypoints of a subject lie in its box only with x and y exchanged."""
    p = data.labels.poses

    def share(xy: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            inside = ((xy >= p.box[:, None, :2] - 1) & (xy <= p.box[:, None, 2:] + 1)).all(-1)
        return (inside & p.labelled).sum(1) / np.maximum(p.labelled.sum(1), 1)

    now, exchanged = share(p.xy), share(p.xy[..., ::-1])
    for i in np.flatnonzero(data.counted & (p.labelled.sum(1) > 1) & (exchanged > 0.9) & (now < 0.5)):
        text = f"{now[i]:.0%} of the keypoints in the box, {exchanged[i]:.0%} exchanged"
        yield data.at(i, None, text, float(now[i]), 0.5)


@rule(
    "error",
    "subjects that are labelled twice",
    f"another subject of the image has nearly the same keypoints (mean distance under {TWICE:.0%} of their diagonal)",
    "Keep one of them.",
)
def subject_twice(data: Checked) -> Iterator[Finding]:
    """Two instances of an image have nearly the same keypoints."""
    p, start = data.labels.poses, data.labels.start
    labelled = p.labelled  # once: it is computed of all instances
    hull = p.extent()
    sizes = np.linalg.norm(hull[:, 2:] - hull[:, :2], axis=1)
    for image in np.flatnonzero(np.diff(start) > 1):
        rows = np.arange(start[image], start[image + 1])
        rows = rows[data.counted[rows]]
        both = labelled[rows][:, None] & labelled[rows][None]
        distance = np.linalg.norm(p.xy[rows][:, None] - p.xy[rows][None], axis=-1)
        count = both.sum(-1)
        mean = np.where(both, distance, 0).sum(-1) / np.maximum(count, 1)
        fewest = np.minimum.outer(labelled[rows].sum(1), labelled[rows].sum(1))
        size = np.fmax.outer(sizes[rows], sizes[rows])
        with np.errstate(invalid="ignore"):
            same = (mean < TWICE * size) & (count >= np.maximum(2, 0.5 * fewest))
        for a, b in zip(*np.nonzero(np.triu(same, 1)), strict=True):
            i, j = int(rows[a]), int(rows[b])
            text = f"same as instance {data.labels.instance_id[i]}, mean distance {mean[a, b]:.1f} px"
            exact = mean[a, b] < 0.01 and (labelled[i] == labelled[j]).all()
            fix = "leave out this copy" if exact else ""
            yield Finding(int(image), j, None, text, float(mean[a, b] / size[a, b]), TWICE, fix)
