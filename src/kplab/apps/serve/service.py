"""From the bytes of images to their poses: decoding in threads, and the network in batches."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from kplab.apps.serve.batching import Batcher, Step
from kplab.apps.serve.metrics import Metrics
from kplab.data.datamodule import usual_workers
from kplab.data.images import ImageTooLarge, decode_image, read_header, turned
from kplab.data.regions import Regions, predicted_regions
from kplab.data.sources.arrays import ArraySource
from kplab.errors import DataError, KplabError
from kplab.structures.poses import Poses
from kplab.structures.sample import Sample
from kplab.tasks.inference.assembly import Assembly
from kplab.tasks.inference.loading import LoadedRun
from kplab.tasks.inference.stream import Views
from kplab.tasks.wiring.models import check_flip_test

#: First bytes of the files that are read: JPEG, PNG, BMP, TIFF and WebP.
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"RIFF")


class UnknownFormat(DataError):
    """A file is no image of a format that is read."""


class QueueFull(KplabError):
    """More images wait than are allowed; the same request may succeed later."""


class RequestTooLarge(KplabError):
    """A request that is above a limit, whenever it is made."""


@dataclass(frozen=True)
class Limits:
    """What a request may take.

    Args:
        bytes: of the body of a request.
        pixels: of an image.
        queue: images and given boxes of all requests that are not answered yet.
        seconds: to read a request, and again to answer it.
    """

    bytes: int
    pixels: int
    queue: int
    seconds: float


@dataclass(frozen=True)
class Upload:
    """An image of a request.

    Args:
        name: as the client calls it.
        data: the file.
        boxes: (N, 4) xyxy boxes of subjects, pixels of the upright image, continuous; None: none are given.
    """

    name: str
    data: bytes
    boxes: np.ndarray | None = None

    @property
    def places(self) -> int:
        """Places of the queue that it takes."""
        return 1 if self.boxes is None else max(1, len(self.boxes))


@dataclass(frozen=True)
class Result:
    """The poses of one image.

    Args:
        name: as the client calls it.
        size: (width, height) of the upright image, pixels.
        poses: pixels of the upright image, continuous.
    """

    name: str
    size: tuple[int, int]
    poses: Poses


class Places:
    """Places of a queue, each for one image or one given box.

    Args:
        total: number of places.
    """

    def __init__(self, total: int) -> None:
        self.total, self.taken = total, 0

    @contextmanager
    def request(self) -> Iterator[Callable[[int], None]]:
        """Hold one place for a request, whose body is not read yet, and free its places at the end.

        Yields:
            a function that changes the number of places that the request holds.

        Raises:
            RequestTooLarge: a request asks for more places than there are.
            QueueFull: it asks for more than are free.
        """
        held = 0

        def hold(count: int) -> None:
            nonlocal held
            if count > self.total:
                raise RequestTooLarge(
                    f"the request has {count} images and boxes, but the queue holds {self.total}. Send fewer at a time."
                )
            if self.taken + count - held > self.total:
                raise QueueFull(f"{self.taken} of {self.total} places of the queue are taken. Try again later.")
            self.taken += count - held
            held = count

        hold(1)
        try:
            yield hold
        finally:
            self.taken -= held


class Service:
    """A run that answers requests.

    Args:
        loaded: the run with its model.
        limits: of requests.
        batch_size: views at a time.
        wait: seconds that a view waits for others of its batch.

    Raises:
        ConfigError: the model has no flip test.
        RunError: the run of the detector is missing or incomplete.
    """

    def __init__(self, loaded: LoadedRun, limits: Limits, batch_size: int, wait: float) -> None:
        self.loaded, self.limits = loaded, limits
        self.places = Places(limits.queue)
        self.whole = self._step("image")
        boxed = self._step("annotated")
        #: predicts one subject in a given box; None for models of any number of subjects
        self.boxed = boxed if boxed.model.max_poses == 1 else None
        detector = loaded.load_detector()
        #: finds the boxes of a run that is trained on those of another run
        self.detector = None if detector is None else Step(detector, Assembly(whole_images=True))
        for step in self.steps:
            check_flip_test(step.model, step.flip_test)
        self.metrics = Metrics(lambda: len(self.batcher), lambda: self.places.taken)
        self.batcher = Batcher(batch_size, wait, self.metrics.batch)
        # each holds one decoded image
        self.decoders = ThreadPoolExecutor(usual_workers(), "kplab-decoder")

    def _step(self, kind: str) -> Step:
        return Step(self.loaded.model.for_regions(kind), self.loaded.assembly(kind), self.loaded.flip_test)

    @property
    def steps(self) -> list[Step]:
        """The models that requests without boxes use."""
        if self.detector is None:
            return [self.whole]
        return [self.detector] if self.boxed is None else [self.detector, self.boxed]

    def warm(self) -> None:
        """Predict an empty image, so that the first request does not wait for what is made at the first use."""
        for step in self.steps:
            width, height = step.model.size
            views = Views(
                ArraySource([np.zeros((height, width, 3), np.uint8)]), None, step.model.size, len(step.model.skeleton)
            )
            step.predict([views[0, 0]])

    def close(self) -> None:
        """Predict what waits, and end the threads."""
        self.decoders.shutdown()
        self.batcher.close()

    async def predict(self, upload: Upload) -> Result:
        """The poses of one image.

        Raises:
            UnknownFormat: it is no image of a known format.
            ImageTooLarge: it has too many pixels.
            DataError: it can't be decoded, or boxes are given that it does not have, or that the run does not take.
        """
        if upload.boxes is not None:
            if self.boxed is None:
                raise DataError(
                    f"{upload.name}: boxes are given, but {self.loaded.run.name} finds subjects in whole images. Leave boxes out."
                )
            regions = given_regions(upload.boxes, self.loaded.config.padding)
            return await self._predict(self.boxed, upload, regions)
        if self.detector is None or self.boxed is None:
            return await self._predict(self.whole, upload, None)
        found = await self._predict(self.detector, upload, None)
        # decoded again: images of requests that wait for the detector are not kept
        return await self._predict(
            self.boxed, upload, predicted_regions([found.poses], float(self.loaded.config.padding))
        )

    async def _predict(self, step: Step, upload: Upload, regions: Regions | None) -> Result:
        size, samples = await asyncio.get_running_loop().run_in_executor(
            self.decoders, self.read, step, upload, regions
        )
        found = await asyncio.gather(*map(asyncio.wrap_future, self.batcher.submit(step, samples)))
        poses = Poses.concat(found) if found else Poses.empty(len(step.model.skeleton))
        if upload.boxes is None:  # a pose in a given box is returned whatever the others are
            poses = step.assembly.suppressed(poses, step.model.skeleton)
        return Result(upload.name, size, poses)

    def read(self, step: Step, upload: Upload, regions: Regions | None) -> tuple[tuple[int, int], list[Sample]]:
        """Size of the upright image, and its views; see ``predict`` for errors."""
        image = decode_upload(upload, self.limits.pixels)
        height, width = image.shape[:2]
        if upload.boxes is not None:
            check_boxes(upload, (width, height))
        views = Views(ArraySource([image]), regions, step.model.size, len(step.model.skeleton))
        return (width, height), [views[i, 0] for i in range(len(views))]


def decode_upload(upload: Upload, most: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB image, upright.

    Args:
        most: largest number of pixels; it is checked before anything is decoded.

    Raises:
        UnknownFormat: it is no image of a known format.
        ImageTooLarge: it has more pixels.
        DataError: it can't be decoded.
    """
    if not upload.data.startswith(SIGNATURES):
        raise UnknownFormat(f"{upload.name}: not a JPEG, PNG, BMP, TIFF or WebP image. Convert it.")
    (width, height), orientation = read_header(io.BytesIO(upload.data), upload.name)
    if width * height > most:
        raise ImageTooLarge(f"{upload.name}: {width} x {height} pixels, but {most} are allowed. Scale it down.")
    return turned(decode_image(upload.data, upload.name), orientation)


def given_regions(boxes: np.ndarray, padding: float) -> Regions:
    """Regions of one image from (N, 4) xyxy boxes that a client gives."""
    n = len(boxes)
    return Regions(np.zeros(n, np.int64), boxes, np.full(n, -1), np.ones(n), float(padding), "annotated")


def check_boxes(upload: Upload, size: Sequence[int]) -> None:
    """Check that boxes show a part of the image.

    Args:
        size: (width, height), pixels.

    Raises:
        DataError: names the box.
    """
    assert upload.boxes is not None
    for box in upload.boxes:
        if not (box[2:] > 0).all() or not (box[:2] < size).all():
            raise DataError(
                f"{upload.name}: box {box.tolist()} lies outside the image of {size[0]} x {size[1]} pixels. "
                "Give x0, y0, x1, y1 in pixels of the upright image."
            )
