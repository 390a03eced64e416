"""The skeleton and the numbers of a dataset: names, flip pairs, sigmas, edges, and ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations

import numpy as np

from kplab.data.check.checked import Checked
from kplab.data.check.chirality import mirror_pairs
from kplab.data.check.finding import Finding, rule
from kplab.structures.skeleton import left_right_pairs

SIGMAS = (0.005, 0.2)
"""Range of published sigmas, with a margin: 0.007 (corner of a mouth, COCO-WholeBody) to 0.179 (MPII)."""

SIDES, OTHERS = 4.5, 7.0
"""Factors by which a sigma may differ from that of the other side, and from the median of the skeleton. Published ones differ
by 3.8 (COCO-WholeBody's eyes) and 5.4 (its body and face)."""

ASYMMETRY = 1.5
"""Two pairs whose distances become less asymmetric by more than this factor when they exchange partners are doubted."""

SYMMETRIC = 0.03
"""Mean difference of the log distances to a keypoint and to its mirror image, below which a pair is not doubted."""


@rule(
    "error",
    "datasets without labels",
    "nothing can be learnt or scored",
    "Check that this is the keypoint file, and that visibility is 1 or 2 where a keypoint is labelled.",
    training=True,
)
def no_labels(data: Checked) -> Iterator[Finding]:
    """A split has no labelled keypoint."""
    if not data.counted.any():
        labels = data.labels
        yield Finding(
            text=f"{labels.source}: no labelled keypoint in {len(labels)} images and {len(labels.poses)} instances"
        )


@rule(
    "error",
    "images with too many poses",
    "show more poses than the head can represent",
    "Use regions=annotated, or a head for any number of poses.",
    training=True,
)
def too_many_poses(data: Checked) -> Iterator[Finding]:
    """An image has more subjects than the head can represent."""
    limit = data.dataset.max_poses
    if limit is None:
        return
    counted = np.bincount(data.image_of[~data.labels.poses.ignore], minlength=len(data.labels))
    for i in np.flatnonzero(counted > limit):
        yield Finding(int(i), text=str(counted[i]), value=float(counted[i]), expected=float(limit))


@rule(
    "warning",
    "keypoints that are never labelled",
    "no instance has them",
    "They are neither learnt nor scored; check the names.",
    training=True,
)
def keypoint_never_labelled(data: Checked) -> Iterator[Finding]:
    """A keypoint of the skeleton is labelled on no subject."""
    if data.counted.any():
        for k in np.flatnonzero(data.labels.poses.labelled.sum(0) == 0):
            yield Finding(keypoint=int(k))


@rule(
    "error",
    "keypoints whose name occurs twice",
    "names must be unique",
    "Rename them in the skeleton.",
)
def name_repeated(data: Checked) -> Iterator[Finding]:
    """Two keypoints have the same name, apart from case and separators."""
    names = [_plain(name) for name in data.labels.skeleton.keypoints]
    for k, name in enumerate(names):
        if names.index(name) != k:
            yield Finding(keypoint=k)


@rule(
    "error",
    "keypoints with a wrong mirror image",
    "the flip permutation contradicts itself or the names",
    "Correct flip_pairs of the skeleton.",
)
def flip_pairs(data: Checked) -> Iterator[Finding]:
    """The flip permutation is not its own inverse, or contradicts left and right in names."""
    skeleton = data.labels.skeleton
    names, flip = skeleton.keypoints, skeleton.flip
    expected = {a: b for i, j in side_pairs(names) for a, b in ((i, j), (j, i))}
    for k, other in enumerate(flip):
        if not 0 <= other < len(flip) or flip[other] != k:
            yield Finding(keypoint=k, text="the mirror image of its mirror image is another keypoint")
        elif k in expected and other != expected[k]:
            yield Finding(keypoint=k, text=f"mirrored to {names[other]} instead of {names[expected[k]]}")


@rule(
    "warning",
    "keypoints whose mirror image is doubtful",
    "the distances to the other keypoints fit another partner much better",
    "Check flip_pairs of the skeleton.",
)
def flip_geometry(data: Checked) -> Iterator[Finding]:
    """The distances of a keypoint are not those of its mirror image, but of another one.

    A mirror image exchanges the pairs, so that the median distance of i and j is that of flip(i) and flip(j). For every two
    pairs, the mean difference of their log distances to all keypoints is compared with that after they exchanged partners.
    """
    skeleton, median = data.labels.skeleton, data.dataset.shape.median
    flip = np.array(skeleton.flip)
    if (flip < 0).any() or (flip >= len(flip)).any() or (flip[flip] != np.arange(len(flip))).any():
        return  # flip_pairs reports it
    doubts = []
    for (a, b), (c, d) in combinations(mirror_pairs(skeleton.flip).tolist(), 2):
        four = np.array([a, b, c, d])
        now = _asymmetry(median, flip, four)
        for other in ([d, c, b, a], [c, d, a, b]):
            exchanged = flip.copy()
            exchanged[four] = other
            then = _asymmetry(median, exchanged, four)
            if now > SYMMETRIC and now > ASYMMETRY * then:
                doubts.append((now / max(then, 1e-9), now, four, other))
    reported: set[int] = set()
    for _, now, four, other in sorted(doubts, key=lambda doubt: -doubt[0]):
        if reported.isdisjoint(four.tolist()):
            reported |= set(four.tolist())
            for k, best in zip(four.tolist(), other, strict=True):
                text = f"mirrored to {skeleton.keypoints[flip[k]]}, but {skeleton.keypoints[best]} fits better"
                yield Finding(keypoint=k, text=text, value=now, expected=SYMMETRIC)


def _asymmetry(median: np.ndarray, flip: np.ndarray, keypoints: np.ndarray) -> float:
    """Mean difference of the log distances from some keypoints to all others, and between their mirror images."""
    difference = np.abs(median[keypoints] - median[flip[keypoints]][:, flip])
    known = np.isfinite(difference)
    return float(np.where(known, difference, 0).sum() / max(known.sum(), 1))


@rule(
    "error",
    "keypoints with a wrong sigma",
    f"sigmas are about {SIGMAS[0]} to {SIGMAS[1]}, alike for left and right, and of the order of the others",
    "Correct the sigmas of the skeleton, or write sigmas: uniform.",
)
def sigmas(data: Checked) -> Iterator[Finding]:
    """A sigma is far from published ones, the other side's, or those of the skeleton."""
    skeleton = data.labels.skeleton
    low, high = SIGMAS
    median = float(np.median(skeleton.sigmas))
    for k, sigma in enumerate(skeleton.sigmas):
        other = skeleton.flip[k] if 0 <= skeleton.flip[k] < len(skeleton) else k
        if not low <= sigma <= high:
            yield Finding(keypoint=k, text=f"{sigma:g}", value=float(sigma), expected=high if sigma > high else low)
        elif _factor(sigma, skeleton.sigmas[other]) > SIDES and k < other:
            text = f"{sigma:g}, but {skeleton.keypoints[other]} {skeleton.sigmas[other]:g}"
            yield Finding(keypoint=k, text=text, value=float(sigma), expected=float(skeleton.sigmas[other]))
        elif _factor(sigma, median) > OTHERS:
            yield Finding(keypoint=k, text=f"{sigma:g}, median {median:g}", value=float(sigma), expected=median)


@rule(
    "error",
    "wrong edges",
    "an edge connects two different keypoints of the skeleton",
    "Correct the edges of the skeleton.",
)
def edges(data: Checked) -> Iterator[Finding]:
    """An edge names a keypoint that does not exist, connects a keypoint with itself, or occurs twice."""
    skeleton = data.labels.skeleton
    count = Counter(tuple(sorted(edge)) for edge in skeleton.edges)
    for edge, number in count.items():
        if edge[0] == edge[1] or not all(0 <= k < len(skeleton) for k in edge) or number > 1:
            yield Finding(text=f"edge {edge[0]}-{edge[1]}" + (f", {number} times" if number > 1 else ""))


@rule(
    "error",
    "images whose id is not unique",
    "image ids are positive and unique; pycocotools takes id 0 for none",
    "Number the images again.",
)
def image_ids(data: Checked) -> Iterator[Finding]:
    """Two images have the same id, or an id is not positive."""
    for i in _repeated(data.labels.image_id):
        yield Finding(i, text=f"id {data.labels.image_id[i]}", fix="number the images again")


@rule(
    "error",
    "instances whose id is not unique",
    "instance ids are positive and unique; pycocotools takes id 0 for none",
    "Number the instances again.",
)
def instance_ids(data: Checked) -> Iterator[Finding]:
    """Two instances have the same id, or an id is not positive."""
    for i in _repeated(data.labels.instance_id):
        text = f"id {data.labels.instance_id[i]}"
        yield Finding(int(data.image_of[i]), i, text=text, fix="number the instances again")


def side_pairs(names: tuple[str, ...]) -> list[tuple[int, int]]:
    """Pairs of keypoints whose names differ in left and right only, also as L and R at the end or the start of a part.

    >>> side_pairs(("nose", "left_eye", "right_eye", "wingL", "wingR", "forelegR4", "forelegL4", "L_hip", "R_hip"))
    [(1, 2), (3, 4), (6, 5), (7, 8)]
    """
    spelled = [_spelled(name) for name in names]
    if len(set(spelled)) < len(spelled):
        spelled = list(names)
    return left_right_pairs(spelled)[0]


def _spelled(name: str) -> str:
    """A name with left and right in place of single letters L and R."""
    out = re.sub(r"(?<![A-Za-z])L(?=[_ ]|$)|(?<=[a-z])L(?=\d|_|$)", "_left_", name)
    return re.sub(r"(?<![A-Za-z])R(?=[_ ]|$)|(?<=[a-z])R(?=\d|_|$)", "_right_", out)


def _factor(a: float, b: float) -> float:
    return max(a, b) / max(min(a, b), 1e-9)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _repeated(ids: np.ndarray) -> list[int]:
    """Indices of ids that occur before, or are not positive."""
    _, first = np.unique(ids, return_index=True)
    again = np.ones(len(ids), dtype=bool)
    again[first] = False
    return np.flatnonzero(again | (ids <= 0)).tolist()
