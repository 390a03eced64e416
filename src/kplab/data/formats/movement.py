"""Export for movement: a netCDF file with positions over time, keypoints and individuals.

The file is netCDF-4, which is HDF5 with dimension scales: ``position`` (time, space, keypoints, individuals) and
``confidence`` (time, keypoints, individuals). Time is the number of the image, in frames; positions are pixel indices from 0,
and NaN where unlabelled. An individual is a track, or else the place of a subject among those of its image.

Source: movement, "The movement datasets"; netCDF-4 on HDF5, Unidata.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kplab.data.holds import Holds, instances_of
from kplab.ops import affine
from kplab.structures.labels import Labels

HOLDS = Holds(tracks=True, precision=1e-9)


def write(labels: Labels, path: str | Path, fps: float = 0.0) -> Path:
    """Write a netCDF file that ``xarray.open_dataset`` reads as a dataset of movement.

    Args:
        labels: what to write, the images of one video in order.
        path: the ``.nc`` file.
        fps: frames a second, where they are known; 0: time in frames.
    """
    import h5py

    path, p = Path(path), labels.poses
    rows = [[r for r in instances_of(labels, i) if (p.visible[r] > 0).any()] for i in range(len(labels))]
    tracked = sorted({int(p.track[r]) for one in rows for r in one if p.track[r] >= 0})
    column = {track: i for i, track in enumerate(tracked)}
    free = max((sum(p.track[r] < 0 for r in one) for one in rows), default=0)
    # an individual of a track that occurs twice in an image would be overwritten
    doubled = max((len(one) - len({int(p.track[r]) for r in one if p.track[r] >= 0}) for one in rows), default=0)
    individuals = [f"track{t}" for t in tracked] + [f"individual{i}" for i in range(max(free, doubled))]
    position = np.full((len(labels), 2, len(labels.skeleton), max(1, len(individuals))), np.nan)
    for i, one in enumerate(rows):
        used: set[int] = set()
        spare = len(tracked)
        for r in one:
            place = column.get(int(p.track[r]), -1)
            if place < 0 or place in used:
                place, spare = spare, spare + 1
            used.add(place)
            position[i, :, :, place] = affine.to_pixel_index(p.xy[r]).T
    coordinates: dict[str, Any] = {
        "time": np.arange(len(labels)) / (fps or 1.0),
        "space": ["x", "y"],
        "keypoints": list(labels.skeleton.keypoints),
        "individuals": individuals or ["individual0"],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for number, (name, values) in enumerate(coordinates.items()):
            texts = isinstance(values, list)
            data = np.array(values, dtype=h5py.string_dtype()) if texts else values
            scale = file.create_dataset(name, data=data)
            scale.make_scale(name)
            scale.attrs["_Netcdf4Dimid"] = np.int32(number)
        arrays = {"position": position, "confidence": np.where(np.isnan(position[:, 0]), np.nan, 1.0)}
        for name, values in arrays.items():
            variable = file.create_dataset(name, data=values)
            variable.attrs["_FillValue"] = np.array([np.nan])
            used_dims = list(coordinates) if name == "position" else ["time", "keypoints", "individuals"]
            for axis, dimension in enumerate(used_dims):
                variable.dims[axis].attach_scale(file[dimension])
        units = {"time_unit": "seconds", "fps": float(fps)} if fps else {"time_unit": "frames"}
        for key, value in {"ds_type": "poses", "source_software": "kplab", "source_file": path.name, **units}.items():
            file.attrs[key] = value
    return path
