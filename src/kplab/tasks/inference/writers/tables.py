"""Tables of keypoints, a row a predicted keypoint: CSV and Parquet.

Positions are pixel indices of the source, the same numbers as in the results JSON of the same prediction.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from kplab.runs.files import replacing, replacing_text
from kplab.structures.frames import Frame
from kplab.structures.predictions import pixel_indices
from kplab.structures.skeleton import Skeleton
from kplab.tasks.inference.writers.about import About

COLUMNS = (
    "file", "instance", "keypoint", "x_pixel_index", "y_pixel_index", "keypoint_score", "instance_score", "track", "frame",
    "time_s",
)  # fmt: skip
#: Frames that Parquet holds in memory, and in one group of rows.
GROUP = 500


def rows_of(frame: Frame, skeleton: Skeleton, timed: bool) -> Iterator[tuple[Any, ...]]:
    """The rows of a frame, in the order of ``COLUMNS``; None is a keypoint that was not found, no track, or no time."""
    poses, time = frame.poses, round(frame.time, 6) if timed else None
    index = pixel_indices(poses.xy)
    for n, score in enumerate(poses.score.tolist()):
        track = int(poses.track[n]) if poses.track[n] >= 0 else None
        for k, keypoint in enumerate(skeleton.keypoints):
            numbers = (*index[n, k].tolist(), float(poses.keypoint_score[n, k]), score)
            known = (None if v != v else v for v in numbers)
            yield (frame.name, n, keypoint, *known, track, frame.index, time)


class KeypointTable:
    """CSV rows; what is unknown stays empty.

    Args:
        file: an open text file.
        skeleton: names of the keypoints.
        timed: whether frames have times.
    """

    def __init__(self, file: IO[str], skeleton: Skeleton, timed: bool = True) -> None:
        self.skeleton, self.writer, self.timed = skeleton, csv.writer(file, lineterminator="\n"), timed
        self.writer.writerow(COLUMNS)

    def add(self, frame: Frame) -> None:
        """Write the rows of one frame."""
        self.writer.writerows(rows_of(frame, self.skeleton, self.timed))


@contextmanager
def write_csv(path: Path, about: About) -> Iterator[Callable[[Frame], None]]:
    """Write a ``KeypointTable``; yields the function that adds a frame."""
    with replacing_text(path, newline="") as file:
        yield KeypointTable(file, about.skeleton, about.timed).add


@contextmanager
def write_parquet(path: Path, about: About) -> Iterator[Callable[[Frame], None]]:
    """Write the same rows as Parquet; yields the function that adds a frame."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    text, number, whole = pa.string(), pa.float64(), pa.int64()
    types = (text, whole, text, number, number, number, number, whole, whole, number)
    schema = pa.schema(list(zip(COLUMNS, types, strict=True)))
    waiting: list[Frame] = []
    with replacing(path) as file, ParquetWriter(file, schema) as table:

        def write() -> None:
            rows = [row for frame in waiting for row in rows_of(frame, about.skeleton, about.timed)]
            columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
            arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
            table.write_table(pa.Table.from_arrays(arrays, schema=schema))
            waiting.clear()

        def add(frame: Frame) -> None:
            waiting.append(Frame(frame.index, frame.name, frame.time, frame.poses))
            if len(waiting) == GROUP:
                write()

        yield add
        write()
