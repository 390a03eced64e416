"""Decoded images in memory: the same pixels, as many bytes as are allowed, and nothing that can be changed by accident."""

from __future__ import annotations

import numpy as np
import pytest

from kplab.data.augment import Augment
from kplab.data.datamodule import PoseDataset
from kplab.data.image_cache import ImageCache
from kplab.data.regions import image_regions
from kplab.data.sources.arrays import ArraySource
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

SKELETON = Skeleton("spot", ("spot",), (), (0,), (0.05,), "made up for this test")
#: Of an image of 20x10.
BYTES = 20 * 10 * 3


class Counting(ArraySource):
    """Counts how often each image is read."""

    def __init__(self, images: list[np.ndarray]) -> None:
        super().__init__(images)
        self.reads = [0] * len(images)

    def read(self, i: int) -> np.ndarray:
        self.reads[i] += 1
        return super().read(i).copy()


def noise(count: int = 4) -> tuple[Labels, Counting]:
    """Images of noise, with one keypoint each, and their source."""
    rng = np.random.default_rng(0)
    source = Counting([rng.integers(0, 256, (10, 20, 3), dtype=np.uint8) for _ in range(count)])
    poses = Poses.make(rng.uniform(2, 8, (count, 1, 2)))
    size = np.tile([20, 10], (count, 1))
    of, ids = np.arange(count), np.arange(1, count + 1)
    return make_labels(SKELETON, source, ids, size, None, poses, of, ids, box_source="t", area_source="t"), source


def test_images_stay_as_far_as_they_fit() -> None:
    labels, source = noise()
    cache = ImageCache(labels, 2 * BYTES + 1)
    for _ in range(3):
        for i in (2, 0, 1, 3):
            np.testing.assert_array_equal(cache.read(i), source.images[i])
    assert source.reads == [1, 3, 1, 3]
    assert (cache.left, sorted(cache.kept)) == (1, [0, 2])


def test_without_a_cache_each_image_is_read_each_time() -> None:
    labels, source = noise()
    cache = ImageCache(labels)
    for _ in range(3):
        cache.read(1)
    assert source.reads == [0, 3, 0, 0]


def test_kept_images_cannot_be_written_to_and_those_of_the_caller_can() -> None:
    labels, source = noise()
    source.read = ArraySource(source.images).read  # type: ignore[method-assign]  # hands out the arrays themselves
    with pytest.raises(ValueError, match="read-only"):
        ImageCache(labels, BYTES).read(0)[0, 0] = 1
    source.images[0][0, 0] = 1


def test_samples_are_the_same_bits_with_and_without_a_cache() -> None:
    labels, source = noise()
    augment = Augment(rotate=40, scale=(0.7, 1.4), flip=0.5, paste=0.5)
    plain, cached = (PoseDataset(labels, image_regions(labels), (32, 32), augment, cache=c) for c in (0, 10**6))
    for epoch in range(3):
        for i in range(4):
            a, b = plain[i, epoch], cached[i, epoch]
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.poses.xy, b.poses.xy)
    assert len(cached.images.kept) == 4
    read = list(source.reads)
    cached[0, 5]
    assert source.reads == read
