"""Predictions as DeepLabCut's tables of an analysed video: ``.h5`` and ``.csv``.

A row is a frame, named by its number; columns are scorer, bodyparts and coords (x, y, likelihood), with the individuals where
there is more than one. An individual is a track; instances without a track are ``individual1``, ``individual2``, … in the
order of their frame. DeepLabCut stores pixel indices. It has no score of instances.

Source: DeepLabCut 2 and 3, ``docs/standardDeepLabCut_UserGuide``; pandas, ``pandas/io/pytables.py``.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from kplab.data.formats.dlc import KEY, MULTI_LEVELS, SINGLE_LEVELS
from kplab.ops import affine
from kplab.runs.files import replacing, replacing_text
from kplab.structures.frames import Frame
from kplab.tasks.inference.journal import pack, unpack
from kplab.tasks.inference.writers.about import About

SCORER = "kplab"
COORDS = ("x", "y", "likelihood")
#: Frames that are written at once.
CHUNK = 100


class Spool:
    """Frames in a temporary file: the individuals of the whole video are the columns, and are known at its end only.

    Args:
        folder: of the temporary file.
        about: what is predicted.
    """

    def __init__(self, folder: Path, about: About) -> None:
        self.file = tempfile.TemporaryFile("w+b", dir=folder)  # noqa: SIM115  # closed by the writers
        self.about = about
        self.tracks: set[int] = set()
        self.others = 0

    def add(self, frame: Frame) -> None:
        """Add a frame."""
        self.file.write(pack(frame))
        tracks = frame.poses.track
        self.tracks.update(tracks[tracks >= 0].tolist())
        self.others = max(self.others, int((tracks < 0).sum()))

    def individuals(self) -> list[str]:
        """Names of all individuals; at least one."""
        others = max(self.others, 0 if self.tracks else 1)
        return [f"track{t}" for t in sorted(self.tracks)] + [f"individual{i + 1}" for i in range(others)]

    def columns(self) -> pd.MultiIndex:
        """The header of the table."""
        names, keypoints = self.individuals(), self.about.skeleton.keypoints
        if len(names) == 1:
            return pd.MultiIndex.from_product([[SCORER], keypoints, COORDS], names=SINGLE_LEVELS)
        return pd.MultiIndex.from_product([[SCORER], names, keypoints, COORDS], names=MULTI_LEVELS)

    def chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (F,) numbers of frames and (F, columns) values; NaN where nothing was found."""
        place, k = {name: i for i, name in enumerate(self.individuals())}, len(self.about.skeleton)
        numbers: list[int] = []
        rows: list[np.ndarray] = []
        self.file.seek(0)
        for line in self.file:
            frame = unpack(line, k)
            values = np.full((len(place), k, 3), np.nan)
            free = 0
            for n, track in enumerate(frame.poses.track.tolist()):
                free += track < 0
                at = place[f"track{track}" if track >= 0 else f"individual{free}"]
                values[at, :, :2] = affine.to_pixel_index(frame.poses.xy[n])
                values[at, :, 2] = np.where(frame.poses.labelled[n], frame.poses.keypoint_score[n], np.nan)
            numbers.append(frame.index)
            rows.append(values.ravel())
            if len(rows) == CHUNK:
                yield np.array(numbers), np.array(rows)
                numbers, rows = [], []
        if rows:
            yield np.array(numbers), np.array(rows)


@contextmanager
def write_csv(path: Path, about: About) -> Iterator[Callable[[Frame], None]]:
    """Write the CSV table; yields the function that adds a frame."""
    spool = Spool(path.parent, about)
    with spool.file:
        yield spool.add
        columns = spool.columns()
        with replacing_text(path, newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            for level, name in enumerate(columns.names):
                writer.writerow([name, *columns.get_level_values(level)])
            for numbers, values in spool.chunks():
                cells = np.where(np.isnan(values), None, values.astype(object))  # type: ignore[call-overload]
                writer.writerows([number, *row] for number, row in zip(numbers.tolist(), cells.tolist(), strict=True))


@contextmanager
def write_h5(path: Path, about: About) -> Iterator[Callable[[Frame], None]]:
    """Write the table in HDF5 as pandas reads it; yields the function that adds a frame.

    pandas writes the layout for one row; the rows themselves are appended in chunks, and no times of creation are stored.
    """
    spool = Spool(path.parent, about)
    with spool.file:
        yield spool.add
        columns = spool.columns()
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model.h5"
            pd.DataFrame(np.zeros((1, len(columns))), index=[0], columns=columns).to_hdf(model, key=KEY)
            with h5py.File(model, "r") as layout, replacing(path) as raw, h5py.File(raw, "w") as file:
                _copy_attributes(layout, file)
                group = file.create_group(KEY)
                _copy_attributes(layout[KEY], group)
                for name, node in layout[KEY].items():
                    grows = {"axis1": (0,), "block0_values": (0, len(columns))}.get(name)
                    if grows is None:
                        group.create_dataset(name, data=node[()], dtype=node.dtype)
                    else:
                        group.create_dataset(
                            name, grows, node.dtype, maxshape=(None, *grows[1:]), chunks=(CHUNK, *grows[1:])
                        )
                    _copy_attributes(node, group[name])
                for numbers, values in spool.chunks():
                    for name, added in (("axis1", numbers), ("block0_values", values)):
                        group[name].resize(len(group[name]) + len(added), axis=0)
                        group[name][-len(added) :] = added


def _copy_attributes(source: h5py.HLObject, target: h5py.HLObject) -> None:
    for name in source.attrs:
        target.attrs.create(name, source.attrs[name], dtype=source.attrs.get_id(name).dtype)
