"""What the rules check: one split of a dataset, with what several rules need, computed once when it is first asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from kplab.data.check.appearance import NUMBERS, describe
from kplab.data.check.chirality import (
    appearance_features,
    decided,
    log_odds,
    mirror_pairs,
    pair_features,
    whole_features,
)
from kplab.data.check.finding import Finding
from kplab.data.check.matching import Matched, matched, sided_odds
from kplab.data.check.order import best_order
from kplab.data.check.shape import Shape, angle_deviations, closest, energy, misplacement
from kplab.data.check.tails import upper_limit
from kplab.data.damage import find_damaged
from kplab.data.fingerprints import fingerprint
from kplab.data.images import few_bits, read_header
from kplab.errors import DataError
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses

#: Passes items on and shows that they are done: (items, number, what is done).
Track = Callable[[Iterable[Any], int, str], Iterable[Any]]

TRIED = 500
"""Subjects whose keypoints are tried in another order, at most."""

CHUNK = 20_000_000
"""Numbers that a step of the statistics holds at a time."""


@dataclass(frozen=True)
class Look:
    """What one image is like.

    Args:
        size: (width, height); None where it can't be read.
        orientation: of EXIF; 1 is upright.
        missing: whether there is no such file.
        fault: why it can't be read; "".
        bits: how many of 16 bits are used, where few.
        digest: SHA-256 of the file, or of the pixels where it is not a file; None unless pixels were read.
        print: hash and thumbnail (``data.fingerprints``); None unless pixels were read.
        patches: (n, K, 6) ``appearance.describe`` of the image's instances; None unless pixels were read.
    """

    size: tuple[int, int] | None = None
    orientation: int = 1
    missing: bool = False
    fault: str = ""
    bits: int | None = None
    digest: bytes | None = None
    print: tuple[int, np.ndarray] | None = None
    patches: np.ndarray | None = None


def look(labels: Labels, i: int, deep: bool) -> Look:
    """Read the header of image i, or all of it."""
    path = labels.path(i)
    size, orientation, digest, found, patches = None, 1, None, None, None
    try:
        if path is not None:
            size, orientation = read_header(path)
        if deep or path is None:
            pixels = labels.read(i)
            size = (pixels.shape[1], pixels.shape[0])
            digest = hashlib.sha256(pixels.tobytes() if path is None else path.read_bytes()).digest()
            found = fingerprint(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
            patches = describe(pixels, labels.poses.xy[labels.start[i] : labels.start[i + 1]])
    except DataError as error:
        missing = path is not None and not path.is_file()
        return Look(missing=missing, fault=str(error).removeprefix(f"{path}: "))
    return Look(size, orientation, False, "", few_bits(path) if path is not None else None, digest, found, patches)


@dataclass
class Dataset:
    """All splits of a dataset.

    Args:
        labels: by split.
        deep: read every pixel, in threads, rather than headers only.
        max_poses: largest number of poses in one image, where a head is limited.
        predictions: by split: image id to predicted poses, of models that have not been trained on these images.
        track: shows progress.
    """

    labels: Mapping[str, Labels]
    deep: bool = True
    max_poses: int | None = None
    predictions: Mapping[str, Mapping[int, Poses]] = field(default_factory=dict)
    track: Track = lambda items, _total, _what: items

    @cached_property
    def splits(self) -> dict[str, Checked]:
        """What the rules receive, in order."""
        return {name: Checked(name, labels, self) for name, labels in self.labels.items()}

    @cached_property
    def xy(self) -> np.ndarray:
        """(N, K, 2) keypoints of the counted instances of all splits."""
        return np.concatenate([s.labels.poses.xy[s.counted] for s in self.splits.values()])

    @cached_property
    def shape(self) -> Shape:
        """Statistics of distances between keypoints, over all splits."""
        return Shape.fit(self.xy)

    @cached_property
    def misplaced(self) -> np.ndarray:
        """(N, K) ``misplacement`` of every counted instance."""
        return self._chunks(lambda xy: misplacement(self.shape.deviations(xy)))

    @cached_property
    def energy(self) -> np.ndarray:
        """(N,) ``energy`` of every counted instance."""
        return self._chunks(lambda xy: energy(self.shape.deviations(xy)))

    @cached_property
    def edge_z(self) -> np.ndarray:
        """(N, E) deviation of the length of every edge."""
        edges = np.array(self.skeleton_edges, dtype=np.int64).reshape(-1, 2)
        return self._chunks(lambda xy: self.shape.deviations(xy)[:, edges[:, 0], edges[:, 1]])

    @property
    def skeleton_edges(self) -> tuple[tuple[int, int], ...]:
        """Edges of the skeleton that all splits share."""
        return next(iter(self.labels.values())).skeleton.edges

    @cached_property
    def angle_z(self) -> tuple[np.ndarray, np.ndarray]:
        """(J, 3) keypoints a, b, c of two edges that meet at b, and (N, J) deviation of their angle.

        Only angles whose scale over the dataset is below ``STEADY_ANGLE`` are among them.
        """
        return angle_deviations(self.xy, self.sizes, self.skeleton_edges)

    @cached_property
    def orders(self) -> dict[int, np.ndarray]:
        """Index of a counted instance to the order in which its points fit the others, where that is another one.

        Only instances of unusual ``energy`` are tried, ``TRIED`` at most, the most unusual first.
        """
        if not np.isfinite(self.energy).any():
            return {}
        median, ninth = np.nanquantile(self.energy, [0.5, 0.9])
        outlier = upper_limit(self.energy)
        suspects = np.flatnonzero(self.energy > min(outlier, 2 * ninth))
        found = {}
        for i in suspects[np.argsort(-self.energy[suspects])][:TRIED]:
            order, value = best_order(self.xy[i], self.shape)
            if value < (ninth if self.energy[i] > outlier else median):
                found[int(i)] = order
        return found

    @cached_property
    def closest(self) -> np.ndarray:
        """(K, K) ``closest`` distance of each pair of keypoints, relative to the size of the subject."""
        return closest(self.xy, self.sizes)

    @cached_property
    def resolution(self) -> float:
        """Step of the grid that all positions lie on, pixels: 1 for integers, 0.001 at least."""
        known = self.xy[np.isfinite(self.xy)]
        return 1 / max(1, len(np.unique(np.round(known % 1, 3) % 1)))

    @cached_property
    def sizes(self) -> np.ndarray:
        """(N,) size of every counted instance, pixels."""
        return self._chunks(self.shape.sizes)

    @cached_property
    def whole_odds(self) -> np.ndarray:
        """(N,) log odds that left and right of the whole subject are correct rather than exchanged."""
        flip = next(iter(self.labels.values())).skeleton.flip
        if not len(mirror_pairs(flip)):
            return np.full(len(self.xy), np.nan)
        return log_odds(whole_features(self.xy, flip))

    @cached_property
    def pair_odds(self) -> np.ndarray:
        """(N, P) log odds that the names of each mirror pair alone are correct."""
        flip = next(iter(self.labels.values())).skeleton.flip
        pairs = mirror_pairs(flip)
        if len(pairs) < 2:
            return np.full((len(self.xy), len(pairs)), np.nan)
        return np.stack([log_odds(pair_features(self.xy, flip, p)) for p in range(len(pairs))], axis=1)

    @cached_property
    def appearance(self) -> np.ndarray:
        """(N,) log odds that left and right of the whole subject are correct, by what the pairs look like."""
        flip = next(iter(self.labels.values())).skeleton.flip
        patches = np.concatenate([s.patches[s.counted] for s in self.splits.values()])
        return decided(log_odds(appearance_features(patches, flip)))

    def _chunks(self, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """A function of all counted instances, a part of them at a time."""
        step = max(1, CHUNK // max(1, self.xy.shape[1] ** 2 * 4))
        parts = [function(self.xy[i : i + step]) for i in range(0, len(self.xy), step)]
        return np.concatenate(parts) if parts else function(self.xy)


@dataclass
class Checked:
    """One split, as the rules receive it.

    Args:
        name: of the split.
        labels: its images and instances.
        dataset: all splits.
    """

    name: str
    labels: Labels
    dataset: Dataset

    @cached_property
    def counted(self) -> np.ndarray:
        """(N,) bool: instances that are labelled and not ignored; statistics are about them."""
        p = self.labels.poses
        return p.labelled.any(1) & ~p.ignore

    @cached_property
    def image_of(self) -> np.ndarray:
        """(N,) index of the image of each instance."""
        return self.labels.image_of()

    def of_instances(self, values: np.ndarray, missing: float = np.nan) -> np.ndarray:
        """Rows of this split of an array about the counted instances of all splits, for all instances of the split."""
        before = 0
        for other in self.dataset.splits.values():
            if other is self:
                break
            before += int(other.counted.sum())
        out = np.full((len(self.counted), *values.shape[1:]), missing)
        out[self.counted] = values[before : before + int(self.counted.sum())]
        return out

    def at(
        self,
        i: int | np.integer,
        keypoint: int | None = None,
        text: str = "",
        value: float | None = None,
        expected: float | None = None,
        fix: str = "",
    ) -> Finding:
        """A finding about instance i, or one of its keypoints."""
        return Finding(int(self.image_of[i]), int(i), keypoint, text, value, expected, fix)

    @cached_property
    def earlier(self) -> dict[str, Checked]:
        """The splits before this one; a rule that compares splits yields each pair once."""
        names = list(self.dataset.splits)
        return {name: self.dataset.splits[name] for name in names[: names.index(self.name)]}

    @cached_property
    def looks(self) -> list[Look]:
        """One Look an image, read in threads."""
        n, deep = len(self.labels), self.dataset.deep
        with ThreadPoolExecutor() as pool:
            found = pool.map(lambda i: look(self.labels, i, deep), range(n))
            return list(self.dataset.track(found, n, f"checking images of {self.name}"))

    @cached_property
    def patches(self) -> np.ndarray:
        """(N, K, 6) ``appearance.describe`` of every instance, NaN where pixels were not read."""
        p, start = self.labels.poses, self.labels.start
        out = np.full((*p.visible.shape, NUMBERS), np.nan, dtype=np.float32)
        if self.dataset.deep:
            for i, seen in enumerate(self.looks):
                if seen.patches is not None:
                    out[start[i] : start[i + 1]] = seen.patches
        return out

    @cached_property
    def damaged(self) -> dict[int, str]:
        """Image index to what the JPEG decoder remarks; only if pixels are read."""
        if not self.dataset.deep:
            return {}
        paths = {path: i for i in range(len(self.labels)) if (path := self.labels.path(i)) is not None}
        return {paths[path]: text for path, text in find_damaged(list(paths)).items()}

    @cached_property
    def frame(self) -> np.ndarray:
        """(I,) position of each image among those of its group, in the natural order of the names."""
        from kplab.data.split import frames_in_order

        out = np.zeros(len(self.labels), dtype=np.int64)
        for rows in frames_in_order(self.labels).values():
            out[rows] = np.arange(len(rows))
        return out

    @cached_property
    def predictions(self) -> Mapping[int, Poses]:
        """Image id to predicted poses of this split; empty without any."""
        return self.dataset.predictions.get(self.name, {})

    @cached_property
    def matched(self) -> Matched:
        """Predictions beside the instances of this split."""
        return matched(self)

    @cached_property
    def predicted_odds(self) -> np.ndarray:
        """(N,) log odds that left and right of each instance are correct, by its prediction; NaN where unknown."""
        return sided_odds(self, self.matched)
