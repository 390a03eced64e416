"""Recognition of objects by memory: which of several remembered objects is in a picture, where, or is it none of them?

SIFT features of one or a few pictures of each object are stored. A feature of a new picture votes for the object whose
stored features contain the most similar one, with the weight

    w = 2 (s - max(s_other, 1 - max_distance**2 / 2))    where that is positive

s is the cosine similarity of the RootSIFT descriptors, s_other the highest one to other objects and to the background. Each
vote implies a similarity map from the object to the picture. The support of an object is the weight of the votes that agree
about this map (see ``voting``). A score of 0.5 is above the support that wrong objects get in nearly all distractors, and in
the remembered pictures without the memory of their own object. The outline is mapped by a homography between the features
that agree.

Sources: Lowe 2004 and McCann & Lowe 2012, see ``exemplar``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
import pandas as pd

from kplab.classical import changes
from kplab.classical.frames import Features, features, root
from kplab.classical.voting import Votes, as_complex, as_points, compose, fitted, inverse, mean_shape, peak
from kplab.errors import DataError, ModelError
from kplab.structures.image_source import ImageSource

UNKNOWN = "unknown"
#: Change at which objects are to be recognised in the calibration: of the viewpoint, degrees, and of the size.
CALIBRATION_TILT, CALIBRATION_SCALE = 35.0, 0.5
#: Support at a score of 0.5: of the limit by ``false_alarms``, and at least of the median support in changed pictures.
ABOVE_FALSE, LEAST_SHARE = 2.0, 0.05
#: Features that agree and are needed for a homography, and its largest error, shares of the object's size. With fewer the
#: outline is mapped by the similarity of the votes.
MIN_PAIRS, PAIR_ERROR = 8, 0.01


@dataclass(frozen=True)
class Found:
    """An object in a picture.

    Args:
        name: of the object.
        score: in [0, 1); 0.5 or more is recognised.
        support: weight of the votes that agree.
        matches: number of the picture's features that agree.
        outline: (P, 2) of the remembered picture's outline, pixels of the picture.
    """

    name: str
    score: float
    support: float
    matches: int
    outline: np.ndarray


@dataclass(frozen=True)
class ObjectMemory:
    """Features of remembered objects; ``ObjectMemory.learn`` makes it.

    Args:
        names: of the O objects.
        view_object: (V,) int64 object of each remembered picture.
        outline: (V, P) complex outline of the object in each picture, in the object's frame: centroid 0, RMS distance 1.
        descriptor: (F, 128) uint8 SIFT descriptors of the objects, ordered by object.
        place: (F, 2) complex frames of these features in the object's frame.
        view: (F,) int64 picture of each feature.
        ground: (G, 128) uint8 descriptors of distractors.
        ground_image: (G,) int64 distractor of each.
        usual: support at a score of 0.5.
        contrast, points, max_distance, tolerance: as for ``learn``.
    """

    names: tuple[str, ...]
    view_object: np.ndarray
    outline: np.ndarray
    descriptor: np.ndarray
    place: np.ndarray
    view: np.ndarray
    ground: np.ndarray
    ground_image: np.ndarray
    usual: float
    contrast: float
    points: int
    max_distance: float
    tolerance: float

    @classmethod
    def learn(
        cls,
        objects: Mapping[str, Sequence[np.ndarray]],
        distractors: Sequence[np.ndarray] = (),
        outlines: Mapping[str, Sequence[np.ndarray]] | None = None,
        contrast: float = 0.01,
        points: int = 1000,
        max_distance: float = 0.8,
        tolerance: float = 0.4,
        false_alarms: float = 0.1,
    ) -> ObjectMemory:
        """Store the features of objects, and set the limit between known and unknown ones.

        Args:
            objects: name of each object to its pictures, (H, W, 3) uint8 RGB each.
            distractors: pictures without any of the objects, such as those to be expected; what is similar to them is no
                evidence of an object. With fewer than two objects at least one is needed.
            outlines: name to the outline of the object in each of its pictures, (P, 2) pixels; features outside are not
                stored. None: pictures show the object alone, and the outline is the border.
            contrast: SIFT's contrast threshold.
            points: largest number of SIFT points of a picture.
            max_distance: RootSIFT descriptors (of length 1) further apart than this don't match.
            tolerance: votes agree if the outlines that they draw are closer than this, in sizes of the object.
            false_alarms: share of the pictures without an object (distractors, and pictures of the others) whose largest
                support may exceed the limit. A score of 0.5 is at twice this limit; 0 is twice the largest.

        Raises:
            DataError: an object has no picture, its outlines are of another number, or no feature is found on it; or there
                is nothing to set the limit by.
        """
        if not objects or any(not len(pictures) for pictures in objects.values()) or UNKNOWN in objects:
            raise DataError(
                f"give one picture or more of each object, and names other than '{UNKNOWN}'; got {list(objects)}."
            )
        if len(objects) < 2 and not len(distractors):
            raise DataError(
                "one object alone sets no limit between known and unknown ones. Give distractors: pictures without it."
            )
        view_object: list[int] = []
        shapes: list[np.ndarray] = []
        parts: list[tuple[int, np.ndarray, np.ndarray]] = []
        for number, (name, pictures) in enumerate(objects.items()):
            drawn = [_border(p) for p in pictures] if outlines is None else list(outlines.get(name, ()))
            if len(drawn) != len(pictures):
                raise DataError(
                    f"object '{name}' has {len(pictures)} pictures, but {len(drawn)} outlines. Give one for each."
                )
            for picture, outline in zip(pictures, drawn, strict=True):
                corners = np.asarray(outline, dtype=np.float64)
                seen = features(picture, contrast, points)
                shape = mean_shape(as_complex(corners)[None])
                frame = fitted(shape, as_complex(corners)[None])[0]
                kept = _within(corners, as_points(seen.frame[:, 1]))
                if not kept.any():
                    raise DataError(
                        f"object '{name}': no SIFT feature is found on picture {len(shapes) - view_object.count(number)}, of "
                        f"size {picture.shape[1]}x{picture.shape[0]}. Give a sharper or larger picture, or a lower contrast."
                    )
                parts.append((len(shapes), seen.descriptor[kept], compose(inverse(frame), seen.frame[kept])))
                view_object.append(number)
                shapes.append(shape)
        longest = max(len(s) for s in shapes)
        # outlines of different lengths share one array: the last corner is repeated
        outline = np.array([np.pad(s, (0, longest - len(s)), mode="edge") for s in shapes])
        ground = [features(picture, contrast, points).descriptor for picture in distractors]
        memory = cls(
            tuple(objects), np.array(view_object), outline, np.concatenate([d for _, d, _ in parts]),
            np.concatenate([p for _, _, p in parts]), np.repeat([v for v, _, _ in parts], [len(d) for _, d, _ in parts]),
            np.concatenate([*ground, np.empty((0, 128), np.uint8)]),
            np.repeat(np.arange(len(ground)), [len(d) for d in ground]), 1.0, contrast, points, max_distance, tolerance,
        )  # fmt: skip
        return memory._calibrated([p for pictures in objects.values() for p in pictures], distractors, false_alarms)

    def __repr__(self) -> str:
        return (
            f"ObjectMemory({', '.join(self.names)}: {len(self.view_object)} pictures, {len(self.descriptor)} features)"
        )

    def recognise(self, image: np.ndarray) -> list[Found]:
        """All objects that get votes, by descending score. Those with a score of 0.5 or more are recognised.

        Args:
            image: (H, W, 3) uint8 RGB.
        """
        found = self._search(features(image, self.contrast, self.points))
        return sorted(found, key=lambda f: -f.score)

    def name_of(self, image: np.ndarray) -> str:
        """The object in a picture: the one of the highest score, or ``UNKNOWN``."""
        best = next(iter(self.recognise(image)), None)
        return best.name if best is not None and best.score >= 0.5 else UNKNOWN

    def table(self, source: ImageSource) -> pd.DataFrame:
        """The recognised objects of many pictures: file, object, score, matches; one row each, or one with ``UNKNOWN``."""
        rows = []
        for i in range(len(source)):
            found = [f for f in self.recognise(source.read(i)) if f.score >= 0.5]
            rows += [(source.name(i), f.name, f.score, f.matches) for f in found] or [
                (source.name(i), UNKNOWN, np.nan, 0)
            ]
        return pd.DataFrame(rows, columns=["file", "object", "score", "matches"])

    def write(self, path: Path) -> Path:
        """Write the memory as arrays of NumPy (.npz)."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(
                file, allow_pickle=False, **{name: np.asarray(value) for name, value in vars(self).items()}
            )
        return path

    @classmethod
    def read(cls, path: Path) -> ObjectMemory:
        """Read a memory; nothing in the file is executed.

        Raises:
            ModelError: it can't be read, or is no memory.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                m = {name: stored[name] for name in cls.__dataclass_fields__}
            numbers = {name: m[name].item() for name in ("usual", "contrast", "points", "max_distance", "tolerance")}
            return cls(**{**m, **numbers, "names": tuple(map(str, m["names"]))})
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise ModelError(
                f"{path}: no memory of objects ({error}). Write it again by ObjectMemory.write."
            ) from error

    def _search(self, seen: Features, without_object: int = -1, without_image: int = -1) -> list[Found]:
        """Objects by their votes, without the memory of one object, or of one distractor."""
        owner = self.view_object[self.view]
        starts = np.searchsorted(owner, np.arange(len(self.names)))
        query = root(seen.descriptor)
        similarity = query @ root(self.descriptor).T
        best = np.maximum.reduceat(similarity, starts, axis=1) if len(seen) else np.zeros((0, len(starts)))
        if without_object >= 0:
            best[:, without_object] = -1.0
        ground = root(self.ground[self.ground_image != without_image])
        rival = (query @ ground.T).max(1, initial=1 - self.max_distance**2 / 2)
        first = best.argmax(1)
        second = np.sort(best, axis=1)[:, -2] if best.shape[1] > 1 else rival
        weight = 2 * (best[np.arange(len(best)), first] - np.maximum(rival, second)).astype(np.float64)
        found = []
        for number, name in enumerate(self.names):
            rows = np.flatnonzero((first == number) & (weight > 1e-6))
            if not len(rows):
                continue
            end = starts[number + 1] if number + 1 < len(starts) else len(owner)
            match = starts[number] + similarity[rows, starts[number] : end].argmax(1)
            # a stored feature supports one place only: repeated texture matches it many times
            order = np.lexsort((rows, -weight[rows]))
            once = order[np.unique(match[order], return_index=True)[1]]
            rows, match = rows[once], match[once]
            maps = compose(seen.frame[rows], inverse(self.place[match]))
            votes = Votes(maps, weight[rows], rows, self.view[match], seen.frame[rows, 1])
            centre, agreement = peak(votes, self.tolerance)
            support = float((votes.weight * agreement).sum())
            outline = self._outlined(votes, match, agreement, centre)
            matches = len(np.unique(votes.source[agreement > 0]))
            found.append(Found(name, support / (support + self.usual), support, matches, outline))
        return found

    def _outlined(self, votes: Votes, match: np.ndarray, agreement: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """(P, 2) outline in the picture, by a homography of the features of the view with the most weight.

        It is fitted to those that agree about the similarity, and again to all that it explains, as parts of an object in
        perspective differ in scale.
        """
        view = int(np.bincount(votes.owner, votes.weight * agreement).argmax())
        own = votes.owner == view
        source, target = as_points(self.place[match[own], 1]), as_points(votes.place[own])
        used, limit = agreement[own] > 0, max(PAIR_ERROR * abs(centre[0]), 2.0)
        matrix = None
        for _ in range(3):
            if used.sum() < MIN_PAIRS:
                break
            matrix, _ = cv2.findHomography(source[used], target[used], cv2.RANSAC, limit)
            if matrix is None:
                break
            error = np.linalg.norm(cv2.perspectiveTransform(source[None], matrix)[0] - target, axis=-1)
            used = error < 2 * limit
        outline = self.outline[view]
        if matrix is None:
            return as_points(centre[0] * outline + centre[1])
        drawn: np.ndarray = cv2.perspectiveTransform(as_points(outline)[None], matrix)[0]
        return drawn

    def _calibrated(
        self, pictures: Sequence[np.ndarray], distractors: Sequence[np.ndarray], false_alarms: float
    ) -> ObjectMemory:
        """With the support at a score of 0.5, from pictures with and without the objects."""
        true, false = [], []
        for picture, number in zip(pictures, self.view_object.tolist(), strict=True):
            changed = changes.scale(changes.perspective(picture, CALIBRATION_TILT)[0], CALIBRATION_SCALE)[0]
            found = self._search(features(changed, self.contrast, self.points))
            true.append(max((f.support for f in found if f.name == self.names[number]), default=0.0))
            others = self._search(features(picture, self.contrast, self.points), without_object=number)
            false.append(max((f.support for f in others), default=0.0))
        for i, picture in enumerate(distractors):
            found = self._search(features(picture, self.contrast, self.points), without_image=i)
            false.append(max((f.support for f in found), default=0.0))
        whole, wrong = float(np.median(true)), float(np.quantile(false, 1 - false_alarms))
        if not whole > wrong:
            raise DataError(
                f"the objects can't be distinguished from others: their own support is {whole:.2f} (median), that of wrong objects "
                f"{wrong:.2f} or more in {false_alarms:.0%} of the pictures. Give pictures with more texture, larger ones, or outlines."
            )
        usual = max(ABOVE_FALSE * wrong, LEAST_SHARE * whole)
        return ObjectMemory(**{**vars(self), "usual": usual})


def _border(picture: np.ndarray) -> np.ndarray:
    """(4, 2) corners of a picture, pixels."""
    height, width = picture.shape[:2]
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)


def _within(corners: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(N,) bool of points (N, 2) in a polygon."""
    contour = corners.astype(np.float32).reshape(-1, 1, 2)
    return np.array([cv2.pointPolygonTest(contour, (float(x), float(y)), False) >= 0 for x, y in xy], dtype=bool)
