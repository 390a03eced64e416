"""Videos of pictures, for browsers and players."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_video(path: Path, pictures: Iterable[np.ndarray], rate: float = 25.0, quality: int = 20) -> Path:
    """Write pictures as an H.264 video, which browsers and players show; creates the folder.

    Args:
        path: of the file, whose ending is the container: .mp4, .mkv, .mov.
        pictures: (H, W, 3) uint8 RGB, all of one size. A row or column is left out where their number is odd, as H.264 in
            its usual form requires.
        rate: pictures per second.
        quality: of libx264, its "crf": 0 is best, 51 worst.

    Raises:
        ValueError: there is no picture, or one has another size than the first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    size = None
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        stream.pix_fmt, stream.options = "yuv420p", {"crf": str(quality)}
        for number, picture in enumerate(pictures):
            height, width = (side - side % 2 for side in picture.shape[:2])
            if size is None:
                size = stream.width, stream.height = width, height
            if (width, height) != size:
                raise ValueError(f"picture {number} is {width}x{height}, but the first is {size[0]}x{size[1]}.")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
            container.mux(stream.encode(frame))
        if size is None:
            raise ValueError("a video needs at least one picture, but got none.")
        container.mux(stream.encode())
    return path
