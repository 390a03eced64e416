"""Skeletons: the names, edges, flip pairs and sigmas of a subject's keypoints."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kplab.errors import ConfigError

#: Each sigma of ``sigmas: uniform``: SLEAP's default of OKS for every keypoint, and COCO's smallest sigma (the eyes). It does
#: not depend on the number of keypoints, and is strict: scores of measured sigmas, most of which are larger, are higher.
UNIFORM_SIGMA = 0.025
UNIFORM_SOURCE = "not measured: uniform 0.025, a starting value, which is the default that SLEAP uses"


@dataclass(frozen=True)
class Skeleton:
    """Named keypoints of one kind of subject.

    Args:
        name: of the skeleton, e.g. ``coco17``.
        keypoints: K names, in the order of every array of keypoints.
        edges: pairs of 0-based indices, for drawing and for part affinity fields.
        flip: permutation of the keypoints in a mirror image; its own inverse.
        sigmas: K falloffs of OKS, dimensionless.
        sigma_source: where the sigmas come from, as text. It is printed on every score card.
    """

    name: str
    keypoints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    flip: tuple[int, ...]
    sigmas: tuple[float, ...]
    sigma_source: str

    def __len__(self) -> int:
        return len(self.keypoints)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Skeleton:
        """Make a skeleton from the content of ``conf/skeleton/*.yaml``: edges and flip pairs by name, one sigma per keypoint.

        ``sigmas: uniform`` gives each keypoint ``UNIFORM_SIGMA``, with its own source. ``flip_pairs: by_name`` pairs the
        keypoints whose names differ in left and right only.

        Raises:
            ConfigError: a name is unknown or used twice, a pair overlaps another, a left or right keypoint has no partner with
                ``by_name``, there are such pairs but no ``flip_pairs``, or sigmas or their source are missing.
        """
        name = str(config.get("name", "?"))

        def fail(what: str, remedy: str) -> ConfigError:
            return ConfigError(f"skeleton '{name}': {what}. {remedy}")

        for key, words in {"keypoints": (), "edges": (), "flip_pairs": ("by_name",), "sigmas": ("uniform",)}.items():
            value = config.get(key)
            listed = isinstance(value, Sequence) and not isinstance(value, str)
            if value is not None and not listed and value not in words:
                also = "".join(f" Or write {key}: {word}." for word in words)
                raise fail(f"{key} is '{value}'", f"Write a list: [a, b, …].{also}")
        sigma_list = () if isinstance(config.get("sigmas"), str) else config.get("sigmas")
        if not all(type(s) in (int, float) and abs(s) < 1e6 for s in sigma_list or ()):
            raise fail("a sigma is not a number", "Sigmas are positive falloffs of OKS, such as 0.025.")
        if not all(config.get("keypoints") or ()):
            raise fail("a keypoint has an empty name", "Give each keypoint a unique name.")
        names = tuple(str(n) for n in config.get("keypoints") or ())
        if not names:
            raise fail("it has no keypoints", "List them under 'keypoints'.")
        if len(set(names)) != len(names):
            repeated = sorted({n for n in names if names.count(n) > 1})
            raise fail(f"keypoint names occur twice: {', '.join(repeated)}", "Give each keypoint a unique name.")
        index = {n: i for i, n in enumerate(names)}

        def pairs(key: str) -> list[tuple[int, int]]:
            out = []
            for pair in config.get(key) or ():
                if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
                    raise fail(f"an entry of '{key}' is not a pair: {pair}", "Write [name, name].")
                unknown = [str(n) for n in pair if str(n) not in index]
                if unknown:
                    raise fail(f"'{key}' names unknown keypoints: {', '.join(unknown)}", f"Known: {', '.join(names)}.")
                out.append((index[str(pair[0])], index[str(pair[1])]))
            return out

        def mirrored() -> list[tuple[int, int]]:
            found, alone = left_right_pairs(names)
            if config.get("flip_pairs") is None and found:
                a, b = (names[i] for i in found[0])
                raise fail(
                    f"'flip_pairs' is missing, but {a} and {b} look like a pair that a mirror image exchanges",
                    "Write flip_pairs: by_name, or list the pairs; [] where a mirror image exchanges no names.",
                )
            if config.get("flip_pairs") != "by_name":
                return pairs("flip_pairs")
            if alone or not found:
                reason = f"these have no partner: {', '.join(alone)}" if alone else "no name contains left or right"
                raise fail(
                    f"'flip_pairs: by_name' pairs names that differ in left and right only, but {reason}",
                    "List the pairs: flip_pairs: [[name, name], …]; [] where a mirror image exchanges no names.",
                )
            return found

        flip = list(range(len(names)))
        for a, b in mirrored():
            if a == b or flip[a] != a or flip[b] != b:
                raise fail(
                    f"'flip_pairs' uses {names[a]} or {names[b]} twice", "A keypoint has one mirror image at most."
                )
            flip[a], flip[b] = b, a
        sigmas, source = config.get("sigmas"), str(config.get("sigma_source") or "").strip()
        if isinstance(sigmas, str):
            if sigmas != "uniform":
                raise fail(f"sigmas is '{sigmas}'", "Write sigmas: uniform, or one sigma per keypoint.")
            if source:
                raise fail(
                    "it has 'sigmas: uniform' and a 'sigma_source'",
                    "Leave the source out: uniform sigmas state their own.",
                )
            sigmas, source = [UNIFORM_SIGMA] * len(names), UNIFORM_SOURCE
        if sigmas is None or len(sigmas) != len(names):
            got = "none" if sigmas is None else str(len(sigmas))
            raise fail(
                f"it has {len(names)} keypoints but {got} sigmas",
                "Give one sigma per keypoint under 'sigmas', and state their source under 'sigma_source'; or start with "
                "sigmas: uniform.",
            )
        if not all(float(s) > 0 for s in sigmas):
            raise fail(
                "a sigma is not positive", "Sigmas are positive falloffs of OKS, such as 0.025 for an eye of coco17."
            )
        if not source:
            raise fail("'sigma_source' is empty", "State where the sigmas come from; scores depend on them.")
        return cls(name, names, tuple(pairs("edges")), tuple(flip), tuple(float(s) for s in sigmas), source)

    def as_config(self) -> dict[str, Any]:
        """The content of ``conf/skeleton/*.yaml`` of which ``from_config`` makes this skeleton."""
        swapped = [(i, j) for i, j in enumerate(self.flip) if i < j]
        return {
            "name": self.name,
            "keypoints": list(self.keypoints),
            "edges": [[self.keypoints[i], self.keypoints[j]] for i, j in self.edges],
            "flip_pairs": [[self.keypoints[i], self.keypoints[j]] for i, j in swapped],
            "sigmas": list(self.sigmas),
            "sigma_source": self.sigma_source,
        }

    def index(self, keypoint: str) -> int:
        """Index of a keypoint by name."""
        try:
            return self.keypoints.index(keypoint)
        except ValueError:
            raise ConfigError(
                f"skeleton '{self.name}' has no keypoint '{keypoint}'. Known: {', '.join(self.keypoints)}."
            ) from None

    @property
    def sigma_array(self) -> np.ndarray:
        """(K,) float64 sigmas."""
        return np.asarray(self.sigmas, dtype=np.float64)

    @property
    def flip_array(self) -> np.ndarray:
        """(K,) int64 permutation of a mirror image."""
        return np.asarray(self.flip, dtype=np.int64)


def left_right_pairs(names: Sequence[str]) -> tuple[list[tuple[int, int]], list[str]]:
    """Pair names that are equal after left and right are exchanged.

    Returns:
        pairs of indices, the left one first; and the names that contain left or right but have no partner.

    >>> left_right_pairs(["nose", "left_ear", "right_ear", "RightPaw", "LeftPaw", "leftover"])
    ([(1, 2), (4, 3)], ['leftover'])
    """
    swap = {"left": "right", "right": "left", "Left": "Right", "Right": "Left", "LEFT": "RIGHT", "RIGHT": "LEFT"}
    index = {name: i for i, name in enumerate(names)}
    found, alone = [], []
    for i, name in enumerate(names):
        other = re.sub("|".join(swap), lambda match: swap[match.group()], name)
        if other == name:
            continue
        if other not in index:
            alone.append(name)
        elif re.findall("left|right", name.lower())[0] == "left":
            found.append((i, index[other]))
    return found, alone
