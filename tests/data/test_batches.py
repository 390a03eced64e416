"""Numbers of views in a batch: large ones are few at a time, so that memory does not grow with them; and how they lie in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kplab.data.datamodule import PoseDataModule, PoseDataset, usual_batch
from kplab.data.regions import image_regions
from kplab.data.sources.arrays import ArraySource
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.sample import Batch
from kplab.structures.skeleton import Skeleton
from kplab.tasks.inference.stream import stream_poses

SKELETON = Skeleton("spot", ("spot",), (), (0,), (0.05,), "made up for this test")


def noise(count: int) -> Labels:
    """Images of 20x10 pixels of noise, with one keypoint each."""
    rng = np.random.default_rng(0)
    source = ArraySource([rng.integers(0, 256, (10, 20, 3), dtype=np.uint8) for _ in range(count)])
    poses, of = Poses.make(rng.uniform(2, 8, (count, 1, 2))), np.arange(count)
    size = np.tile([20, 10], (count, 1))
    return make_labels(SKELETON, source, of, size, None, poses, of, of, box_source="t", area_source="t")


class Counting:
    """A Predictor that finds nothing and notes the sizes of its batches."""

    skeleton, max_poses, flips, device = SKELETON, 1, False, torch.device("cpu")

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.batches: list[int] = []

    def predict(self, batch: Batch, flip_test: bool = False) -> list[Poses]:
        self.batches.append(len(batch))
        return [Poses.empty(1) for _ in range(len(batch))]


@pytest.mark.parametrize(
    ("size", "views"),
    [((32, 32), 32), ((256, 256), 32), ((512, 256), 16), ((640, 480), 6), ((1024, 1024), 2), ((4096, 2048), 1)],
)
def test_a_batch_has_fewer_large_views(size: tuple[int, int], views: int) -> None:
    assert usual_batch(size) == views


def test_predictions_take_as_many_views_as_usual_or_as_are_asked_for() -> None:
    source = noise(5).source
    for asked, batches in ((None, [2, 2, 1]), (4, [4, 1])):
        model = Counting((1024, 1024))
        assert len(list(stream_poses(model, source, batch_size=asked, workers=0))) == 5
        assert model.batches == batches


@pytest.mark.parametrize(("window", "views"), [(None, 4), ((160, 160), 2)])
def test_validation_on_whole_views_has_fewer_of_them_than_a_step_has_windows(
    window: tuple[int, int] | None, views: int
) -> None:
    labels = noise(6)
    train, val = (PoseDataset(labels, image_regions(labels), (1024, 1024), window=w) for w in (window, None))
    data = PoseDataModule(train, val, 4, workers=0)
    assert [len(batch) for batch in data.train_dataloader()] == [4, 2]
    found = [len(batch) for batch in data.val_dataloader()]
    assert (found[0], sum(found)) == (views, 6)


def test_images_of_a_batch_are_channels_last_in_memory() -> None:
    """Without a copy; the pixels are those of the samples."""
    labels = noise(3)
    samples = [PoseDataset(labels, image_regions(labels), (20, 10))[i] for i in range(3)]
    batch = Batch.collate(samples)
    assert batch.images.shape == (3, 3, 10, 20)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    for image, sample in zip(batch.images, samples, strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), sample.image)
