"""The training data of ndx-pose in an NWB file, as the tables of a ``.slp`` file, as ``data.apart`` reads them.

Only HDF5 is read. Neither pynwb nor the classes that the file itself describes are used.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from kplab.data.formats._hdf5 import array, group
from kplab.data.formats._slp_write import FORMAT_ID, TABLES

HOME = "processing/behavior"


def tables(path: Path) -> dict[str, np.ndarray]:
    """The tables of ``_slp_tables.tables``.

    Raises:
        KeyError: the file has no training data of poses.
        ValueError: a part is of another kind, or lies in another file.
    """
    with h5py.File(path, "r") as h5:
        home = group(group(h5, "processing"), "behavior")
        training, skeletons = group(home, "PoseTraining"), group(home, "Skeletons")
        videos = group(training, "source_videos")
        names, films = sorted(skeletons), sorted(videos)
        nodes: list[str] = []
        graphs: list[dict[str, Any]] = []
        for name in names:
            own = [_text(value) for value in array(group(skeletons, name), "nodes").tolist()]
            edges = array(group(skeletons, name), "edges") if "edges" in skeletons[name] else np.zeros((0, 2), int)
            first, nodes = len(nodes), nodes + own
            links = [{"source": first + int(a), "target": first + int(b)} for a, b in edges.reshape(-1, 2).tolist()]
            graphs.append({"nodes": [{"id": first + i} for i in range(len(own))], "links": links})
        files = [[_text(v) for v in array(group(videos, film), "external_file").tolist()] for film in films]
        frames: list[tuple[int, ...]] = []
        instances: list[tuple[Any, ...]] = []
        points: list[tuple[Any, ...]] = []
        listed = group(training, "training_frames")
        for row, key in enumerate(sorted(listed, key=_natural)):
            frame = group(listed, key)
            first = len(instances)
            found = group(frame, "skeleton_instances") if "skeleton_instances" in frame else {}
            for one in sorted(found, key=_natural):
                instance = group(found, one)
                xy, begin = array(instance, "node_locations").astype(np.float64), len(points)
                if xy.ndim != 2 or xy.shape[1] != 2:
                    raise ValueError(f"the points of {key}/{one} are not x and y")
                points += [(x, y, True, True) for x, y in xy.tolist()]
                kind = names.index(_linked(instance, names))
                instances.append((len(instances), 0, row, kind, -1, -1, 1.0, begin, len(points), 0.0))
            number = int(frame.attrs.get("source_video_frame_index", row))
            frames.append((row, films.index(_linked(frame, films, "source_video")), number, first, len(instances)))
    described = [{"filename": v, "backend": {"filenames": v}} if _are_images(v) else _film(v) for v in files]
    header = {"skeletons": graphs, "nodes": [{"name": name} for name in nodes]}
    return {
        "json": np.array(json.dumps(header)),
        "format_id": np.array(FORMAT_ID),
        "videos_json": np.array(json.dumps([json.dumps(one) for one in described])),
        "frames": np.array(frames, dtype=TABLES["frames"]),
        "instances": np.array(instances, dtype=TABLES["instances"]),
        "points": np.array(points, dtype=TABLES["points"]),
        "pred_points": np.zeros(0, dtype=TABLES["pred_points"]),
    }


def _film(files: list[str]) -> dict[str, Any]:
    return {"filename": files[0], "backend": {"filename": files[0]}}


def _are_images(files: list[str]) -> bool:
    return len(files) > 1 or PurePosixPath(files[0]).suffix.lower() in (
        ".png",
        ".jpg",
        ".jpeg",
        ".tif",
        ".tiff",
        ".bmp",
    )


def _linked(parent: h5py.Group, names: list[str], key: str | None = None) -> str:
    """Name of the skeleton or video that a group has a link to; the link itself is not followed."""
    for name in [key] if key else list(parent):
        link = parent.get(name, getlink=True)
        if isinstance(link, h5py.SoftLink) and PurePosixPath(link.path).name in names:
            return PurePosixPath(link.path).name
    raise ValueError(f"'{parent.name}' links to none of {', '.join(names)}")


def _natural(name: str) -> tuple[int, str]:
    """A key that sorts by the number at the end of a name."""
    found = re.search(r"(\d{1,15})$", name)
    return (int(found[1]) if found else -1, name)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else bytes(value).decode()
