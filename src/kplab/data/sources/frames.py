"""Frames of a source in order, each with its number and time, and the choice of some of them."""

from __future__ import annotations

import hashlib
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kplab.data.sources.files import FileSource
from kplab.errors import ConfigError


@dataclass(frozen=True)
class SourceFrame:
    """One frame of a source, whose pixels are made when they are asked for.

    Args:
        index: its true number in the source, from 0.
        name: what it is called in tables.
        time: seconds since the first frame of the source.
        read: gives (H, W, 3) uint8 RGB; raises DataError where they can't be read.
    """

    index: int
    name: str
    time: float
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Resumed:
    """What is known of the frames of a live source that were taken before an interruption.

    Args:
        begun: Unix time of the start.
        count: number of the next frame.
        names: of the frames.
    """

    begun: float
    count: int
    names: frozenset[str]


class FrameSource(ABC):
    """Frames in order.

    Attributes:
        label: what the source is called in messages and folders.
        total: number of frames, where it is known or stated by a header; else None.
        rate: frames a second, about.
        timed: whether frames have times of their own, rather than those of ``rate``.
        stopped: ends a live source when it is set: a camera, or a folder that grows. Frames of a live source can't be had
            again. None: the source ends by itself.
        names: of all frames, where they are known before.
    """

    label: str
    total: int | None = None
    rate: float = 25.0
    timed: bool = True
    stopped: threading.Event | None = None
    names: Sequence[str] | None = None

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What distinguishes this source from others: a prediction is continued on the same source only."""

    @abstractmethod
    def frames(self, resumed: Resumed | None = None) -> Iterator[SourceFrame]:
        """Yield the frames from the first on; a live source goes on where it was interrupted.

        Raises:
            DataError: the source ends unexpectedly; the frames before are good.
        """


class ImageFrames(FrameSource):
    """Images in files as frames.

    Args:
        source: of the images.
        rate: images a second; it gives their times.
        label: what they are called together.
    """

    timed = False

    def __init__(self, source: FileSource, rate: float = 25.0, label: str = "images") -> None:
        self.source, self.rate, self.label = source, rate, label
        self.total = len(source)
        self.names = source.names

    def identity(self) -> dict[str, Any]:
        """The number of the files, and a hash of their names, sizes and times of change."""
        digest = hashlib.sha256()
        for i, name in enumerate(self.source.names):
            state = self.source.path(i).stat()
            digest.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
        return {"images": len(self.source), "sha256": digest.hexdigest()}

    def frames(self, resumed: Resumed | None = None) -> Iterator[SourceFrame]:
        """Yield the images in order."""
        for i in range(len(self.source)):
            yield SourceFrame(i, self.source.name(i), i / self.rate, partial(self.source.read, i))


@dataclass(frozen=True)
class Selection:
    """Which frames of a source are taken.

    Args:
        every: one frame of so many, from the first on that is taken.
        start: the first: a number, or seconds as text, e.g. "12.5s"; None: the first of the source.
        end: the first that is not taken any more, as ``start``; None: all that follow.

    Raises:
        ConfigError: a value is malformed, or nothing lies between start and end.
    """

    every: int = 1
    start: int | str | None = None
    end: int | str | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError(f"every is {self.every}, but must be at least 1: one frame of so many.")
        low, high = limit("start", self.start), limit("end", self.end)
        if low and high and low[0] == high[0] and low[1] >= high[1]:
            raise ConfigError(f"start={self.start} end={self.end} leave no frame. Let start lie before end.")

    def of(self, frames: Iterator[SourceFrame]) -> Iterator[SourceFrame]:
        """Yield the frames that are taken."""
        low, high, first = limit("start", self.start), limit("end", self.end), None
        for frame in frames:
            at = {"frame": float(frame.index), "second": frame.time}
            if high and at[high[0]] >= high[1]:
                return
            if low and at[low[0]] < low[1]:
                continue
            first = frame.index if first is None else first
            if (frame.index - first) % self.every == 0:
                yield frame

    def count(self, total: int | None, rate: float) -> int | None:
        """About how many frames are taken of so many; None where this is unknown."""
        bounds = []
        for name, value in (("start", self.start), ("end", self.end)):
            found = limit(name, value)
            bounds.append(None if found is None else found[1] * (rate if found[0] == "second" else 1))
        low, high = bounds[0] or 0.0, bounds[1]
        if total is not None:
            high = float(total) if high is None else min(high, total)
        return None if high is None else max(0, -int((low - high) // self.every))


def limit(name: str, value: int | str | None) -> tuple[str, float] | None:
    """A limit as its unit, frame or second, and number.

    >>> limit("start", "12.5s"), limit("end", 100)
    (('second', 12.5), ('frame', 100.0))

    Raises:
        ConfigError: it is neither.
    """
    if value is None:
        return None
    found = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)s", str(value))
    if found is None:
        raise ConfigError(f"{name} is {value!r}. Give the number of a frame from 0, or seconds: {name}=12.5s")
    return ("frame", float(found[1])) if found[1] else ("second", float(found[2]))


def folder_name(label: str) -> str:
    """The folder for the results of a source.

    >>> folder_name("clip.mp4"), folder_name("camera:0")
    ('clip', 'camera-0')
    """
    return Path(label).stem.replace("*", "").replace(":", "-") or "images"
