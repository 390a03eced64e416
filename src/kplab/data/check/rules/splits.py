"""Splits that share images: the same ones, nearly the same ones, and frames of one video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import cv2
import numpy as np

from kplab.data.check.checked import Checked, Look
from kplab.data.check.finding import Finding, rule

BITS = 7
"""Largest number of differing bits, of 64, of two perceptual hashes of nearly the same image."""

CORRELATION = 0.97
"""Smallest correlation of their thumbnails."""

FLAT = 4.0
"""Standard deviation of grey levels below which an image shows too little to be compared."""


@rule(
    "error",
    "images that are in two splits",
    "the same file is in another split, so that scores on it are too good",
    "Leave it out of one of them, or make the split again: kplab's splits keep copies together.",
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
)
def near_image_in_splits(data: Checked) -> Iterator[Finding]:
    """An image looks the same as one of another split (perceptual hash, thumbnail)."""
    own = perceptual_hashes(data.looks)
    for name, other in data.earlier.items():
        known = perceptual_hashes(other.looks)
        for i, j in near(own, known):
            a, b = data.looks[i], other.looks[j]
            same_video = str(data.labels.group[i]) == str(other.labels.group[j]) and not _own_group(data, i)
            if a.digest != b.digest and not same_video and correlation(a, b) >= CORRELATION:
                yield Finding(
                    i, text=f"like {other.labels.names[j]} of {name}", value=correlation(a, b), expected=CORRELATION
                )


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


def perceptual_hashes(looks: list[Look]) -> dict[int, int]:
    """Image index to 64 bits: whether each pixel of a grey 9 x 8 thumbnail is brighter than its left neighbour.

    Flat images are left out.
    """
    found = {}
    for i, look in enumerate(looks):
        if look.small is None or look.small.std() < FLAT:
            continue
        tiny = cv2.resize(look.small, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
        bits = np.packbits(tiny[:, 1:] > tiny[:, :-1])
        found[i] = int.from_bytes(bits.tobytes(), "big")
    return found


def near(own: dict[int, int], known: dict[int, int]) -> Iterator[tuple[int, int]]:
    """For each image its nearest one of another set, if at most ``BITS`` bits differ.

    Two such hashes have at least one of ``BITS + 1`` bytes in common, so that only images that share a byte are compared.
    """
    if not own or not known:
        return
    index = np.array(list(known), dtype=np.int64)
    codes = np.array(list(known.values()), dtype=np.uint64)
    parts = codes.view(np.uint8).reshape(-1, 8)
    tables = [[np.flatnonzero(parts[:, b] == v) for v in range(256)] for b in range(8)]
    for i, code in own.items():
        own_parts = np.array([code], dtype=np.uint64).view(np.uint8)
        rows = np.unique(np.concatenate([tables[b][int(own_parts[b])] for b in range(8)]))
        if not len(rows):
            continue
        differing = np.bitwise_count(codes[rows] ^ np.uint64(code))
        best = int(differing.argmin())
        if differing[best] <= BITS:
            yield i, int(index[rows[best]])


def correlation(a: Look, b: Look) -> float:
    """Correlation of the grey levels of two thumbnails."""
    if a.small is None or b.small is None:
        return 0.0
    return float(np.corrcoef(a.small.ravel().astype(np.float64), b.small.ravel().astype(np.float64))[0, 1])


def _own_group(data: Checked, i: int) -> bool:
    """Whether an image is a group of its own."""
    return str(data.labels.group[i]) == str(data.labels.names[i])
