"""The tables and JSON texts of a ``.slp`` file; and a file of labels on images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kplab.data.reading import some
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

#: Columns of the tables of a file.
TABLES: dict[str, list[tuple[str, str]]] = {
    "frames": [
        ("frame_id", "<u8"), ("video", "<u4"), ("frame_idx", "<u8"), ("instance_id_start", "<u8"), ("instance_id_end", "<u8"),
    ],
    "instances": [
        ("instance_id", "<i8"), ("instance_type", "u1"), ("frame_id", "<u8"), ("skeleton", "<u4"), ("track", "<i4"),
        ("from_predicted", "<i8"), ("score", "<f4"), ("point_id_start", "<u8"), ("point_id_end", "<u8"),
        ("tracking_score", "<f4"),
    ],
    "points": [("x", "<f8"), ("y", "<f8"), ("visible", "?"), ("complete", "?")],
    "pred_points": [("x", "<f8"), ("y", "<f8"), ("visible", "?"), ("complete", "?"), ("score", "<f8")],
}  # fmt: skip
FORMAT_ID = 1.2


def write_tables(labels: Labels, path: Path, files: list[str], tracks: tuple[str, ...]) -> None:
    """Write a ``.slp`` with user instances on a list of images.

    Args:
        labels: what to write; images without a labelled instance have no frame.
        path: the ``.slp`` file.
        files: path of each image, as the file is to name it.
        tracks: names of tracks; those beyond are numbered.
    """
    p, image_of = labels.poses, labels.image_of()
    rows = np.flatnonzero(p.labelled.any(1) & ~labels.crowd)
    used = np.unique(image_of[rows])
    place = {int(image): number for number, image in enumerate(used)}
    frames, instances = np.zeros(len(used), TABLES["frames"]), np.zeros(len(rows), TABLES["instances"])
    k = len(labels.skeleton)
    points = np.zeros(len(rows) * k, TABLES["points"])
    points["x"], points["y"] = affine.to_pixel_index(p.xy[rows]).reshape(-1, 2).T
    points["visible"] = p.labelled[rows].ravel()
    frames["frame_id"], frames["frame_idx"] = np.arange(len(used)), used
    frames["instance_id_start"] = np.searchsorted(image_of[rows], used)
    frames["instance_id_end"] = np.searchsorted(image_of[rows], used, side="right")
    instances["instance_id"] = np.arange(len(rows))
    instances["frame_id"] = [place[int(image)] for image in image_of[rows]]
    found = sorted({int(t) for t in p.track[rows] if t >= 0})
    if found and found[-1] >= 2**31:
        raise DataError(f"{path}: tracks {some(found[-3:])} are larger than SLEAP stores. Number them from 0.")
    named = list(tracks) + [f"track{i}" for i in range(len(tracks), min((found or [-1])[-1] + 1, 100_000))]
    if found and found[-1] >= len(named):
        raise DataError(f"{path}: tracks go up to {found[-1]}, but SLEAP lists all of them. Number them from 0.")
    instances["track"], instances["from_predicted"] = p.track[rows], -1
    instances["score"], instances["tracking_score"] = 1, 0
    instances["point_id_start"] = np.arange(len(rows)) * k
    instances["point_id_end"] = instances["point_id_start"] + k
    width, height = (int(v) for v in labels.size[0]) if len(labels) else (0, 0)
    backend = {"type": "ImageVideo", "shape": [len(files), height, width, 3], "filename": files[0], "filenames": files}
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as h5:
        meta = h5.create_group("metadata").attrs
        meta["format_id"] = FORMAT_ID
        meta["json"] = np.bytes_(json.dumps(header(labels.skeleton)))
        h5["videos_json"] = [json.dumps({"filename": files, "backend": backend}).encode()]
        h5["tracks_json"] = np.array([json.dumps([0, name]).encode() for name in named], dtype="S")
        h5["suggestions_json"] = np.array([], dtype="S1")
        for name, table in (("frames", frames), ("instances", instances), ("points", points)):
            h5[name] = table
        h5["pred_points"] = np.zeros(0, TABLES["pred_points"])


def header(skeleton: Skeleton) -> dict[str, Any]:
    """The skeleton as SLEAP describes it: a graph of networkx, whose kinds of edges are written once and then referred to."""
    seen: list[int] = []

    def kind(number: int) -> dict[str, Any]:
        if number in seen:
            return {"py/id": seen.index(number) + 1}
        seen.append(number)
        return {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [number]}]}

    links = [
        {"edge_insert_idx": i, "key": 0, "source": a, "target": b, "type": kind(1)}
        for i, (a, b) in enumerate(skeleton.edges)
    ]
    pairs = [(a, b) for a, b in enumerate(skeleton.flip) if a < b]
    links += [{"key": 0, "source": a, "target": b, "type": kind(2)} for a, b in pairs]
    graph = {
        "directed": True,
        "graph": {"name": skeleton.name, "num_edges_inserted": len(skeleton.edges)},
        "links": links,
        "multigraph": True,
        "nodes": [{"id": i} for i in range(len(skeleton))],
    }
    nodes = [{"name": name, "weight": 1.0} for name in skeleton.keypoints]
    empty: dict[str, Any] = {"videos": [], "tracks": [], "suggestions": [], "negative_anchors": {}, "provenance": {}}
    return {"version": "2.0.0", "skeletons": [graph], "nodes": nodes, **empty}
