"""The memory of an ``Exemplar``: evenly subsampled training features, and the arrays that they are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from kplab.classical.frames import Features, root
from kplab.classical.voting import as_complex, fitted, inverse
from kplab.structures.poses import Poses
from kplab.structures.sample import Batch

T = TypeVar("T")


class Thinned(Generic[T]):
    """An evenly subsampled list of bounded length: it keeps every 2**j-th item, with the smallest j that is sufficient."""

    def __init__(self, limit: int) -> None:
        self.limit, self.step, self.seen = limit, 1, 0
        self.kept: list[T] = []

    def add(self, items: Iterable[T]) -> None:
        """Add items, of which some are kept."""
        for item in items:
            if self.seen % self.step == 0:
                self.kept.append(item)
            self.seen += 1
            if len(self.kept) > self.limit:
                self.kept, self.step = self.kept[::2], 2 * self.step


@dataclass
class Recall:
    """The memory of an ``Exemplar`` as NumPy arrays, made once per batch."""

    own: np.ndarray  # (F, 128) RootSIFT descriptors of features on subjects
    ground: np.ndarray  # (G, 128) RootSIFT descriptors of features of the background
    named: np.ndarray  # (M, K, 128) RootSIFT descriptors at the keypoints of M exemplars
    place: np.ndarray  # (F, 2) frames of the features in their subject's frame
    owner: np.ndarray  # (F,) exemplar of each feature: a row of keypoints
    own_view: np.ndarray  # (F,) training view of each feature on a subject
    ground_view: np.ndarray  # (G,) training view of each feature of the background
    view: np.ndarray  # (M,) training view of each exemplar
    frame: np.ndarray  # (M, 2) frames of the exemplars in their view
    keypoints: np.ndarray  # (M, K) keypoints in their subject's frame; NaN where unlabelled
    shape: np.ndarray  # (K,) mean shape
    usual: np.ndarray  # (1 + K,) support at which a score is 0.5: of a subject, and of each keypoint
    sizes: tuple[float, float]  # smallest and largest size of the exemplars, pixels

    @classmethod
    def of(cls, memory: dict[str, Tensor]) -> Recall:
        """From the buffers of an ``Exemplar``, by name."""
        m = {name: value.cpu().numpy() for name, value in memory.items()}
        to_own = inverse(m["frame"])
        size = np.abs(m["frame"][:, 0])
        return cls(
            own=root(m["descriptor"]),
            ground=root(m["ground"]),
            named=root(m["named"]),
            place=m["place"],
            owner=m["owner"],
            own_view=m["view"][m["owner"]],
            ground_view=m["ground_view"],
            view=m["view"],
            frame=m["frame"],
            keypoints=to_own[:, :1] * m["pose"] + to_own[:, 1:],
            shape=m["shape"],
            usual=m["usual"],
            sizes=(float(size.min(initial=np.inf)), float(size.max(initial=0.0))),
        )


def belongs(place: np.ndarray, z: np.ndarray, links: np.ndarray, distance: float) -> np.ndarray:
    """Mask of the features that belong to a subject.

    Args:
        place: (F,) complex, pixels.
        z: (K,) complex keypoints; NaN where unlabelled.
        links: (L, 2) pairs of keypoints: edges, and each keypoint with itself.
        distance: pixels.

    Returns:
        (F,) bool: within the distance of a keypoint or an edge.
    """
    start, end = z[links].T
    known = np.isfinite(start) & np.isfinite(end)
    start, along = start[known], (end - start)[known]
    share = ((place[:, None] - start) * along.conj()).real / np.maximum(np.abs(along) ** 2, 1e-12)
    foot = start + np.clip(share, 0, 1) * along
    return (np.abs(place[:, None] - foot) <= distance).any(1)


def in_background(seen: Features, poses: Poses, shape: np.ndarray, links: np.ndarray, distance: float) -> np.ndarray:
    """Mask of the features of the background; features in the box of an ignored instance are not background.

    Args:
        seen: F features of a view.
        poses: all true poses of the view.
        shape: (K,) mean shape.
        links: see ``belongs``.
        distance: from a keypoint or an edge to the background, sizes of the subject.

    Returns:
        (F,) bool.
    """
    place = seen.frame[:, 1]
    out = np.ones(len(seen), dtype=bool)
    some = poses[np.flatnonzero(poses.labelled.any(1))]
    for z in as_complex(some.xy):
        out &= ~belongs(place, z, links, distance * abs(fitted(shape, z[None])[0, 0]))
    for x0, y0, x1, y1 in poses.box[poses.ignore]:
        out &= ~((place.real >= x0) & (place.real < x1) & (place.imag >= y0) & (place.imag < y1))
    return out


def views(batches: Iterable[Batch]) -> Iterator[tuple[int, np.ndarray, Poses]]:
    """Yield the number, (H, W, 3) uint8 image and poses of each view."""
    number = 0
    for batch in batches:
        for image, poses in zip(images_of(batch), batch.poses, strict=True):
            yield number, image, poses
            number += 1


def images_of(batch: Batch) -> list[np.ndarray]:
    """(H, W, 3) uint8 images of a batch."""
    return [np.ascontiguousarray(image) for image in batch.images.permute(0, 2, 3, 1).cpu().numpy()]


def stacked(rows: list[Any], shape: tuple[int, ...], kind: Any) -> Tensor:
    """Rows as one tensor of the right shape, also where there are none."""
    return torch.from_numpy(np.array(rows, dtype=kind).reshape(len(rows), *shape))
