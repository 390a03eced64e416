"""What is kept in mind of training views: evenly thinned where there is too much, and ready to be compared with."""

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
    """Every 2**j-th of what it is given, with the least j at which it holds at most so many: even, and bounded."""

    def __init__(self, most: int) -> None:
        self.most, self.step, self.seen = most, 1, 0
        self.kept: list[T] = []

    def add(self, items: Iterable[T]) -> None:
        """Take note of some more."""
        for item in items:
            if self.seen % self.step == 0:
                self.kept.append(item)
            self.seen += 1
            if len(self.kept) > self.most:
                self.kept, self.step = self.kept[::2], 2 * self.step


@dataclass
class Recall:
    """The memory as arrays, once a batch."""

    own: np.ndarray  # (F, 128) RootSIFT of subjects
    ground: np.ndarray  # (G, 128) of the background
    named: np.ndarray  # (M, K, 128) of keypoints
    place: np.ndarray  # (F, 2) frames of the features in their subject's frame
    owner: np.ndarray  # (F,) rows of keypoints
    own_view: np.ndarray  # (F,)
    ground_view: np.ndarray  # (G,)
    view: np.ndarray  # (M,)
    frame: np.ndarray  # (M, 2) of subjects, in their view
    keypoints: np.ndarray  # (M, K) in their subject's frame; NaN where unlabelled
    shape: np.ndarray  # (K,) the mean one
    usual: np.ndarray  # (1 + K,) support
    sizes: tuple[float, float]  # least and largest, pixels

    @classmethod
    def of(cls, memory: dict[str, Tensor]) -> Recall:
        """The buffers of an ``Exemplar``, by their names."""
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


def belongs(place: np.ndarray, z: np.ndarray, links: np.ndarray, reach: float) -> np.ndarray:
    """Which features are a subject's.

    Args:
        place: (F,) complex, pixels.
        z: (K,) complex keypoints; NaN where unlabelled.
        links: (L, 2) pairs of keypoints: edges, and each keypoint with itself.
        reach: pixels.

    Returns:
        (F,) bool: within reach of a keypoint or an edge.
    """
    start, end = z[links].T
    known = np.isfinite(start) & np.isfinite(end)
    start, along = start[known], (end - start)[known]
    share = ((place[:, None] - start) * along.conj()).real / np.maximum(np.abs(along) ** 2, 1e-12)
    foot = start + np.clip(share, 0, 1) * along
    return (np.abs(place[:, None] - foot) <= reach).any(1)


def free(seen: Features, poses: Poses, shape: np.ndarray, links: np.ndarray, reach: float) -> np.ndarray:
    """Which features are nobody's. What the box of an ignored instance shows is not known to be.

    Args:
        seen: F features of a view.
        poses: all its true poses.
        shape: (K,) mean shape.
        links: as of ``belongs``.
        reach: sizes of the subject.

    Returns:
        (F,) bool.
    """
    place = seen.frame[:, 1]
    out = np.ones(len(seen), dtype=bool)
    some = poses[np.flatnonzero(poses.labelled.any(1))]
    for z in as_complex(some.xy):
        out &= ~belongs(place, z, links, reach * abs(fitted(shape, z[None])[0, 0]))
    for x0, y0, x1, y1 in poses.box[poses.ignore]:
        out &= ~((place.real >= x0) & (place.real < x1) & (place.imag >= y0) & (place.imag < y1))
    return out


def views(batches: Iterable[Batch]) -> Iterator[tuple[int, np.ndarray, Poses]]:
    """Number, (H, W, 3) uint8 image and poses of each view of some batches."""
    number = 0
    for batch in batches:
        for image, poses in zip(pictures(batch), batch.poses, strict=True):
            yield number, image, poses
            number += 1


def pictures(batch: Batch) -> list[np.ndarray]:
    """(H, W, 3) uint8 images of a batch."""
    return [np.ascontiguousarray(image) for image in batch.images.permute(0, 2, 3, 1).cpu().numpy()]


def stacked(rows: list[Any], shape: tuple[int, ...], kind: Any) -> Tensor:
    """Rows as one tensor, also where there are none."""
    return torch.from_numpy(np.array(rows, dtype=kind).reshape(len(rows), *shape))
