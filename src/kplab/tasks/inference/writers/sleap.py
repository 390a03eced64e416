"""Predicted instances as a SLEAP ``.slp`` file: positions, scores and tracks.

SLEAP stores pixel indices. Frames without an instance are not in the file, as in SLEAP's own predictions.

Source: talmolab/sleap, ``sleap/io/format/hdf5.py``, format 1.2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kplab.data.formats._slp_write import FORMAT_ID, TABLES, header
from kplab.errors import ConfigError
from kplab.ops import affine
from kplab.runs.files import replacing
from kplab.structures.frames import Frame
from kplab.tasks.inference.writers.about import About

PREDICTED = 1
#: Rows that are written at once.
CHUNK = 256


class Table:
    """A table of an HDF5 file that grows.

    Args:
        file: open for writing.
        name: of the table, in ``TABLES``.
    """

    def __init__(self, file: h5py.File, name: str) -> None:
        self.data = file.create_dataset(name, (0,), TABLES[name], maxshape=(None,), chunks=(CHUNK,))
        self.waiting: list[tuple[Any, ...]] = []
        self.count = 0

    def add(self, *row: Any) -> None:
        """Append a row."""
        self.waiting.append(row)
        self.count += 1
        if len(self.waiting) == CHUNK:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self.waiting:
            self.data.resize((self.count,))
            self.data[self.count - len(self.waiting) :] = np.array(self.waiting, dtype=self.data.dtype)
            self.waiting.clear()


@contextmanager
def write_slp(path: Path, about: About) -> Iterator[Callable[[Frame], None]]:
    """Write predicted instances; yields the function that adds a frame.

    Raises:
        ConfigError: the source is neither a video nor images, which the file has to name.
    """
    if about.video is None and about.images is None:
        raise ConfigError(f"write=slp needs a video or images that exist, and {about.label} is neither. Leave slp out.")
    tracks: dict[int, int] = {}
    size = (0, 0)
    with replacing(path) as raw, h5py.File(raw, "w") as file:
        tables = {name: Table(file, name) for name in TABLES}

        def add(frame: Frame) -> None:
            nonlocal size
            size = frame.size or size
            frames, instances, points = (tables[name] for name in ("frames", "instances", "pred_points"))
            if not len(frame.poses):
                return
            row, first = frames.count, instances.count
            frames.add(row, 0, frame.index, first, first + len(frame.poses))
            poses, index = frame.poses, affine.to_pixel_index(frame.poses.xy)
            for n, track in enumerate(poses.track.tolist()):
                number = tracks.setdefault(track, len(tracks)) if track >= 0 else -1
                begin = points.count
                for k, there in enumerate(poses.labelled[n].tolist()):
                    points.add(*index[n, k], there, False, poses.keypoint_score[n, k])
                instances.add(
                    first + n, PREDICTED, row, 0, number, -1, poses.score[n], begin, points.count, 0.0
                )  # fmt: skip

        yield add
        for table in tables.values():
            table.flush()
        texts = {
            "tracks_json": [json.dumps([0, f"track_{t}"]) for t in tracks],
            "videos_json": [json.dumps(_video(about, size))],
        }
        for name, lines in (*texts.items(), ("suggestions_json", [])):
            file.create_dataset(name, data=lines, dtype=h5py.string_dtype(), maxshape=(None,))
        meta = file.create_group("metadata")
        meta.attrs["format_id"] = FORMAT_ID
        meta.attrs["json"] = np.bytes_(json.dumps(header(about.skeleton)).encode())


def _video(about: About, size: tuple[int, int]) -> dict[str, Any]:
    """The entry of the video, or of the images, which count as one."""
    width, height = size
    if about.images is not None:
        names = [str(p.absolute()) for p in about.images]
        shape = {"height_": height, "width_": width, "channels_": 3}
        backend = {"type": "ImageVideo", "filename": names[0], "filenames": names, "grayscale": False, **shape}
    else:
        assert about.video is not None
        name = str(about.video.absolute())
        backend = {
            "type": "MediaVideo",
            "filename": name,
            "grayscale": False,
            "bgr": True,
            "dataset": "",
            "input_format": "",
        }
        backend["shape"] = [None, height, width, 3]
    return {"filename": backend["filename"], "backend": backend}
