"""Labels: every image of a dataset with its true poses, as columns, so that a hundred thousand images stay small."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kplab.structures.image_source import ImageSource, Subset, path_of
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton


@dataclass
class Extras:
    """What a file holds besides labels, kept by the reader of a format for its writer, so that nothing is lost.

    Args:
        format: name of the format, e.g. "coco"; only its own writer uses the rest.
        head: what belongs to the file as a whole.
        image: image id to what the file holds about this image.
        instance: instance id to what the file holds about this instance.
    """

    format: str
    head: Any = None
    image: Mapping[int, Any] = field(default_factory=dict)
    instance: Mapping[int, Any] = field(default_factory=dict)

    def select(self, image_id: Iterable[int], instance_id: Iterable[int]) -> Extras:
        """The head, with the entries of these images and instances."""
        image = {int(i): self.image[int(i)] for i in image_id if int(i) in self.image}
        instance = {int(i): self.instance[int(i)] for i in instance_id if int(i) in self.instance}
        return Extras(self.format, self.head, image, instance)


@dataclass
class Labels:
    """Images and their labelled instances.

    Args:
        skeleton: the keypoints that ``poses`` are made of.
        source: the images; ``read(i)`` reads image i.
        image_id: (I,) int64, positive and unique.
        size: (I, 2) int64 (width, height), pixels.
        group: (I,) str: video, subject or whatever must stay in one part of a split; the image's name where there is none.
        poses: all instances of all images, source pixels, ordered by image.
        start: (I + 1,) int64: instances of image i are ``poses[start[i]:start[i + 1]]``.
        instance_id: (N,) int64, positive and unique.
        box_source: what the boxes are, e.g. "annotation" or "keypoint extent x 1.25".
        area_source: what the areas are, e.g. "segment", "annotation", "0.53 x box".
        crowd: (N,) bool: boxes around many subjects that were not labelled one by one (COCO's iscrowd); always ``ignore``.
        notes: what the reader left out or changed, with counts; printed by the verbs that read a dataset.
        extras: further fields of the file, for its writer; None where they are not kept.
        files: the files that the labels were read from.
    """

    skeleton: Skeleton
    source: ImageSource
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
    extras: Extras | None = None
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.image_id)

    def __repr__(self) -> str:
        return (
            f"Labels({len(self)} images, {len(self.poses)} instances, skeleton {self.skeleton.name}, "
            f"source {self.source})"
        )

    @cached_property
    def names(self) -> np.ndarray:
        """(I,) str: the name of each image in manifests, tables and messages."""
        return np.array([self.source.name(i) for i in range(len(self))], dtype=object)

    def read(self, i: int) -> np.ndarray:
        """Image i, (H, W, 3) uint8 RGB.

        Raises:
            DataError: it is missing or damaged.
        """
        return self.source.read(i)

    def path(self, i: int) -> Path | None:
        """The file of image i; None where the source does not keep each image in a file of its own."""
        return path_of(self.source, i)

    def where(self, i: int) -> str:
        """Image i in messages: its path, or its name where it is not a file."""
        return str(self.path(i) or self.names[i])

    def poses_of(self, i: int) -> Poses:
        """The instances of image i, source pixels."""
        return self.poses[slice(int(self.start[i]), int(self.start[i + 1]))]

    def image_of(self) -> np.ndarray:
        """(N,) int64: index of the image of each instance."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    def by_image(self) -> dict[int, Poses]:
        """Image id to its instances; images without any have an empty Poses."""
        return {int(image): self.poses_of(i) for i, image in enumerate(self.image_id)}

    def crowd_by_image(self) -> dict[int, np.ndarray]:
        """Image id to (M,) bool: which of its instances are crowds."""
        return {int(id_): self.crowd[self.start[i] : self.start[i + 1]] for i, id_ in enumerate(self.image_id)}

    def select(self, images: np.ndarray | Sequence[int]) -> Labels:
        """Some of the images, by index, with their instances and extras."""
        images = np.asarray(images, dtype=np.int64)
        counts = np.diff(self.start)[images]
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.repeat(self.start[images] - start[:-1], counts) + np.arange(int(start[-1]))
        image_id, instance_id = self.image_id[images], self.instance_id[rows]
        return replace(
            self,
            source=Subset.of(self.source, images),
            image_id=image_id,
            size=self.size[images],
            group=self.group[images],
            poses=self.poses[rows],
            start=start,
            instance_id=instance_id,
            crowd=self.crowd[rows],
            extras=None if self.extras is None else self.extras.select(image_id, instance_id),
        )

    def digest(self) -> str:
        """SHA-256 of the labels and the names of images (not of the pixels): the hash of the truth on a score card."""
        h = hashlib.sha256()
        h.update("\n".join(self.skeleton.keypoints).encode())
        h.update("\n".join(self.names).encode())
        p = self.poses
        columns = [self.image_id, self.start, p.visible, p.ignore, p.xy, p.box, p.area]
        if (p.track >= 0).any():  # data without tracks keeps the hash that it had before tracks were read
            columns.append(p.track)
        for column in columns:
            h.update(np.ascontiguousarray(column).tobytes())
        return h.hexdigest()

    def image_digests(self) -> list[str]:
        """SHA-256 of the labels of each image: what ``digest`` hashes of all of them."""
        p = self.poses
        of_instances = [np.ascontiguousarray(column) for column in (p.visible, p.ignore, p.xy, p.box, p.area, p.track)]
        found = []
        for i, image_id in enumerate(self.image_id.tolist()):
            h = hashlib.sha256(str(image_id).encode())
            for column in of_instances:
                h.update(column[self.start[i] : self.start[i + 1]].tobytes())
            found.append(h.hexdigest())
        return found


def make_labels(
    skeleton: Skeleton,
    source: ImageSource,
    image_id: np.ndarray,
    size: np.ndarray,
    group: Sequence[str] | None,
    poses: Poses,
    image_of: np.ndarray,
    instance_id: np.ndarray,
    crowd: np.ndarray | None = None,
    **more: Any,
) -> Labels:
    """Build Labels from instances in any order.

    Args:
        group: (I,) of every image; None: each image is a group of its own.
        image_of: (N,) index into ``source`` of every instance.
        crowd: (N,) bool; None: none is.
        more: the other fields of Labels.
    """
    order = np.argsort(image_of, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(image_of, minlength=len(source)))]).astype(np.int64)
    groups = [source.name(i) for i in range(len(source))] if group is None else list(group)
    return Labels(
        skeleton,
        source,
        np.asarray(image_id, dtype=np.int64),
        np.asarray(size, dtype=np.int64).reshape(-1, 2),
        np.array(groups, dtype=object),
        poses[order],
        start,
        np.asarray(instance_id, dtype=np.int64)[order],
        crowd=(np.zeros(len(poses), dtype=bool) if crowd is None else np.asarray(crowd, dtype=bool))[order],
        **more,
    )
