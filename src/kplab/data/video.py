"""Frames of a video as images: decoded once, in order, and kept as PNG files, so that later reads decode no video."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from kplab.data.reading import some
from kplab.errors import DataError
from kplab.runs.files import check_may_write


def frame_name(number: int) -> str:
    """File name of a frame; names sort as the frames do."""
    return f"{number:06d}.png"


def write_frames(video: Path, numbers: Iterable[int], folder: Path) -> Path:
    """Write frames that are not there yet, without loss, and print their number.

    The folder's name holds a hash of the video's bytes, so that two videos of the same name never share frames. A file
    appears under its name only when it is complete.

    Args:
        video: any file that OpenCV's FFmpeg decodes.
        numbers: frames, counted from 0 in the order in which they are shown.
        folder: holds the video's own folder ``<stem>-<hash>`` of frames.

    Returns:
        The video's folder of frames.

    Raises:
        DataError: the video is missing, cannot be decoded, or ends before a frame that is asked for.
    """
    into = Path(folder) / f"{video.stem}-{_digest(video)}"
    missing = sorted({int(n) for n in numbers if not (into / frame_name(int(n))).is_file()})
    if not missing:
        return into
    check_may_write(into / frame_name(missing[0]))
    into.mkdir(parents=True, exist_ok=True)
    for number, frame in _decoded(video, missing):
        beside = into / f".{os.getpid()}-{frame_name(number)}"
        grey = (frame[..., 0] == frame[..., 1]).all() and (frame[..., 1] == frame[..., 2]).all()
        if not cv2.imwrite(str(beside), frame[..., 0] if grey else frame):
            raise DataError(f"{beside}: the frame cannot be written. Check the folder that frames are written to.")
        beside.replace(into / frame_name(number))
    print(f"{video}: {len(missing)} frames written to {into}", flush=True)
    return into


def _digest(video: Path) -> str:
    try:
        with video.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:12]
    except OSError as error:
        raise DataError(f"{video}: the video cannot be read ({error.strerror}). Check its path.") from error


def _decoded(video: Path, numbers: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """(number, (H, W, 3) uint8 BGR) of ascending frames.

    Frames are counted from the start, since seeking is not exact for every codec.
    """
    capture = cv2.VideoCapture(str(video))
    try:
        if not capture.isOpened():
            raise DataError(
                f"{video}: OpenCV cannot open the video: it is truncated, not a video, or of an unknown codec. Fetch it "
                "again, or convert it, e.g. ffmpeg -i IN -c:v libx264 -qp 0 OUT.mp4, which keeps every frame."
            )
        wanted = iter(numbers)
        number = next(wanted)
        for position in range(numbers[-1] + 1):
            whole = capture.grab()
            frame = None
            if whole and position == number:
                whole, frame = capture.retrieve()
            if not whole:
                stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
                raise DataError(
                    f"{video}: ends after {position} frames (its header says {stated}), but frames "
                    f"{some(n for n in numbers if n >= position)} are labelled. The video is truncated or is not the "
                    "one that was labelled: fetch it again, or name the right one."
                )
            if frame is not None:
                yield position, frame
                number = next(wanted, -1)
    finally:
        capture.release()
