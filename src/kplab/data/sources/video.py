"""Frames of a video file as images: decoded by PyAV in the order in which they are shown, without seeking."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from kplab.data.sources.frames import FrameSource, Resumed, SourceFrame
from kplab.errors import DataError
from kplab.runs.provenance import file_sha256

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv")
#: Containers that FFmpeg may find in a file. Playlists are not among them: they name other files and addresses.
CONTAINERS = "mov,avi,matroska,mpegts,mpeg,mpegvideo,asf"
#: FFmpeg opens no address of a network.
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}


def is_video(path: str | Path) -> bool:
    """Whether a path names a video file, by its ending.

    >>> is_video("a/clip.MP4"), is_video("a/image.png")
    (True, False)
    """
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


class VideoFrames(FrameSource):
    """Frames of a video file in order, upright, decoded once.

    The number of frames is an estimate from the header. A video that is damaged, ends in the middle of a frame or changes
    its size gives the frames before, and then an error.

    Args:
        path: of the file.

    Raises:
        DataError: the file is missing, is empty, holds no video, or can't be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self.file = Path(path)
        self.label = self.file.name
        _check_file(self.file)
        with _opened(self.file) as container:
            stream = container.streams.video[0]
            self.rate = float(stream.average_rate or stream.base_rate or 25)
            seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            self.total = stream.frames or round(seconds * self.rate) or None

    def identity(self) -> dict[str, Any]:
        """The name and the hash of the file."""
        return {"video": self.file.name, "sha256": file_sha256(self.file)}

    def frames(self, resumed: Resumed | None = None) -> Iterator[SourceFrame]:
        """Yield the frames from the first on.

        Raises:
            DataError: the video is damaged or truncated, changes its size, or has no frame.
        """
        index, first, time = -1, None, 0.0
        for index, frame in enumerate(_decoded(self.file)):
            if frame.time is not None:
                first = float(frame.time) if first is None else first
                time = float(frame.time) - first
            elif index:
                time += 1 / self.rate
            yield SourceFrame(index, frame_name(self.file, index), time, partial(upright, frame))
        if index < 0:
            raise _without_frames(self.file)


class VideoSource:
    """Frames of a video, upright: turned as the video's rotation states, as players show them.

    The whole video is decoded once at the start: only this finds the true number of frames, their times, and damage.
    Frames are read best in ascending order; each thread and each process has a decoder of its own, and a frame that lies
    before the last one starts it again. Seeking is not exact for every codec.

    Args:
        path: of the file.

    Attributes:
        file: the file.
        times: (I,) time of each frame since the first, seconds.
        in_order: frames are decoded one after the other, so that more than one loader process is of no use.

    Raises:
        DataError: the file is missing, holds no video or no frame, or is damaged or truncated.
    """

    in_order = True

    def __init__(self, path: str | Path) -> None:
        self.file = Path(path)
        self._own = threading.local()
        self.times = _times(self.file)

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file, "times": self.times}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._own = threading.local()

    def __len__(self) -> int:
        return len(self.times)

    def __str__(self) -> str:
        return str(self.file)

    def __repr__(self) -> str:
        return f"VideoSource({len(self)} frames of {self.file})"

    def name(self, i: int) -> str:
        """Name of the file and number of frame i, from 0."""
        return frame_name(self.file, i)

    def read(self, i: int) -> np.ndarray:
        """Frame i, (H, W, 3) uint8 RGB, upright.

        Raises:
            DataError: the video has changed, and can't be decoded up to this frame any more.
            IndexError: there is no such frame.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"{self.file} has {len(self)} frames, and no frame {i}")
        own = self._own
        # the decoder of a parent process can't be used after a fork
        if getattr(own, "process", None) != os.getpid() or i < own.next:
            own.process, own.next, own.frames = os.getpid(), 0, _decoded(self.file)
        for frame in own.frames:
            own.next += 1
            if own.next == i + 1:
                return upright(frame)
        own.process = None
        raise DataError(
            f"{self.file}: ended before frame {i}, but had {len(self)} frames at first. Was it overwritten?"
        )


def frame_name(path: Path, index: int) -> str:
    """What a frame is called in tables.

    >>> frame_name(Path("a/clip.mp4"), 12)
    'clip.mp4#000012'
    """
    return f"{path.name}#{index:06d}"


def upright(frame: av.VideoFrame) -> np.ndarray:
    """A decoded frame as players show it, (H, W, 3) uint8 RGB."""
    # FFmpeg states by how many degrees the stored picture is to be turned anticlockwise, as NumPy counts
    turns = round(frame.rotation / 90) % 4
    pixels = frame.reformat(format="rgb24", threads=1).to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, turns))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The container of a video.

    Raises:
        DataError: the file can't be opened, or holds no video.
    """
    try:
        container = av.open(str(path), options=OPTIONS)
    except FileNotFoundError:
        raise DataError(f"{path}: no such video. Check the path.") from None
    except av.error.FFmpegError as error:
        raise _undecodable(path, error) from None
    with container:
        if not container.streams.video:
            raise DataError(f"{path}: holds no video, only {_kinds(container)}. Name a video file.")
        yield container


