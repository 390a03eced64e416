"""Splits that share images: the same ones, nearly the same ones, and frames of one video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from kplab.data.check.checked import Checked
from kplab.data.check.finding import Finding, rule
from kplab.data.fingerprints import THUMBNAIL, Fingerprints, near


@rule(
    "error",
    "images that are in two splits",
    "the same file is in another split, so that scores on it are too good",
    "Leave it out of one of them, or make the split again: kplab's splits keep copies together.",
    pixels=True,
)
def same_image_in_splits(data: Checked) -> Iterator[Finding]:
    """An image has the same content as one of another split."""
    for name, other in data.earlier.items():
        known = {look.digest: i for i, look in reversed(list(enumerate(other.looks))) if look.digest is not None}
        for i, look in enumerate(data.looks):
            if look.digest is not None and look.digest in known:
                yield Finding(i, text=f"same as {other.labels.names[known[look.digest]]} of {name}")


@rule(
    "warning",
    "images that are nearly in two splits",
    "another split has an image that looks the same (scaled, or compressed again)",
    "Look at both, and leave one out.",
    pixels=True,
)
def near_image_in_splits(data: Checked) -> Iterator[Finding]:
    """An image looks the same as one of another split (perceptual hash, thumbnail)."""
    own, prints = _prints(data)
    for name, other in data.earlier.items():
        known, their_prints = _prints(other)
        like: dict[int, int] = {}
        for b, a in near(their_prints, prints):
            i, j = int(own[a]), int(known[b])
            same_video = str(data.labels.group[i]) == str(other.labels.group[j]) and not _own_group(data, i)
            if data.looks[i].digest != other.looks[j].digest and not same_video:
                like.setdefault(i, j)
        for i, j in like.items():
            yield Finding(i, text=f"like {other.labels.names[j]} of {name}")


@rule(
    "warning",
    "videos or subjects that are in two splits",
    "images of one group are in two splits; neighbouring frames of a video are alike, so that scores are too good",
    "Split by group, or by time with a gap.",
)
def group_in_splits(data: Checked) -> Iterator[Finding]:
    """Images of one video or subject are in two splits."""
    own = Counter(str(g) for i, g in enumerate(data.labels.group) if not _own_group(data, i))
    for name, other in data.earlier.items():
        theirs = Counter(str(g) for g in other.labels.group)
        for group, number in own.items():
            if theirs[group]:
                first = int(np.flatnonzero(data.labels.group.astype(str) == group)[0])
                text = f"{group}: {number} images here, {theirs[group]} in {name}"
                yield Finding(first, text=text, value=float(number), expected=0.0)


def _prints(data: Checked) -> tuple[np.ndarray, Fingerprints]:
    """Indices of the images that could be read, and their fingerprints."""
    prints = {i: look.print for i, look in enumerate(data.looks) if look.print is not None}
    hashes = np.array([code for code, _ in prints.values()], dtype=np.uint64)
    small = np.array([thumbnail for _, thumbnail in prints.values()], dtype=np.int8).reshape(-1, THUMBNAIL**2)
    return np.array(list(prints), dtype=np.int64), Fingerprints(hashes, small)


def _own_group(data: Checked, i: int) -> bool:
    """Whether an image is a group of its own."""
    return str(data.labels.group[i]) == str(data.labels.names[i])
