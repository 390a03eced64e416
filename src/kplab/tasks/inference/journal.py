"""The journal of a prediction: what the network found, frame by frame, so that an interrupted command goes on.

It is a text file of JSON lines that only grows. The first line identifies run, checkpoint, source and options; each further
line is one frame. A line that is incomplete, since its process was killed, is cut off. The journal is removed when all
results are written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np

from kplab.errors import RunError
from kplab.structures.frames import Frame
from kplab.structures.poses import Poses

SCHEMA = 1
#: Seconds between two synchronisations with the disk: what a power failure may cost. A killed process loses nothing.
SYNC = 2.0
TYPES = {"visible": np.uint8, "ignore": np.bool_, "track": np.int64}


class Entry(msgspec.Struct):
    """One frame: its index, name, time in seconds, (width, height), and the fields of its poses as lists."""

    index: int
    name: str
    time: float
    size: tuple[int, int]
    poses: dict[str, list[Any]]


class Header(msgspec.Struct):
    """What the frames were made from and how: nested names and values; and the Unix time of the start."""

    schema: int
    begun: float
    made_from: dict[str, Any]


def pack(frame: Frame) -> bytes:
    """A frame as one line, without its image. Numbers are exact; what is not a number is null."""
    poses = {f.name: getattr(frame.poses, f.name).tolist() for f in fields(Poses)}
    size = frame.size or (0, 0)
    return msgspec.json.encode(Entry(frame.index, frame.name, frame.time, size, poses)) + b"\n"


def unpack(line: bytes, keypoints: int) -> Frame:
    """The frame of a line.

    Raises:
        ValueError: the line is not as ``pack`` writes it.
    """
    entry = msgspec.json.decode(line, type=Entry)
    shapes = {"xy": (-1, keypoints, 2), "visible": (-1, keypoints), "keypoint_score": (-1, keypoints), "box": (-1, 4)}
    try:
        columns: list[np.ndarray] = [
            np.array(entry.poses[f.name], dtype=TYPES.get(f.name, np.float64)).reshape(shapes.get(f.name, (-1,)))
            for f in fields(Poses)
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{error!r}") from None
    return Frame(entry.index, entry.name, entry.time, Poses(*columns), size=entry.size)


class Journal:
    """The journal of one prediction; a lock keeps other processes away until it is closed.

    Args:
        path: of the file; its folder exists.
        made_from: what identifies the prediction.
        keypoints: of the poses.
        batch: frames that the network predicts together; a journal is cut to whole batches, so that the same frames are
            predicted together again. 1: it is not cut.

    Attributes:
        count: frames that it holds.
        begun: Unix time of the start of the prediction.

    Raises:
        RunError: it is of another prediction, is damaged, or another process writes it.
    """

    def __init__(self, path: Path, made_from: Mapping[str, Any], keypoints: int, batch: int) -> None:
        self.path, self.keypoints = path, keypoints
        self._synced = 0.0
        stated: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dict(made_from)))
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise RunError(
                f"{path}: another process predicts into this folder. Wait for it, or name another folder: out=DIR."
            ) from None
        try:
            self.begun, self.count, self._end = self._open(stated, batch)
        except BaseException:
            os.close(self._file)
            raise

    def _open(self, made_from: dict[str, Any], batch: int) -> tuple[float, int, int]:
        """Time of the start, number of frames and length in bytes of a journal that is new, or fits."""
        with self.path.open("rb") as file:
            first = file.readline()
            if not first.endswith(b"\n"):
                os.ftruncate(self._file, 0)
                header = Header(SCHEMA, time.time(), made_from)
                self._write(msgspec.json.encode(header) + b"\n")
                return header.begun, 0, os.fstat(self._file).st_size
            try:
                header = msgspec.json.decode(first, type=Header)
            except ValueError as error:
                raise self._damaged(str(error)) from None
            if header.schema != SCHEMA or header.made_from != made_from:
                now = {"schema": SCHEMA, **made_from}
                differing = differences({"schema": header.schema, **header.made_from}, now)
                raise RunError(
                    f"{self.path}: is of a prediction that was interrupted and differs in {'; '.join(differing)}. Give the "
                    "command as it was to go on with it, name another folder by out=DIR, or delete this file to begin anew."
                )
            count, at, end = 0, file.tell(), file.tell()
            for line in file:
                if not line.endswith(b"\n"):
                    break
                at, count = at + len(line), count + 1
                if count % batch == 0:
                    end = at
        os.ftruncate(self._file, end)
        return header.begun, count - count % batch, end

    def __len__(self) -> int:
        return self.count

    def frames(self) -> Iterator[Frame]:
        """Yield the frames that were there when it was opened.

        Raises:
            RunError: a line is damaged.
        """
        with self.path.open("rb") as file:
            file.readline()
            while file.tell() < self._end:
                line = file.readline()
                try:
                    yield unpack(line, self.keypoints)
                except ValueError as error:
                    raise self._damaged(str(error)) from None

    def append(self, frames: Iterable[Frame]) -> list[Frame]:
        """Add frames, which outlive this process when it returns; returns them as they will be read again, with their images.

        Raises:
            OSError: the disk is full.
        """
        given = list(frames)
        lines = [pack(frame) for frame in given]
        self._write(b"".join(lines))
        self.count += len(lines)
        return [replace(unpack(line, self.keypoints), image=f.image) for line, f in zip(lines, given, strict=True)]

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._file, data) :]
            if time.monotonic() - self._synced > SYNC:
                os.fsync(self._file)
                self._synced = time.monotonic()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path)) from None

    def _damaged(self, reason: str) -> RunError:
        return RunError(f"{self.path}: is damaged ({reason}). Delete it to begin anew.")

    def remove(self) -> None:
        """Delete the file: all results are written."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """Entries of nested mappings that differ, in words.

    >>> differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
    ['b.c (then 2, now 3)']
    """
    out = []
    for key in dict.fromkeys((*before, *now)):
        a, b = before.get(key), now.get(key)
        name = f"{where}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            out += differences(a, b, f"{name}.")
        elif a != b:
            out.append(f"{name} (then {_short(a)}, now {_short(b)})")
    return out


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
