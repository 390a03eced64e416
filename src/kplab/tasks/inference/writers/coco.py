"""COCO results JSON and its card, image by image."""

from __future__ import annotations

import json
import math
import tempfile
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from kplab.runs.files import replacing_text
from kplab.structures.poses import Poses
from kplab.structures.predictions import result_rows, write_card
from kplab.structures.skeleton import Skeleton


class ResultsFile:
    """COCO results JSON and its card; the same bytes as ``Predictions.write``, without all poses in memory.

    Results are written to a temporary file beside the target as they come; ``finish`` puts them in the order of image ids.

    Args:
        path: of the JSON.
        skeleton: of the poses.
    """

    def __init__(self, path: Path, skeleton: Skeleton) -> None:
        self.path, self.skeleton = path, skeleton
        path.parent.mkdir(parents=True, exist_ok=True)
        self.spool = tempfile.TemporaryFile("w+b", dir=path.parent)  # noqa: SIM115  # closed by __exit__
        #: image id, place in the spool, length of the results and of the name, one image after the other
        self.places = array("q")
        #: of each image, seconds; NaN where it has none
        self.times = array("d")
        self.poses = 0

    def add(self, image_id: int, poses: Poses, name: str = "", time: float = math.nan) -> None:
        """Write the results of one image, source pixels.

        Args:
            image_id: of the image.
            poses: found in it.
            name: of its file, for the card.
            time: of a frame of a video, seconds, for the card.
        """
        rows = result_rows(image_id, poses)
        text, called = json.dumps(rows)[1:-1].encode(), name.encode()
        self.places.extend((image_id, self.spool.tell(), len(text), len(called)))
        self.times.append(time)
        self.spool.write(text + called)
        self.poses += len(rows)

    def finish(self, card: Mapping[str, Any]) -> Path:
        """Write the JSON and its card; returns the path of the JSON.

        Args:
            card: how the predictions were made.
        """
        table = np.array(self.places, dtype=np.int64).reshape(-1, 4)
        order = np.argsort(table[:, 0], kind="stable")
        table, times = table[order], np.array(self.times)[order]

        def names() -> Iterator[tuple[int, str]]:
            for image_id, start, length, called in table.tolist():
                self.spool.seek(start + length)
                yield image_id, self.spool.read(called).decode()

        with replacing_text(self.path) as file:
            file.write("[")
            separator = ""
            for _, start, length, _ in table.tolist():
                if length:
                    self.spool.seek(start)
                    file.write(separator + self.spool.read(length).decode())
                    separator = ", "
            file.write("]")
        timed = ((int(table[i, 0]), round(float(times[i]), 6)) for i in np.flatnonzero(np.isfinite(times)))
        write_card(self.path, card, self.skeleton, names(), timed)
        return self.path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.spool.close()
