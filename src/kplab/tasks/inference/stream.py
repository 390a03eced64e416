"""The streams to poses, in order: of images by index, decoded in loader processes, and of frames, decoded in a thread."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from torch.utils.data import Dataset

from kplab.data.datamodule import EpochSampler, loader, report_lost_workers, usual_batch, usual_workers
from kplab.data.regions import Regions, predicted_regions
from kplab.data.sources.frames import SourceFrame
from kplab.ops import affine
from kplab.structures.frames import Frame
from kplab.structures.image_source import ImageSource
from kplab.structures.poses import Poses
from kplab.structures.predictor import Predictor
from kplab.structures.sample import Batch, Sample
from kplab.tasks.inference.assembly import Assembly
from kplab.tasks.wiring.models import check_flip_test

T = TypeVar("T")


class Views(Dataset[Sample]):
    """Views of an image source, one a region, without true poses; ``Sample.image_id`` is the index of the image.

    Args:
        source: of the images.
        regions: which parts of them, in the order of the images; None: whole images, whose sizes need not be known before.
        size: (width, height) of the views, pixels.
        keypoints: of the model.
    """

    def __init__(self, source: ImageSource, regions: Regions | None, size: tuple[int, int], keypoints: int) -> None:
        self.source, self.regions, self.size, self.keypoints = source, regions, size, keypoints

    def __len__(self) -> int:
        return len(self.source if self.regions is None else self.regions)

    def region(self, index: int) -> tuple[int, np.ndarray | None, float, float]:
        """Index of the image, box (None: the whole image), score and padding of a region."""
        regions = self.regions
        if regions is None:
            return index, None, 1.0, 1.0
        return int(regions.image[index]), regions.box[index], float(regions.score[index]), regions.padding

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        i, box, score, padding = self.region(item[0])
        return view_of(self.source.read(i), i, box, score, padding, self.size, self.keypoints)


def view_of(
    image: np.ndarray,
    number: int,
    box: np.ndarray | None,
    score: float,
    padding: float,
    size: tuple[int, int],
    keypoints: int,
) -> Sample:
    """The view of a region of an image, without true poses; arguments as of ``Sample`` and ``affine.fit_box``."""
    height, width = image.shape[:2]
    box = np.array([0.0, 0.0, width, height]) if box is None else box
    view = affine.fit_box(box, size, padding)
    return Sample(affine.warp(image, view, size), Poses.empty(keypoints), view, number, box, score)


def stream_poses(
    model: Predictor,
    source: ImageSource,
    regions: Regions | None = None,
    *,
    assembly: Assembly | None = None,
    flip_test: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
) -> Iterator[tuple[int, Poses]]:
    """Yield (index, poses) of every image of a source, in order. Memory does not grow with the number of images.

    Args:
        model: any Predictor.
        source: of the images.
        regions: which parts of them, in the order of the images; None: whole images.
        assembly: from views to images; None: whole images as they are.
        flip_test: average with the mirrored views.
        batch_size: views at a time; None is ``usual_batch`` of the model's views.
        workers: processes that decode while the model computes; None is ``usual_workers()``, 0 decodes here.

    Yields:
        index of the image, and its poses in source pixels; an empty Poses where the image has no region.

    Raises:
        ConfigError: the model has no flip test.
        DataError: an image can't be read.
    """
    check_flip_test(model, flip_test)
    views = Views(source, regions, model.size, len(model.skeleton))
    batch_size = batch_size or usual_batch(model.size)
    assembly = assembly or Assembly(regions is None or regions.kind == "image")
    if workers is None:
        # each process would decode a video from its start
        workers = min(usual_workers(), 1) if getattr(source, "in_order", False) else usual_workers()
    # starting processes takes longer than a batch
    batches = loader(views, batch_size, workers if len(views) > batch_size else 0, EpochSampler(len(views), False))
    parts = (
        (int(image), poses)
        for batch in batches
        for image, poses in zip(batch.image_id, assembly.predict(model, batch, flip_test), strict=True)
    )
    with report_lost_workers():
        yield from assembly.by_image(parts, range(len(source)), model.skeleton)


@dataclass(frozen=True)
class FramePredictor:
    """From frames to their poses, with a detector of boxes or without; see ``predict``.

    Args:
        model: predicts the regions.
        assembly: from its views to images.
        detector: finds the regions; None: whole images.
        padding: factor on the detector's boxes.
        flip_test: average the model's output with that of mirrored views.
        batch_size: views at a time.
    """

    model: Predictor
    assembly: Assembly
    detector: Predictor | None = None
    padding: float = 1.0
    flip_test: bool = False
    batch_size: int = 32

    def predict(self, frames: Iterable[SourceFrame], live: bool = False) -> Iterator[list[Frame]]:
        """Yield frames with images and poses, in order, as many at a time as are predicted together.

        Frames are read and their views are made in a thread, at most a batch ahead, so that memory does not grow with
        their number.

        Args:
            frames: in order.
            live: predict as soon as there is a frame, together with those that wait already, rather than full batches.

        Raises:
            ConfigError: the model has no flip test.
            DataError: a frame can't be read; all before it have been yielded.
        """
        check_flip_test(self.model, self.flip_test)
        first = self.detector or self.model

        def views() -> Iterator[tuple[SourceFrame, np.ndarray, Sample]]:
            for number, frame in enumerate(frames):
                image = frame.read()
                yield frame, image, view_of(image, number, None, 1.0, 1.0, first.size, len(first.skeleton))

        with Ahead(views(), self.batch_size) as ahead:
            for batch in ahead.batches(self.batch_size, live):
                taken, images, samples = map(list, zip(*batch, strict=True))
                found = self._poses(images, samples)
                yield [
                    Frame(f.index, f.name, f.time, poses, image, (image.shape[1], image.shape[0]))
                    for f, image, poses in zip(taken, images, found, strict=True)
                ]

    def _poses(self, images: list[np.ndarray], whole: list[Sample]) -> list[Poses]:
        """The poses of some images, of which the first model's views are given."""
        if self.detector is None:
            found = self.assembly.predict(self.model, Batch.collate(whole), self.flip_test)
            return [self.assembly.suppressed(poses, self.model.skeleton) for poses in found]
        boxes = predicted_regions(Assembly(True).predict(self.detector, Batch.collate(whole)), self.padding)
        model, parts = self.model, []
        for start in range(0, len(boxes), self.batch_size):
            rows = range(start, min(start + self.batch_size, len(boxes)))
            samples = [
                view_of(
                    images[boxes.image[r]], int(boxes.image[r]), boxes.box[r], float(boxes.score[r]), self.padding, model.size,
                    len(model.skeleton),
                )
                for r in rows
            ]  # fmt: skip
            found = self.assembly.predict(model, Batch.collate(samples), self.flip_test)
            parts += [(sample.image_id, poses) for sample, poses in zip(samples, found, strict=True)]
        return [poses for _, poses in self.assembly.by_image(parts, range(len(images)), model.skeleton)]


