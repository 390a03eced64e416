"""Videos of pictures in H.264, for browsers and players: at once, or in segments that are joined without encoding again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np

#: Times are whole numbers of these, a second, as is usual for video.
TICKS = 90_000
#: Of libx264. Pictures refer to earlier ones only, so that segments can be joined; a fixed number of threads gives the
#: same bytes on every machine.
OPTIONS = {"preset": "veryfast", "bf": "0", "threads": "4"}


class VideoFile:
    """An H.264 video that is written picture by picture.

    Args:
        path: of the file, whose ending is the container: .mp4, .mkv, .mov.
        rate: pictures per second, about; each has a time of its own.
        quality: of libx264, its "crf": 0 is best, 51 worst.
    """

    def __init__(self, path: Path, rate: float = 25.0, quality: int = 20) -> None:
        fast = {"movflags": "+faststart"} if path.suffix in (".mp4", ".mov", ".m4v") else {}
        self.container = av.open(str(path), "w", options=fast)
        self.stream: Any = self.container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        self.stream.pix_fmt, self.stream.options = "yuv420p", {"crf": str(quality), **OPTIONS}
        self.stream.codec_context.time_base = self.stream.time_base = Fraction(1, TICKS)
        self.size: tuple[int, int] | None = None
        self.count = 0

    def add(self, picture: np.ndarray, time: int) -> None:
        """Append a picture.

        Args:
            picture: (H, W, 3) uint8 RGB. A row or column is left out where their number is odd, as H.264 in its usual form
                requires.
            time: at which it is shown, in ticks from the start; larger than the one before.

        Raises:
            ValueError: it has another size than the first.
        """
        height, width = (side - side % 2 for side in picture.shape[:2])
        if self.size is None:
            self.size = self.stream.width, self.stream.height = width, height
        if (width, height) != self.size:
            raise ValueError(
                f"picture {self.count} is {width}x{height}, but the first is {self.size[0]}x{self.size[1]}."
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
        frame.pts, frame.time_base = time, Fraction(1, TICKS)
        self.container.mux(self.stream.encode(frame))
        self.count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.count and kind is None:
            self.container.mux(self.stream.encode())
        self.container.close()


def write_video(path: Path, pictures: Iterable[np.ndarray], rate: float = 25.0, quality: int = 20) -> Path:
    """Write pictures as an H.264 video, which browsers and players show; creates the folder.

    Args:
        path: of the file, whose ending is the container: .mp4, .mkv, .mov.
        pictures: (H, W, 3) uint8 RGB, all of one size; see ``VideoFile.add``.
        rate: pictures per second.
        quality: of libx264, its "crf": 0 is best, 51 worst.

    Raises:
        ValueError: there is no picture, or one has another size than the first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoFile(path, rate, quality) as video:
        for number, picture in enumerate(pictures):
            video.add(picture, round(number * TICKS / rate))
        if not video.count:
            raise ValueError("a video needs at least one picture, but got none.")
    return path


def join(path: Path, segments: Sequence[tuple[Path, int]]) -> Path:
    """Join videos of ``VideoFile`` of one size into one, without encoding them again.

    Args:
        path: of the new file.
        segments: each file, and the time in ticks at which it starts.
    """
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as joined:
        stream: Any = None
        for file, start in segments:
            with av.open(str(file)) as segment:
                source = segment.streams.video[0]
                if stream is None:
                    stream = joined.add_stream_from_template(source)
                    stream.time_base = Fraction(1, TICKS)
                for packet in segment.demux(source):
                    if packet.pts is not None and packet.dts is not None:  # the last one is empty
                        unit = packet.time_base / Fraction(1, TICKS)
                        packet.pts, packet.dts = (start + round(t * unit) for t in (packet.pts, packet.dts))
                        packet.duration = round((packet.duration or 0) * unit)
                        packet.time_base, packet.stream = Fraction(1, TICKS), stream
                        joined.mux(packet)
    return path
