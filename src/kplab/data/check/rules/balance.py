"""What a dataset shows much or little of: keypoints, sides, sizes and poses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kplab.data.check.checked import Checked
from kplab.data.check.chirality import mirror_pairs
from kplab.data.check.finding import Finding, rule

RARE = 0.05
"""A keypoint that is labelled on fewer subjects than this share of the most frequent one is rare."""

SIDES = 0.2
"""Relative difference of how often the two keypoints of a pair are labelled."""

SMALL, SMALL_SHARE = 32.0, 0.5
"""Pixels below which a subject counts as small (COCO: an area below 32**2), and the share of small ones."""

ALIKE, ALIKE_SHARE = 0.03, 0.5
"""Two poses are alike if their keypoints differ by less than this share of the size, on average; and the share of subjects
that are like another one of 200."""


@rule(
    "info",
    "keypoints that are rarely labelled",
    f"labelled on fewer than {RARE:.0%} as many subjects as the most frequent keypoint",
    "Scores of these keypoints are uncertain.",
)
def keypoint_rare(data: Checked) -> Iterator[Finding]:
    """A keypoint is labelled on few subjects."""
    number = data.labels.poses.labelled[data.counted].sum(0)
    for k in np.flatnonzero((number > 0) & (number < RARE * number.max(initial=0))):
        yield Finding(keypoint=int(k), text=f"{number[k]} of {data.counted.sum()} subjects", value=float(number[k]))


@rule(
    "info",
    "mirror pairs that are labelled unequally",
    f"one side is labelled at least {SIDES:.0%} more often than the other, which chance does not explain",
    "Mirroring in augmentation compensates it.",
)
def side_balance(data: Checked) -> Iterator[Finding]:
    """One side of a mirror pair is labelled more often than the other."""
    labelled = data.labels.poses.labelled[data.counted]
    names = data.labels.skeleton.keypoints
    for a, b in mirror_pairs(data.labels.skeleton.flip):
        only_a, only_b = int((labelled[:, a] & ~labelled[:, b]).sum()), int((labelled[:, b] & ~labelled[:, a]).sum())
        n_a, n_b = int(labelled[:, a].sum()), int(labelled[:, b].sum())
        # of subjects with one side only, each side has half, with a standard deviation of sqrt(n) / 2
        certain = abs(only_a - only_b) > 3 * np.sqrt(max(only_a + only_b, 1))
        if certain and abs(n_a - n_b) > SIDES * max(n_a, n_b):
            yield Finding(keypoint=int(a), text=f"{n_a}, {names[b]} {n_b}", value=float(n_a), expected=float(n_b))


@rule(
    "info",
    "splits of small subjects",
    f"more than {SMALL_SHARE:.0%} of the subjects are smaller than {SMALL:g} px",
    "Train on crops (regions=annotated), or on a larger view.",
)
def scale(data: Checked) -> Iterator[Finding]:
    """Most subjects of a split are small."""
    box = data.labels.poses.box[data.counted]
    size = np.sqrt(np.maximum(box[:, 2:] - box[:, :2], 0).prod(1))
    size = size[np.isfinite(size)]
    if len(size) and (share := float((size < SMALL).mean())) > SMALL_SHARE:
        yield Finding(text=f"{share:.0%}, median {np.median(size):.0f} px", value=share, expected=SMALL_SHARE)


@rule(
    "info",
    "splits of similar poses",
    f"more than {ALIKE_SHARE:.0%} of the subjects have nearly the pose of another one, apart from place and size",
    "The number of images overstates what can be learnt: label frames that differ more.",
)
def pose_spread(data: Checked) -> Iterator[Finding]:
    """Most poses of a split are alike."""
    xy = data.labels.poses.xy[data.counted]
    xy = xy[np.isfinite(xy).all((1, 2))]
    if len(xy) < 20:
        return
    xy = xy[:: max(1, len(xy) // 200)][:200]
    xy = xy - xy.mean(1, keepdims=True)
    xy = xy / np.maximum(np.ptp(xy, axis=1).max(1), 1e-9)[:, None, None]
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=-1).mean(-1)
    np.fill_diagonal(distance, np.inf)
    share = float((distance.min(1) < ALIKE).mean())
    if share > ALIKE_SHARE:
        yield Finding(text=f"{share:.0%}", value=share, expected=ALIKE_SHARE)


@rule(
    "info",
    "splits without hidden keypoints",
    "no labelled keypoint has visibility 1, although some are unlabelled",
    "A model can't learn to predict hidden keypoints from it.",
)
def visibility(data: Checked) -> Iterator[Finding]:
    """No labelled keypoint of a split is marked as hidden."""
    p = data.labels.poses[data.counted]
    if len(p) and (p.visible == 0).any() and not (p.visible == 1).any():
        yield Finding(text=f"{(p.visible == 0).mean():.0%} of the keypoints are unlabelled, none is hidden")
