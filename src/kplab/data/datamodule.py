"""Datasets and loaders: labels and regions to batches, with the same pixels for the same seed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import cv2
import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from kplab.data.augment import Augment
from kplab.data.copy_paste import paste
from kplab.data.image_cache import ImageCache
from kplab.data.mosaic import TILES, Tile, mosaic
from kplab.data.regions import Regions
from kplab.errors import DataError, RunError
from kplab.ops import affine
from kplab.runs.provenance import cores
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.structures.sample import Batch, Sample

#: Views that a model is given at a time in prediction, where no number is stated, and their pixels: larger views are fewer.
VIEWS, PIXELS = 32, 32 * 256**2
#: torch's messages about a loader process that has ended.
LOST_WORKER = re.compile(r"DataLoader worker \(pid.*(exited unexpectedly|killed by signal)")


class PoseDataset(Dataset[Sample]):
    """One sample for each region.

    Items are indexed by (index, epoch): augmentation depends on the seed, the epoch and the index alone, not on the number
    or order of workers, so that a resumed run gets the same samples as an uninterrupted one.

    Args:
        labels: images and true poses.
        regions: parts of the images.
        size: (width, height) of the views.
        augment: None for validation and prediction.
        seed: seed of the augmentation.
        window: (width, height) of a part of the view, cut at random around one of its subjects, at the view's scale: for
            training convolutional heads on large views of which most is background. None: the whole view.
        window_anywhere: probability that a window lies anywhere in the view instead, so that all of the background is seen.
        epochs: number of epochs, of which the last ``augment.mosaic_off`` have no mosaics; None: all have them.
        cache: bytes of decoded images that each loader process keeps.

    Raises:
        DataError: mosaics or pasted subjects are enabled, but the regions are not whole images.
    """

    def __init__(
        self,
        labels: Labels,
        regions: Regions,
        size: tuple[int, int],
        augment: Augment | None = None,
        seed: int = 0,
        window: tuple[int, int] | None = None,
        epochs: int | None = None,
        window_anywhere: float = 0.0,
        cache: int = 0,
    ) -> None:
        self.images = ImageCache(labels, cache)
        self.labels, self.regions, self.size, self.augment, self.seed = labels, regions, size, augment, seed
        self.window, self.window_anywhere = window, window_anywhere
        self.mosaic = augment.mosaic if augment is not None else 0.0
        self.mosaic_until = np.inf if augment is None or epochs is None else epochs - augment.mosaic_off
        for key in ("mosaic", "paste"):
            if augment is not None and getattr(augment, key) and regions.kind != "image":
                raise DataError(
                    f"augment.{key}={getattr(augment, key):g} combines whole images, but regions are '{regions.kind}'. "
                    f"Use regions=image or augment.{key}=0."
                )
        if augment is not None and augment.paste:
            # subjects that can be pasted into other images, and their regions
            self.donors = np.flatnonzero(labels.poses.labelled.any(1) & ~labels.poses.ignore)
            order = np.argsort(regions.image, kind="stable")
            self.donor_regions = order[np.searchsorted(regions.image, labels.image_of()[self.donors], sorter=order)]

    def __len__(self) -> int:
        return len(self.regions)

    def poses_of(self, index: int) -> Poses:
        """True poses of region ``index``, source pixels; none where the region was detected."""
        if self.regions.kind == "detected":
            return Poses.empty(len(self.labels.skeleton))
        subject = int(self.regions.subject[index])
        if subject >= 0:
            return self.labels.poses[[subject]]
        return self.labels.poses_of(int(self.regions.image[index]))

    def __getitem__(self, item: tuple[int, int] | int) -> Sample:
        index, epoch = item if isinstance(item, tuple) else (item, 0)
        rng = np.random.default_rng([self.seed, epoch, index])
        size = self.size if self.window is None else self.window
        tiles, own = [self.tile(index, rng)], 0
        if self.mosaic and epoch < self.mosaic_until and rng.random() < self.mosaic:
            tiles += [self.tile(int(i), rng) for i in rng.integers(len(self), size=TILES - 1)]
            order = rng.permutation(TILES)
            tiles, own = [tiles[i] for i in order], int(np.flatnonzero(order == 0)[0])
            centre = rng.uniform(0, size)
        change = np.eye(3)
        if self.augment is not None:
            change, flipped = self.augment.draw(rng, size)
            if flipped:
                tiles = [replace(t, poses=t.poses.permute_keypoints(self.labels.skeleton.flip_array)) for t in tiles]
        if len(tiles) > 1:
            pixels, poses, maps = mosaic(tiles, size, centre, change)
            view = maps[own]
        else:
            view = change @ tiles[0].view
            pixels, poses = affine.warp(tiles[0].image, view, size), tiles[0].poses.transform(view)
        if self.augment is not None and self.augment.paste and len(self.donors) and rng.random() < self.augment.paste:
            pixels, poses = self.pasted(pixels, poses, self.augment, rng)
        if self.augment is not None:
            pixels, poses = self.augment.change_pixels(pixels, poses, rng)
        if self.regions.kind == "image":
            # not for annotated boxes: keypoints of a subject may lie just outside its view
            poses = poses.clipped(size)
        region = self.regions
        image_id = int(self.labels.image_id[region.image[index]])
        return Sample(pixels, poses, view, image_id, region.box[index], float(region.score[index]))

    def pasted(
        self, pixels: np.ndarray, poses: Poses, augment: Augment, rng: np.random.Generator
    ) -> tuple[np.ndarray, Poses]:
        """The view with a random subject of the images; unchanged if there is no place for it."""
        pick = int(rng.integers(len(self.donors)))
        index = int(self.donor_regions[pick])
        truth = self.poses_of(index)
        subject = int(self.donors[pick] - self.labels.start[self.regions.image[index]])
        change, flipped = augment.draw(rng, self.size)
        if flipped:
            truth = truth.permute_keypoints(self.labels.skeleton.flip_array)
        donor = Tile(
            self.images.read(int(self.regions.image[index])),
            truth,
            affine.fit_box(self.regions.box[index], self.size, self.regions.padding),
        )
        return paste(pixels, poses, donor, subject, change[:2, :2], augment.paste_shape, rng)

    def tile(self, index: int, rng: np.random.Generator) -> Tile:
        """Region ``index`` before augmentation: its image, and the map to the plain view or a window of it."""
        image = self.images.read(int(self.regions.image[index]))
        poses = self.poses_of(index)
        view = affine.fit_box(self.regions.box[index], self.size, self.regions.padding)
        if self.window is not None:
            view = cut(poses.transform(view), self.size, self.window, rng, self.window_anywhere) @ view
        return Tile(image, poses, view)


def cut(
    poses: Poses, size: tuple[int, int], window: tuple[int, int], rng: np.random.Generator, anywhere: float = 0.0
) -> np.ndarray:
    """Map a view to a window around a random subject, up to a third of the window off its centre.

    Args:
        poses: poses of the view.
        size: (width, height) of the view.
        window: (width, height) of the part.
        rng: random generator.
        anywhere: probability that the window lies anywhere inside the view instead.

    Returns:
        (3, 3) view pixels to window pixels; the view's corner where there is no subject.
    """
    hulls = poses.extent()
    hulls = hulls[np.isfinite(hulls).all(1)]
    side = np.array(window, dtype=np.float64)
    if anywhere and rng.random() < anywhere:
        return affine.translation(*-rng.uniform(0, np.maximum(np.array(size) - side, 0)))
    centre = side / 2
    if len(hulls):
        hull = hulls[rng.integers(len(hulls))]
        centre = (hull[:2] + hull[2:]) / 2
    dx, dy = side / 2 - centre + rng.uniform(-1 / 3, 1 / 3, 2) * side
    return affine.translation(dx, dy)


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (index, epoch), shuffled by seed and epoch, distributed over the processes of a run.

    Every process gets the same number of samples; where they cannot be divided evenly, the first ones are repeated.
    """

    def __init__(self, length: int, shuffle: bool, seed: int = 0, rank: int = 0, world: int = 1) -> None:
        self.length, self.shuffle, self.seed, self.rank, self.world = length, shuffle, seed, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.length // self.world)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.length)
        if self.shuffle:
            # sorting by keyed bytes of a counter-based generator; PCG64's stream is fixed by NumPy's compatibility policy
            order = np.argsort(
                np.random.Generator(np.random.PCG64([self.seed, self.epoch])).random(self.length), kind="stable"
            )
        order = np.resize(order, len(self) * self.world)
        for index in order[self.rank :: self.world]:
            yield int(index), self.epoch


