"""Collects images and instances one by one, as most readers find them, and makes Labels of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from kplab.data.formats._files import image_sizes
from kplab.data.images import is_file_name
from kplab.data.reading import check_copies, check_extents, labels_from, match_keypoints, some
from kplab.data.sources.files import FileSource
from kplab.errors import DataError
from kplab.structures.labels import Extras, Labels
from kplab.structures.skeleton import Skeleton

LARGEST = 1e7
"""Pixels: no image is as large, so that a coordinate beyond it is an error."""


class Builder:
    """Labels in the making.

    Args:
        skeleton: names of the K keypoints.
        where: the file or folder that is read, for messages.
    """

    def __init__(self, skeleton: Skeleton, where: Path) -> None:
        self.skeleton, self.where = skeleton, where
        self.notes: Counter[str] = Counter()
        self.remarks: list[str] = []
        self.classes: set[int] = set()
        self._names: list[str] = []
        self._sizes: list[tuple[int, int] | None] = []
        self._groups: list[str] = []
        self._image_of: list[int] = []
        self._columns: dict[str, list[np.ndarray]] = {"xy": [], "visible": [], "box": []}
        self._area: list[float] = []
        self._track: list[int] = []
        self._crowd: list[bool] = []

    def check_names(self, found: Iterable[str], rename: Mapping[str, str] | None = None) -> None:
        """Refuse names of points that are not keypoints of the skeleton, and note keypoints that no point has.

        For formats that state no list of names, but the name of each labelled point.
        """
        listed = [*dict.fromkeys((rename or {}).get(name, name) for name in found)]
        if any(name not in self.skeleton.keypoints for name in listed):
            match_keypoints(listed, self.skeleton, str(self.where))
        absent = [name for name in self.skeleton.keypoints if name not in listed]
        self.remarks += [f"no subject has these keypoints labelled: {some(absent)}"] if absent else []

    def image(self, name: str, size: tuple[int, int] | None = None, group: str | None = None) -> int:
        """Add an image; returns its index.

        Args:
            name: path relative to the folder of images.
            size: width and height, pixels; None: read from the file.
            group: None: the image itself.
        """
        if not is_file_name(name) or not name.strip("./ "):
            raise DataError(f"{self.where}: '{name}' can't be the name of an image. Write the path of the image file.")
        if size is not None and not all(0 < side < LARGEST for side in size):
            raise DataError(f"{self.where}: image {name} has the size {size}. Write its width and height in pixels.")
        self._names.append(name)
        self._sizes.append(size)
        self._groups.append(name if group is None else group)
        return len(self._names) - 1

    def instance(
        self,
        image: int,
        xy: np.ndarray,
        visible: np.ndarray | None = None,
        box: np.ndarray | Sequence[float] | None = None,
        area: float = float("nan"),
        track: int = -1,
        crowd: bool = False,
    ) -> None:
        """Add a subject.

        Args:
            image: index of its image.
            xy: (K, 2) continuous pixels in the skeleton's order; NaN where unlabelled.
            visible: (K,) 0, 1 or 2; None: 2 where xy is finite.
            box: xyxy, continuous pixels; None where it has none.
            area: pixels**2; NaN where unknown.
            track: -1 where it has none.
            crowd: many subjects in one box.

        Raises:
            DataError: a coordinate is infinite or beyond any image, x is there without y, or a box has no area.
        """
        xy = np.asarray(xy, dtype=np.float64)
        name = self._names[image]
        half = np.isnan(xy[:, 0]) != np.isnan(xy[:, 1])
        with np.errstate(invalid="ignore"):
            beyond = np.isinf(xy).any(1) | (np.abs(xy) > LARGEST).any(1)
        if half.any() or beyond.any():
            listed = some(self.skeleton.keypoints[i] for i in np.flatnonzero(half | beyond))
            raise DataError(f"{self.where}: image {name}: x or y is missing or is no pixel: {listed}. Correct these.")
        corners = np.full(4, np.nan) if box is None else np.asarray(box, dtype=np.float64)
        if box is not None and not (np.abs(corners) < LARGEST).all():
            raise DataError(f"{self.where}: image {name}: a box is {list(box)}, which are no pixels. Correct it.")
        if box is not None and not (corners[2:] > corners[:2]).all():
            self.notes["boxes without a width or height are made from the keypoints"] += 1
            corners[:] = np.nan
        if not -1 <= track < 2**62:
            raise DataError(
                f"{self.where}: image {name}: the track {track} is no number of a track. Number them from 0."
            )
        self._image_of.append(image)
        self._columns["xy"].append(xy)
        self._columns["visible"].append(np.where(np.isfinite(xy[:, 0]), 2 if visible is None else visible, 0))
        self._columns["box"].append(corners)
        self._area.append(area if 0 < area < LARGEST**2 else float("nan"))
        self._track.append(track)
        self._crowd.append(crowd)

    def labels(
        self,
        root: Path,
        files: Sequence[Path],
        *,
        box_margin: float = 1.2,
        allow_outside: bool = False,
        extras: Extras | None = None,
        notes: Sequence[str] = (),
    ) -> Labels:
        """The Labels, after the checks that all formats share.

        Args:
            root: folder of the images.
            files: that were read.
            box_margin: factor on the extent of the keypoints that makes a missing box.
            allow_outside: allow names of images that lead out of the folder.
            extras: for the format's writer.
            notes: further remarks.
        """
        if not self._names:
            raise DataError(f"{self.where}: it names no image. Choose the file or folder with the labels.")
        doubled = [name for name, count in Counter(self._names).items() if count > 1]
        if doubled:
            raise DataError(f"{self.where}: images are listed twice: {some(doubled)}. Keep one entry for each.")
        source = FileSource(root, self._names, allow_outside)
        unknown = [i for i, size in enumerate(self._sizes) if size is None]
        if unknown:
            found = image_sizes(root, [self._names[i] for i in unknown])
            for i, size in zip(unknown, found.tolist(), strict=True):
                self._sizes[i] = tuple(size)  # type: ignore[assignment]
        size = np.array(self._sizes, dtype=np.int64).reshape(-1, 2)
        n, k = len(self._image_of), len(self.skeleton)
        xy = np.array(self._columns["xy"], dtype=np.float64).reshape(n, k, 2)
        visible = np.array(self._columns["visible"], dtype=np.int64).reshape(n, k)
        box = np.array(self._columns["box"], dtype=np.float64).reshape(n, 4)
        area, image_of = np.array(self._area, dtype=np.float64), np.array(self._image_of, dtype=np.int64)
        ids, counted = np.arange(1, n + 1), (visible > 0).any(1) & ~np.array(self._crowd, dtype=bool)
        where = str(self.where)
        said = self.remarks + [f"{count} {text}" for text, count in self.notes.items()]
        said += check_extents(where, ids, box, area, size[image_of], counted)
        said += check_copies(where, ids, image_of, np.nan_to_num(xy), visible, counted)
        return labels_from(
            self.skeleton,
            source,
            np.arange(1, len(size) + 1),
            size,
            self._groups,
            xy,
            visible,
            image_of,
            ids,
            box=box if np.isfinite(box).any() else None,
            area=area if np.isfinite(area).any() else None,
            box_margin=box_margin,
            crowd=np.array(self._crowd, dtype=bool),
            track=np.array(self._track, dtype=np.int64),
            notes=[*notes, *said],
            extras=extras,
            files=files,
        )
