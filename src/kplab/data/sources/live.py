"""Frames that come while they are predicted: of a camera, and of a folder that grows."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kplab.data.images import IMAGE_SUFFIXES, check_ending
from kplab.data.sources.files import UprightFiles
from kplab.data.sources.frames import FrameSource, Resumed, SourceFrame
from kplab.errors import DataError, printable

CAMERA = re.compile(r"camera:(\d+)")


class Camera(FrameSource):
    """Pictures of a camera until it is stopped, with the times at which they came.

    Args:
        number: of the device, from 0.
        open_camera: from the number to an object like OpenCV's VideoCapture.

    Raises:
        DataError: there is no such camera.
    """

    def __init__(self, number: int, open_camera: Callable[[int], Any] = cv2.VideoCapture) -> None:
        self.label = f"camera:{number}"
        self.stopped = self._end = threading.Event()
        self.capture = open_camera(number)
        if not self.capture.isOpened():
            raise DataError(
                f"{self.label}: there is no such camera, or it is used by another program. Check the number."
            )
        self.rate = float(self.capture.get(cv2.CAP_PROP_FPS)) or 25.0

    def identity(self) -> dict[str, Any]:
        """The number of the camera."""
        return {"camera": self.label}

    def frames(self, resumed: Resumed | None = None) -> Iterator[SourceFrame]:
        """Yield pictures, which are counted as they are read, until ``stopped`` is set.

        Raises:
            DataError: the camera gives no more pictures, or pictures of another size.
        """
        index, begun = (resumed.count, resumed.begun) if resumed else (0, time.time())
        shape = None
        try:
            while not self._end.is_set():
                there, picture = self.capture.read()
                if not there:
                    raise DataError(f"{self.label}: gives no more pictures after {index}. Is it still connected?")
                shape = shape or picture.shape
                if picture.shape != shape:
                    raise DataError(f"{self.label}: picture {index} has another size than those before. Start again.")
                image = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
                yield SourceFrame(index, f"{self.label}#{index:06d}", time.time() - begun, partial(_same, image))
                index += 1
        finally:
            self.capture.release()


class WatchedFolder(FrameSource):
    """Images of a folder in the order in which they are found, until it is stopped.

    A file is taken once its size has not changed between two looks; one that stays damaged is reported and left out.

    Args:
        folder: with its subfolders.
        idle: seconds without a new image after which the frames end; None: never.
        pause: seconds between two looks.

    Raises:
        DataError: there is no such folder.
    """

    def __init__(self, folder: str | Path, idle: float | None = None, pause: float = 0.5) -> None:
        self.folder, self.idle, self.pause = Path(folder), idle, pause
        self.label = self.folder.name or "images"
        self.stopped = self._end = threading.Event()
        if not self.folder.is_dir():
            raise DataError(f"{folder}: is no folder. watch=… is for a folder that grows.")

    def identity(self) -> dict[str, Any]:
        """The folder."""
        return {"folder": str(self.folder.resolve())}

    def frames(self, resumed: Resumed | None = None) -> Iterator[SourceFrame]:
        """Yield images as they come; their times are those at which they were found, seconds since the start."""
        begun, index = (resumed.begun, resumed.count) if resumed else (time.time(), 0)
        done = set(resumed.names if resumed else ())
        sizes: dict[str, int] = {}
        last = time.monotonic()
        while not self._end.is_set():
            found = False
            for path in sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()):
                name = path.relative_to(self.folder).as_posix()
                if name in done:
                    continue
                size = path.stat().st_size
                if sizes.get(name) != size:  # new, or still written
                    sizes[name], last = size, time.monotonic()
                    continue
                done.add(name)
                try:
                    check_ending(path)
                    image = UprightFiles(self.folder, [name]).read(0)
                except DataError as error:
                    print(printable(f"left out: {error}"), flush=True)
                    continue
                found = True
                yield SourceFrame(index, name, time.time() - begun, partial(_same, image))
                index += 1
            now = time.monotonic()
            last = now if found else last
            if self.idle is not None and now - last >= self.idle:
                return
            self._end.wait(self.pause)


def _same(image: np.ndarray) -> np.ndarray:
    return image