def quiet_worker(_: int) -> None:
    """Limit a worker to one thread: workers share the cores with training."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def loader(
    dataset: Dataset[Sample], batch_size: int, workers: int, sampler: EpochSampler, drop_last: bool = False
) -> DataLoader[Batch]:
    """A DataLoader of Batch."""
    # with a generator of its own a new iterator draws nothing from torch's global one
    generator = torch.Generator()
    generator.manual_seed(0)
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # collate turns its samples into batches
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=Batch.collate,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=quiet_worker,
        generator=generator,
        drop_last=drop_last,
    )


@contextmanager
def report_lost_workers() -> Iterator[None]:
    """Turn torch's error about a loader process that has been killed or has crashed into one that says what to do.

    Raises:
        RunError: such a process has ended.
    """
    try:
        yield
    except Exception as error:
        # torch raises it from a signal handler, in whatever code is running, which may turn it into another exception
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
            chain.append(cause)
        lost = next((str(e) for e in chain if LOST_WORKER.search(str(e))), None)
        if lost is None:
            raise
        raise RunError(
            f"a process that loads images has ended unexpectedly ({lost.split('. ')[0]}), often for lack of memory. "
            "Use fewer of them; workers=0 loads images in the main process."
        ) from None


def usual_batch(size: tuple[int, int]) -> int:
    """Number of views of a (width, height) that are predicted at a time where none is stated: the memory grows with their pixels."""
    return max(1, min(VIEWS, PIXELS // math.prod(size)))


def usual_workers() -> int:
    """Half the cores that this process may use, at least one and at most eight; training uses the rest."""
    return min(8, max(1, cores() // 2))


class PoseDataModule(pl.LightningDataModule):
    """Training and validation batches.

    Args:
        train: training dataset.
        val: validation dataset, or None.
        batch_size: samples for each process and step.
        workers: loader processes; None is ``usual_workers()``.
        seed: seed of the order of samples.
    """

    def __init__(
        self, train: PoseDataset, val: PoseDataset | None, batch_size: int, workers: int | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.train, self.val, self.batch_size, self.seed = train, val, batch_size, seed
        self.workers = usual_workers() if workers is None else workers
        #: the epoch that a resumed training begins with
        self.first_epoch = 0

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches; a last batch of one sample is left out, since batch statistics need more than one."""
        rank, world = self._place()
        sampler = EpochSampler(len(self.train), True, self.seed, rank, world)
        # Lightning sets the epoch only after it has started the workers, which load batches at once
        sampler.set_epoch(self.first_epoch)
        single = len(sampler) % self.batch_size == 1 and len(sampler) > 1
        return loader(self.train, self.batch_size, self.workers, sampler, drop_last=single)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Batches in order; empty where there is no validation set."""
        if self.val is None:
            return []
        rank, world = self._place()
        # whole views, of which training reads windows, take far more memory than these
        batch_size = self.batch_size if self.train.window is None else min(self.batch_size, usual_batch(self.val.size))
        return loader(self.val, batch_size, self.workers, EpochSampler(len(self.val), False, 0, rank, world))