def _decoded(path: Path) -> Iterator[av.VideoFrame]:
    """Frames in the order in which they are shown, all of one size.

    Raises:
        DataError: the file can't be opened or decoded, or the size of its frames changes.
    """
    number = skipped = 0
    size = None
    try:
        with _opened(path) as container:
            stream = container.streams.video[0]
            # one thread, also in upright: a process that is forked meanwhile could not free threads, and would wait for ever
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"err_detect": "explode"}
            for packet in container.demux(stream):
                skipped += packet.is_discard  # before the start that an MP4 file's edit list states
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise DataError(_damaged(path, number, "its data are incomplete"))
                    size = size or (frame.width, frame.height)
                    if (frame.width, frame.height) != size:
                        raise DataError(
                            f"{path}: frame {number} is {frame.width}x{frame.height}, but those before are {size[0]}x{size[1]}. "
                            "Cut the video there, or convert it to one size: ffmpeg -i IN -vf scale=W:H OUT.mp4"
                        )
                    yield frame
                    number += 1
            # the table of an MP4 file is exact; other containers estimate their number of frames
            stated = stream.frames - skipped if "mp4" in container.format.name else 0
    except av.error.FFmpegError as error:
        raise (
            DataError(_damaged(path, number, str(error.strerror))) if number else _undecodable(path, error)
        ) from None
    if stated > number:
        raise DataError(_damaged(path, number, f"its header states {stated} frames"))


def _undecodable(path: Path, error: Exception) -> DataError:
    """The error about a file of which no frame can be decoded."""
    return DataError(
        f"{path}: FFmpeg can't decode it ({getattr(error, 'strerror', error)}): it is truncated, not a video, or of an unknown "
        "codec. Fetch it again, or convert it, e.g. ffmpeg -i IN -c:v libx264 -qp 0 OUT.mp4, which keeps every frame."
    )


def _damaged(path: Path, number: int, reason: str) -> str:
    """The message about a video that is not whole."""
    return (
        f"{path}: the video is damaged or truncated: {number} frames can be decoded, but {reason}. Fetch it again, or "
        "keep what is left: ffmpeg -i IN -c:v libx264 -qp 0 OUT.mp4"
    )


def _kinds(container: Any) -> str:
    """The kinds of streams of a file, for a message."""
    return ", ".join(sorted({str(stream.type) for stream in container.streams})) or "nothing"


def _times(path: Path) -> np.ndarray:
    """(I,) times of all frames since the first, seconds; numbers of frames where the file states no times.

    Raises:
        DataError: see ``VideoSource``.
    """
    _check_file(path)
    times = [np.nan if frame.time is None else float(frame.time) for frame in _decoded(path)]
    if not times:
        raise _without_frames(path)
    stated = np.array(times)
    return stated - stated[0] if np.isfinite(stated).all() else np.arange(len(times), dtype=np.float64)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path}: no such video. Check the path.")
    if not path.stat().st_size:
        raise DataError(f"{path}: the file is empty. Fetch it again.")


def _without_frames(path: Path) -> DataError:
    return DataError(f"{path}: the video has no frame. Fetch it again, or name another.")
