"""Names of keypoints in label files, and skeletons made from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kplab.structures.skeleton import UNIFORM_SIGMA, UNIFORM_SOURCE, Skeleton, left_right_pairs


@dataclass(frozen=True)
class Names:
    """What a label file states of its skeleton.

    Args:
        keypoints: names in the file's order.
        edges: pairs of indices.
        pairs: pairs of indices that a mirror image exchanges, where the file states them.
    """

    keypoints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()


def numbered(count: int) -> Names:
    """Names of keypoints in a file that has none: ``point00``, ``point01`` and so on."""
    width = max(2, len(str(count - 1)))
    return Names(tuple(f"point{i:0{width}d}" for i in range(count)))


def guess_pairs(names: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of keypoints that a mirror image exchanges, guessed from their names.

    Words first (left, right), then the letters L and R where they stand alone between other kinds of characters.

    >>> guess_pairs(["nose", "left_ear", "right_ear"]), guess_pairs(["eyeL", "eyeR", "hindlegR4", "hindlegL4"])
    ([(1, 2)], [(0, 1), (3, 2)])
    >>> guess_pairs(["L_F_Paw", "R_F_Paw", "Lion"]), guess_pairs(["paw1LH_top", "paw4RH_top"])
    ([(0, 1)], [])
    """
    found, _ = left_right_pairs(names)
    used = {i for pair in found for i in pair}
    index = {name: i for i, name in enumerate(names)}
    letter = re.compile(r"(?<![A-Za-z])[LlRr](?![A-Za-z])|(?<=[a-z])[LR](?![A-Za-z])")
    swap = {"L": "R", "R": "L", "l": "r", "r": "l"}
    for i, name in enumerate(names):
        other = index.get(letter.sub(lambda match: swap[match.group()], name), i)
        first = letter.search(name)
        if other != i and first and first.group() in "Ll" and not {i, other} & used:
            found.append((i, other))
            used |= {i, other}
    return found


def skeleton_from(names: Names, name: str) -> Skeleton:
    """A skeleton with these keypoints: pairs as stated, or guessed from the names; sigmas uniform."""
    flip = list(range(len(names.keypoints)))
    for a, b in names.pairs or guess_pairs(names.keypoints):
        flip[a], flip[b] = b, a
    sigmas = (UNIFORM_SIGMA,) * len(names.keypoints)
    return Skeleton(name, names.keypoints, names.edges, tuple(flip), sigmas, UNIFORM_SOURCE)
