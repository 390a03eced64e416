"""Frames of a stream with their poses, and the protocol of what processes them in order: tracking, filling, smoothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from kplab.structures.poses import Poses


@dataclass(frozen=True)
class Frame:
    """One frame of a stream, with the poses found in it.

    Args:
        index: its true number in the source, from 0; numbers are missing where frames were left out.
        name: what it is called in tables, e.g. ``clip.mp4#000123``.
        time: seconds since the first frame of the source.
        poses: source pixels, continuous.
        image: (H, W, 3) uint8 RGB; None where the stream does not keep it.
        size: (width, height) of the image, pixels; None where it is unknown.
    """

    index: int
    name: str
    time: float
    poses: Poses
    image: np.ndarray | None = None
    size: tuple[int, int] | None = None


@runtime_checkable
class Stage(Protocol):
    """Changes the poses of frames, in order. It may keep back some frames until later ones are known.

    A stage is deterministic: the same frames give the same result, since a prediction that was interrupted pushes its
    first frames again.
    """

    def push(self, frame: Frame) -> list[Frame]:
        """The frames that are ready after this one, in order; all frames come out exactly once."""
        ...

    def flush(self) -> list[Frame]:
        """The frames that are still kept back, at the end of the stream."""
        ...


def process(frames: Iterable[Frame], stages: Sequence[Stage]) -> Iterator[Frame]:
    """Yield the frames of a stream after all stages, in order."""
    for stage in stages:
        frames = _through(frames, stage)
    yield from frames


def _through(frames: Iterable[Frame], stage: Stage) -> Iterator[Frame]:
    for frame in frames:
        yield from stage.push(frame)
    yield from stage.flush()
