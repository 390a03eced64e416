"""Images of one split that a training knows from another: the same, near-identical, or neighbours in a video."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from kplab.data.fingerprint_cache import FingerprintCache
from kplab.data.fingerprints import Fingerprints, fingerprints, near
from kplab.data.units import content_of
from kplab.structures.labels import Labels

#: Frames of one video that are neighbours have numbers that differ by at most this.
WINDOW = 10
#: Pairs of names that a report lists of each kind.
EXAMPLES = 5


@dataclass(frozen=True)
class Leak:
    """What two splits share. An image that is the same is not counted as near-identical or as a neighbour.

    Args:
        one: name of a split.
        other: name of another one, whose images are counted.
        images: number of images of ``other``.
        same: of these, images with the content of an image of ``one``.
        near: images that are near-identical to one: scaled, compressed again or changed in brightness; or frames of a
            fixed camera in which little has moved.
        neighbours: images whose number in a group (a video) is at most ``WINDOW`` from that of one; where names have no
            numbers, images next to one in the order of names.
        groups: number of groups, such as videos, that have images in both.
        examples: kind to pairs of names, first of ``one``.
    """

    one: str
    other: str
    images: int
    same: int
    near: int
    neighbours: int
    groups: int
    examples: dict[str, list[tuple[str, str]]]

    def __bool__(self) -> bool:
        return self.same + self.near + self.neighbours > 0

    def line(self) -> str:
        """The report in a line."""
        return (
            f"{self.other} ({self.images} images): {self.same} are the same as in {self.one}, {self.near} near-identical, "
            f"{self.neighbours} within {WINDOW} frames of one in a video"
            + (f"; {self.groups} groups are in both" if self.groups else "")
        )

    def record(self) -> dict[str, Any]:
        """The entry of a run's record."""
        return asdict(self)


def find_leaks(
    splits: Mapping[str, Labels],
    contents: Mapping[str, Sequence[str]] | None = None,
    cache: FingerprintCache | None = None,
) -> list[Leak]:
    """Compare every two splits.

    Args:
        splits: split name to its images.
        contents: split name to a hash of each image, where they are known.
        cache: of fingerprints, see ``fingerprints``.

    Returns:
        One report for each pair, in the order of the splits; the images of the second are counted.

    Raises:
        DataError: an image is missing or damaged.
    """
    known = {name: list(contents[name]) if contents else content_of(labels) for name, labels in splits.items()}
    prints = {name: fingerprints(labels, cache) for name, labels in splits.items()}
    return [_compare(one, other, splits, known, prints) for one, other in combinations(splits, 2) if len(splits[other])]


def _compare(
    one: str,
    other: str,
    splits: Mapping[str, Labels],
    contents: Mapping[str, list[str]],
    prints: Mapping[str, Fingerprints],
) -> Leak:
    first = {content: i for i, content in reversed(list(enumerate(contents[one])))}
    found = {"same": {j: first[content] for j, content in enumerate(contents[other]) if content in first}}
    found["near"] = {j: i for i, j in near(prints[one], prints[other])}
    found["neighbours"] = _neighbours(splits[one], splits[other])
    counts, examples = {}, {}
    names = splits[one].names, splits[other].names
    for kind, pairs in found.items():
        new = {j: i for j, i in sorted(pairs.items()) if kind == "same" or j not in found["same"]}
        counts[kind] = len(new)
        examples[kind] = [(str(names[0][i]), str(names[1][j])) for j, i in list(new.items())[:EXAMPLES]]
    groups = len(_groups(splits[one]) & _groups(splits[other]))
    shown = {kind: pairs for kind, pairs in examples.items() if pairs}
    return Leak(one, other, len(splits[other]), groups=groups, examples=shown, **counts)


def _groups(labels: Labels) -> set[str]:
    """The groups of images; an image that is its own group is in none."""
    return {str(group) for name, group in zip(labels.names, labels.group, strict=True) if group != name}


def _neighbours(one: Labels, other: Labels) -> dict[int, int]:
    """Index in ``other`` to index in ``one`` of a neighbour in the same group."""
    groups: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    for side, labels in enumerate((one, other)):
        for i, (name, group) in enumerate(zip(labels.names, labels.group, strict=True)):
            if group != name:  # an image that is its own group is of no video
                groups[str(group)].append((str(name), side, i))
    found: dict[int, int] = {}
    for members in groups.values():
        if len({side for _, side, _ in members}) < 2:
            continue
        place, window = _places([name for name, _, _ in members])
        sides, index = np.array([s for _, s, _ in members]), np.array([i for _, _, i in members])
        order = np.argsort(place[sides == 0], kind="stable")
        there, of = place[sides == 0][order], index[sides == 0][order]
        after = np.searchsorted(there, place[sides == 1])
        for j, at, k in zip(index[sides == 1].tolist(), place[sides == 1], after, strict=True):
            close = [c for c in (k - 1, k) if 0 <= c < len(there) and abs(there[c] - at) <= window]
            if close:
                found[j] = int(of[min(close, key=lambda c: abs(there[c] - at))])
    return found


def _places(names: list[str]) -> tuple[np.ndarray, int]:
    """The place of each image in its video, and how far neighbours are apart: frame numbers, or the order of names."""
    numbers = [re.findall(r"\d+", PurePosixPath(name).stem) for name in names]
    if all(numbers):
        last = [int(n[-1]) for n in numbers]
        if len(set(last)) == len(last):
            return np.array(last, dtype=np.float64), WINDOW
    return np.argsort(np.argsort(np.array(names), kind="stable"), kind="stable").astype(np.float64), 1
