"""The stream from images to poses: decoding in loader processes, the network here, image by image in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from torch.utils.data import Dataset

from kplab.data.datamodule import EpochSampler, loader, report_lost_workers, usual_workers
from kplab.data.regions import Regions
from kplab.ops import affine
from kplab.structures.image_source import ImageSource
from kplab.structures.poses import Poses
from kplab.structures.predictor import Predictor
from kplab.structures.sample import Sample
from kplab.tasks.inference.assembly import Assembly
from kplab.tasks.wiring.models import check_flip_test


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
        i, given, score, padding = self.region(item[0])
        image = self.source.read(i)
        height, width = image.shape[:2]
        box = np.array([0.0, 0.0, width, height]) if given is None else given
        view = affine.fit_box(box, self.size, padding)
        return Sample(affine.warp(image, view, self.size), Poses.empty(self.keypoints), view, i, box, score)


def stream_poses(
    model: Predictor,
    source: ImageSource,
    regions: Regions | None = None,
    *,
    assembly: Assembly | None = None,
    flip_test: bool = False,
    batch_size: int = 32,
    workers: int | None = None,
) -> Iterator[tuple[int, Poses]]:
    """Yield (index, poses) of every image of a source, in order. Memory does not grow with the number of images.

    Args:
        model: any Predictor.
        source: of the images.
        regions: which parts of them, in the order of the images; None: whole images.
        assembly: from views to images; None: whole images as they are.
        flip_test: average with the mirrored views.
        batch_size: views at a time.
        workers: processes that decode while the model computes; None is ``usual_workers()``, 0 decodes here.

    Yields:
        index of the image, and its poses in source pixels; an empty Poses where the image has no region.

    Raises:
        ConfigError: the model has no flip test.
        DataError: an image can't be read.
    """
    check_flip_test(model, flip_test)
    views = Views(source, regions, model.size, len(model.skeleton))
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


def write_behind(results: Iterable[tuple[int, Poses]], write: Callable[[int, Poses], None], ahead: int = 64) -> None:
    """Call ``write(index, poses)`` for every result, in order, in a thread: the next batch is predicted meanwhile.

    Args:
        ahead: results that may wait for it; then prediction waits.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[None]] = deque()
        for index, poses in results:
            waiting.append(pool.submit(write, index, poses))
            while waiting and (len(waiting) > ahead or waiting[0].done()):
                waiting.popleft().result()
        for future in waiting:
            future.result()
