"""Images of a run's dataset with truth and predictions: which of them, in which order, and their pixels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

import cv2
import numpy as np

from kplab.data.sources.files import FileSource
from kplab.errors import ConfigError, DataError
from kplab.runs.files import reading_only
from kplab.runs.run import Run
from kplab.structures.image_source import ImageSource, Subset, path_of

ORDERS = ("worst", "best", "changed", "improved", "regressed", "lowest score", "file")
VISIBILITY = {"any": (1, 2), "visible": (2,), "hidden": (1,)}
#: Images of a page at most.
MOST = 200
T = TypeVar("T")


@dataclass(frozen=True)
class ImageTable:
    """Truth and predictions of the images that were scored, as arrays: I images, M true instances, E extra predictions.

    Args:
        image_id: (I,) ids.
        names: (I,) names of their files.
        group: (I,) videos or subjects; "" where unknown.
        n_instances: (I,) true instances.
        n_missed: (I,) those without a prediction.
        n_extra: (I,) predictions without a true instance.
        mean_px: (I,) mean error.
        image: (M,) index of the image of each true instance, ascending.
        area: (M,) pixels**2.
        score: (M,) of the matched prediction; NaN where it is missed.
        oks: (M,) the same.
        matched: (M,) whether there is a prediction.
        true: (M, K, 2) true points, source pixels.
        visible: (M, K) COCO visibility.
        xy: (M, K, 2) points of the matched prediction.
        error: (M, K) pixels.
        keypoint_score: (M, K) confidence.
        extra_image: (E,) index of the image of each extra prediction.
        extra_xy: (E, K, 2) its points.
        extra_score: (E,) its score.
    """

    image_id: np.ndarray
    names: np.ndarray
    group: np.ndarray
    n_instances: np.ndarray
    n_missed: np.ndarray
    n_extra: np.ndarray
    mean_px: np.ndarray
    image: np.ndarray
    area: np.ndarray
    score: np.ndarray
    oks: np.ndarray
    matched: np.ndarray
    true: np.ndarray
    visible: np.ndarray
    xy: np.ndarray
    error: np.ndarray
    keypoint_score: np.ndarray
    extra_image: np.ndarray
    extra_xy: np.ndarray
    extra_score: np.ndarray

    @classmethod
    def read(cls, path: Path) -> ImageTable:
        """Read what ``jobs.image_table`` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(**{f.name: stored[f.name] for f in fields(cls)})


