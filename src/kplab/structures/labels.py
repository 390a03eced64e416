"""Labels: every image of a dataset with its true poses, as columns, so that a hundred thousand images stay small."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton


@dataclass
class Labels:
    """Images and their labelled instances.

    Args:
        skeleton: the keypoints that ``poses`` are made of.
        root: folder that ``files`` are relative to.
        files: (I,) image paths relative to root, posix style; the name of an image in manifests and tables.
        image_id: (I,) int64, positive and unique.
        size: (I, 2) int64 (width, height), pixels.
        group: (I,) str: video, subject or whatever must stay on one side of a split; the file itself where there is none.
        poses: all instances of all images, source pixels, ordered by image.
        start: (I + 1,) int64: instances of image i are ``poses[start[i]:start[i + 1]]``.
        instance_id: (N,) int64, positive and unique.
        box_source: what the boxes are, e.g. "annotation" or "keypoint extent x 1.25".
        area_source: what the areas are, e.g. "segment", "annotation", "0.53 x box".
        crowd: (N,) bool: boxes around many subjects that nobody told apart (COCO's iscrowd); always ``ignore`` as well.
        notes: what the reader left out or changed, in words with counts; printed, never dropped in silence.
        extras: fields of the source file that kplab does not use, for lossless writing; None where not kept.
    """

    skeleton: Skeleton
    root: Path
    files: np.ndarray
    image_id: np.ndarray
    size: np.ndarray
    group: np.ndarray
    poses: Poses
    start: np.ndarray
    instance_id: np.ndarray
    box_source: str
    area_source: str
    crowd: np.ndarray
    notes: list[str] = field(default_factory=list)
    extras: Any = None

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        return (
            f"Labels({len(self)} images, {len(self.poses)} instances, skeleton {self.skeleton.name}, root {self.root})"
        )

    def path(self, i: int) -> Path:
        """Where image i lies."""
        return self.root / str(self.files[i])

    def poses_of(self, i: int) -> Poses:
        """The instances of image i, source pixels."""
        return self.poses[slice(int(self.start[i]), int(self.start[i + 1]))]

    def by_image(self) -> dict[int, Poses]:
        """Image id to its instances; images without any have an empty Poses."""
        return {int(image): self.poses_of(i) for i, image in enumerate(self.image_id)}

    def crowd_by_image(self) -> dict[int, np.ndarray]:
        """Image id to (M,) bool: which of its instances are crowds."""
        return {int(id_): self.crowd[self.start[i] : self.start[i + 1]] for i, id_ in enumerate(self.image_id)}

    def select(self, images: np.ndarray | list[int]) -> Labels:
        """Some of the images, by index, with their instances."""
        images = np.asarray(images, dtype=np.int64)
        counts = np.diff(self.start)[images]
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.repeat(self.start[images] - start[:-1], counts) + np.arange(int(start[-1]))
        return replace(
            self,
            files=self.files[images],
            image_id=self.image_id[images],
            size=self.size[images],
            group=self.group[images],
            poses=self.poses[rows],
            start=start,
            instance_id=self.instance_id[rows],
            crowd=self.crowd[rows],
            extras=None,
        )

    def digest(self) -> str:
        """SHA-256 of the labels and file names (not of the pixels): what a score card calls the hash of the truth."""
        h = hashlib.sha256()
        h.update("\n".join(self.skeleton.keypoints).encode())
        h.update("\n".join(str(f) for f in self.files).encode())
        p = self.poses
        for column in (self.image_id, self.start, p.visible, p.ignore, p.xy, p.box, p.area):
            h.update(np.ascontiguousarray(column).tobytes())
        return h.hexdigest()


def make_labels(
    skeleton: Skeleton,
    root: Path,
    files: list[str],
    image_id: np.ndarray,
    size: np.ndarray,
    group: list[str],
    poses: Poses,
    image_of: np.ndarray,
    instance_id: np.ndarray,
    crowd: np.ndarray | None = None,
    **more: Any,
) -> Labels:
    """Build Labels from instances in any order.

    Args:
        image_of: (N,) index into ``files`` of every instance.
        crowd: (N,) bool; None: none is.
        more: the other fields of Labels.
    """
    order = np.argsort(image_of, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(image_of, minlength=len(files)))]).astype(np.int64)
    return Labels(
        skeleton,
        Path(root),
        np.array(files, dtype=object),
        np.asarray(image_id, dtype=np.int64),
        np.asarray(size, dtype=np.int64).reshape(-1, 2),
        np.array(group, dtype=object),
        poses[order],
        start,
        np.asarray(instance_id, dtype=np.int64)[order],
        crowd=(np.zeros(len(poses), dtype=bool) if crowd is None else np.asarray(crowd, dtype=bool))[order],
        **more,
    )