class Ahead(Generic[T]):
    """Items that a thread gets from an iterable before they are asked for.

    Args:
        items: iterated in the thread.
        size: items that may wait.
    """

    def __init__(self, items: Iterable[T], size: int) -> None:
        self._items: Iterable[T] = items
        self._waiting: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(size)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="frames", daemon=True)

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            for item in self._items:
                if not self._put((item,)):
                    return
        except BaseException as error:
            end = error
        self._put(end)

    def _put(self, item: tuple[T] | BaseException | None) -> bool:
        """Whether the item could be put before this was closed."""
        while not self._closed.is_set():
            try:
                self._waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def batches(self, size: int, live: bool = False) -> Iterator[list[T]]:
        """Yield lists of ``size`` items, of which the last may be shorter; if ``live``, of those that wait already.

        Raises:
            BaseException: that of the iterable, after all items before it.
        """
        batch: list[T] = []
        while True:
            item = self._waiting.get()
            if not isinstance(item, tuple):
                if batch:
                    yield batch
                if item is not None:
                    raise item
                return
            batch.append(item[0])
            if len(batch) == size or (live and self._waiting.empty()):
                yield batch
                batch = []

    def __enter__(self) -> Ahead[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()


def write_behind(results: Iterable[tuple[int, T]], write: Callable[[int, T], None], ahead: int = 64) -> None:
    """Call ``write(index, poses)`` for every result, in order, in a thread: the next batch is predicted meanwhile.

    Args:
        ahead: results that may wait for it; then prediction waits.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[None]] = deque()
        for index, result in results:
            waiting.append(pool.submit(write, index, result))
            while waiting and (len(waiting) > ahead or waiting[0].done()):
                waiting.popleft().result()
        for future in waiting:
            future.result()