@dataclass(frozen=True)
class Selection:
    """Which images, and in which order.

    Args:
        order: of ``ORDERS``; changed, improved and regressed compare the first two runs, the others are of the first run.
        keypoint: index of the only keypoint that counts; None counts all.
        min_error: the image has an error of at least so many pixels, in the first run.
        max_error: it has none above.
        missed: only images with missed instances, in any run.
        extra: only images with predictions without a true instance, in any run.
        min_size: sqrt of the area of a true instance, pixels.
        max_size: the same, largest.
        visibility: of ``VISIBILITY``: which labelled keypoints count.
        group: only images of this video or subject.
        text: part of the file's name.
    """

    order: str = "worst"
    keypoint: int | None = None
    min_error: float | None = None
    max_error: float | None = None
    missed: bool = False
    extra: bool = False
    min_size: float | None = None
    max_size: float | None = None
    visibility: str = "any"
    group: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        for name, known in (("order", ORDERS), ("visibility", tuple(VISIBILITY))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is '{getattr(self, name)}'. Use one of: {', '.join(known)}.")


def check_alike(tables: Sequence[ImageTable]) -> None:
    """Check that runs were scored on the same images with the same keypoints.

    Raises:
        ConfigError: they were not.
    """
    first = tables[0]
    for other in tables[1:]:
        if not np.array_equal(first.image_id, other.image_id) or first.true.shape != other.true.shape:
            raise ConfigError(
                "these runs were scored on different images or keypoints, so that their images can't be shown side by side. "
                "Choose runs with the same split."
            )


def select(tables: Sequence[ImageTable], wanted: Selection) -> np.ndarray:
    """(S,) indices of the images of a selection, in its order."""
    first = tables[0]
    count = len(first.image_id)
    keep = np.ones(count, dtype=bool)
    size = np.sqrt(first.area)
    big = (size >= (wanted.min_size or 0)) & (size <= (np.inf if wanted.max_size is None else wanted.max_size))
    marks = np.isin(first.visible, VISIBILITY[wanted.visibility]) & big[:, None]
    if wanted.keypoint is not None:
        if not 0 <= wanted.keypoint < marks.shape[1]:
            raise ConfigError(f"keypoint is {wanted.keypoint}, but there are {marks.shape[1]}, from 0.")
        marks &= np.arange(marks.shape[1]) == wanted.keypoint
    narrowed = wanted.keypoint is not None or wanted.visibility != "any"
    if narrowed or wanted.min_size is not None or wanted.max_size is not None:
        keep &= np.bincount(first.image[marks.any(1)], minlength=count) > 0
    if wanted.group:
        keep &= first.group == wanted.group
    if wanted.text:
        keep &= np.char.find(np.char.lower(first.names), wanted.text.lower()) >= 0
    if wanted.missed:
        keep &= np.any([t.n_missed > 0 for t in tables], axis=0)
    if wanted.extra:
        keep &= np.any([t.n_extra > 0 for t in tables], axis=0)
    largest = np.full(count, -1.0)
    np.maximum.at(largest, first.image, np.where(marks & np.isfinite(first.error), first.error, -1).max(1, initial=-1))
    if wanted.min_error is not None:
        keep &= largest >= wanted.min_error
    if wanted.max_error is not None:
        keep &= (largest >= 0) & (largest <= wanted.max_error)
    order = _ranked(tables, marks, wanted.order, keep)
    return order[keep[order]]


def _ranked(tables: Sequence[ImageTable], marks: np.ndarray, order: str, keep: np.ndarray) -> np.ndarray:
    """All images in an order. Missed instances count first, then the mean error, as in ``kplab evaluate``'s pictures."""
    first, count = tables[0], len(keep)
    if order == "file":
        return np.argsort(first.names, kind="stable")
    missed, mean = _costs(first, marks, count)
    if order in ("worst", "best"):
        sign = -1 if order == "worst" else 1
        return np.lexsort((_last(sign * mean), sign * missed, ~np.isfinite(mean) & (missed == 0)))
    if order == "lowest score":
        score = np.where(marks & first.matched[:, None], first.keypoint_score, np.nan)
        return np.argsort(_last(_mean(score, first.image, count)), kind="stable")
    if len(tables) < 2:
        raise ConfigError(f"order '{order}' compares two runs. Choose a second one.")
    other_missed, other_mean = _costs(tables[1], marks, count)
    missed, mean = other_missed - missed, other_mean - mean
    if order == "changed":
        return np.lexsort((_last(-np.abs(mean)), -np.abs(missed)))
    sign = 1 if order == "improved" else -1
    return np.lexsort((_last(sign * mean), sign * missed))


def _last(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), np.inf, values)


def _costs(table: ImageTable, marks: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(I,) number of instances that are missed, and mean error, of the keypoints that count."""
    counted = marks.any(1)
    missed = np.bincount(table.image[counted & ~table.matched], minlength=count)
    return missed, _mean(np.where(marks, table.error, np.nan), table.image, count)


def _mean(values: np.ndarray, image: np.ndarray, count: int) -> np.ndarray:
    """(I,) mean of the finite values of the instances of each image."""
    finite = np.isfinite(values)
    total = np.bincount(image, np.where(finite, values, 0).sum(1), minlength=count)
    number = np.bincount(image, finite.sum(1), minlength=count)
    return np.divide(total, number, out=np.full(count, np.nan), where=number > 0)


def describe(tables: Sequence[ImageTable], i: int) -> dict[str, Any]:
    """One image: truth, the predictions of each run, and their figures. Points are in tenths of a pixel's accuracy."""
    first = tables[0]
    low, high = np.searchsorted(first.image, [i, i + 1])
    return {
        "id": int(first.image_id[i]),
        "file": str(first.names[i]),
        "group": str(first.group[i]),
        "truth": [
            {"xy": _flat(first.true[m]), "visible": first.visible[m].tolist(), "area": float(first.area[m])}
            for m in range(low, high)
        ],
        "runs": [_predicted(t, i, int(low), int(high)) for t in tables],
    }


def _predicted(table: ImageTable, i: int, low: int, high: int) -> dict[str, Any]:
    extra = np.flatnonzero(table.extra_image == i)
    poses = [
        {
            "xy": _flat(table.xy[m]), "score": _round(table.score[m], 3), "oks": _round(table.oks[m], 3),
            "keypoint_score": np.round(table.keypoint_score[m].astype(np.float64), 3).tolist(), "of": m - low,
            "error": np.round(table.error[m].astype(np.float64), 2).tolist(),
        }
        for m in range(low, high) if table.matched[m]
    ] + [{"xy": _flat(table.extra_xy[e]), "score": _round(table.extra_score[e], 3), "of": None} for e in extra]  # fmt: skip
    error = table.error[low:high]
    finite = error[np.isfinite(error)]
    return {
        "poses": poses,
        "missed": int(table.n_missed[i]),
        "extra": int(table.n_extra[i]),
        "mean_px": float(finite.mean()) if len(finite) else None,
        "max_px": float(finite.max()) if len(finite) else None,
    }


def _flat(points: np.ndarray) -> list[float]:
    return np.round(points.astype(np.float64), 1).ravel().tolist()


def _round(value: Any, digits: int) -> float:
    return round(float(value), digits)


class Recent(Generic[T]):
    """The results of a function for the keys that were used last; may be used from any thread."""

    def __init__(self, most: int) -> None:
        self.most, self.kept, self.lock = most, OrderedDict[Hashable, T](), Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result for a key, made if it is not kept."""
        with self.lock:
            if key not in self.kept:
                self.kept[key] = make()
                while len(self.kept) > self.most:
                    self.kept.popitem(last=False)
            self.kept.move_to_end(key)
            return self.kept[key]


@dataclass(frozen=True)
class Pictures:
    """The images of one split of a run's dataset.

    Args:
        source: reads them; the only way to a pixel.
        index: image id to index in the source.
        size: (I, 2) width and height.
        digest: of names and labels.
    """

    source: ImageSource
    index: dict[int, int]
    size: np.ndarray
    digest: str

    @classmethod
    def open(cls, run: Run, dataset: str, split: str) -> Pictures:
        """Open a split of the run's own dataset. Nothing is generated, split or decoded into files.

        Raises:
            KplabError: the dataset is another one, or can't be read here.
        """
        from kplab.tasks.wiring.datasets import read_split
        from kplab.tasks.wiring.nodes import load_config

        config = load_config(run)
        if str(config.dataset.get("name")) != dataset:
            raise DataError(f"the images of dataset '{dataset}' are unknown: {run.name} was trained on another one.")
        with reading_only():
            labels = read_split(config.dataset, split)
        index = {int(image): i for i, image in enumerate(labels.image_id)}
        return cls(labels.source, index, labels.size, labels.digest())

    def write(self, path: Path) -> bool:
        """Write what reads the same images without their labels; False if they are not plain files."""
        base = self.source.source if isinstance(self.source, Subset) else self.source
        if type(base) is not FileSource:
            return False
        names = [self.source.name(i) for i in range(len(self.source))]
        with path.open("wb") as stream:
            np.savez(
                stream, root=str(base.root), names=np.array(names, dtype=str), size=self.size, digest=self.digest,
                image_id=np.array(list(self.index), dtype=np.int64),
            )  # fmt: skip
        return True

    @classmethod
    def read(cls, path: Path) -> Pictures:
        """Read what ``write`` wrote. The names were checked when the dataset was opened."""
        with np.load(path, allow_pickle=False) as stored:
            source = FileSource(str(stored["root"]), stored["names"].tolist(), allow_outside=True)
            index = {int(image): i for i, image in enumerate(stored["image_id"])}
            return cls(source, index, stored["size"], str(stored["digest"]))

    def place(self, image_id: int) -> int:
        """The index of an image.

        Raises:
            DataError: there is no such image.
        """
        if image_id not in self.index:
            raise DataError(f"this split has no image {image_id}.")
        return self.index[image_id]

    def version(self, image_id: int) -> str:
        """What changes when the file of an image does; for its address."""
        path = path_of(self.source, self.place(image_id))
        try:
            return self.digest[:8] if path is None else f"{path.stat().st_mtime_ns:x}"
        except OSError:
            return "missing"

    def jpeg(self, image_id: int, width: int, box: tuple[int, int, int, int] | None = None) -> bytes:
        """An image as JPEG.

        Args:
            width: pixels at most; 0 is its own size.
            box: xyxy of the part that is wanted; None is all.

        Raises:
            DataError: it can't be read.
        """
        image = self.source.read(self.place(image_id))
        if box is not None:
            x0, y0, x1, y1 = box
            image = image[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)]
            if not image.size:
                raise DataError(f"box {box} is outside image {image_id}.")
        if 0 < width < image.shape[1]:
            height = max(1, round(image.shape[0] * width / image.shape[1]))
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 85]
        if width == 0:
            full = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
            quality = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, full]
        return cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), quality)[1].tobytes()
