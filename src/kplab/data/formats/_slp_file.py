"""A ``.slp`` file: its tables, skeletons, videos and tracks, read and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kplab.data.apart import read_apart
from kplab.data.naming import Names
from kplab.data.reading import some
from kplab.errors import DataError

TABLES = "kplab.data.formats._slp_tables:tables"
PREDICTED = 1


@dataclass
class File:
    """The tables of a ``.slp`` and the contents of its JSON."""

    path: Path
    format_id: float
    skeletons: list[Names]
    videos: list[Mapping[str, Any]]
    tracks: list[str]
    frames: np.ndarray
    instances: np.ndarray
    points: np.ndarray
    pred_points: np.ndarray

    def frame(self, row: int) -> str:
        """A frame in words."""
        return f"frame {self.frames['frame_idx'][row]} of video {self.frames['video'][row]}"


def load(path: Path, tables: str = TABLES) -> File:
    """The tables of a file.

    Args:
        tables: function that reads them, in another process.

    Raises:
        DataError: the file is missing, damaged, or is not SLEAP's.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such SLEAP file. Check the path of the dataset's labels.")
    kind = "SLEAP .slp file" if tables == TABLES else "NWB file with training data of poses"
    try:
        found = read_apart(tables, path)
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ").removesuffix(".")
        raise DataError(f"{path}: not a whole {kind} ({reason}). Export it again.") from error
    try:
        header = json.loads(str(found["json"]))
        videos, tracks = (
            [json.loads(item) for item in json.loads(str(found[key]))] if key in found else []
            for key in ("videos_json", "tracks_json")
        )
        skeletons = _skeletons(header)
        videos = videos or header.get("videos") or []
        names = [str(track[1]) for track in tracks]
        if not all(isinstance(v, dict) and isinstance(v.get("backend", {}), dict) for v in videos):
            raise ValueError("a video is not described as SLEAP does")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path}: its skeletons, videos or tracks cannot be read ({type(error).__name__}: {error}). Save the file "
            "again from SLEAP."
        ) from error
    stated = {name: found[name] for name in ("frames", "instances", "points", "pred_points")}
    return File(path, float(found["format_id"]), skeletons, videos, names, **stated)


def _skeletons(header: Mapping[str, Any]) -> list[Names]:
    """Nodes of each skeleton, in the order of its points, and edges; the file stores indices into a list that all share."""
    shared = [str(node["name"]) for node in header["nodes"]]
    found = []
    for graph in (s.get("nx_graph", s) for s in header["skeletons"]):
        nodes = [int(node["id"]) for node in graph["nodes"]]
        links = [(link["source"], link["target"], link.get("type", {})) for link in graph.get("links", [])]
        # other links pair the nodes that a mirror image exchanges
        body = [(a, b) for a, b, kind in links if not _symmetric(kind, [t for _, _, t in links])]
        edges = tuple((nodes.index(a), nodes.index(b)) for a, b in body if a in nodes and b in nodes and a != b)
        found.append(Names(tuple(shared[i] for i in nodes), tuple(dict.fromkeys(edges))))
    return found


def _symmetric(kind: Any, kinds: list[Any]) -> bool:
    """Whether a link is of SLEAP's second type; a type is written out once, and later links refer to it by number."""
    stated = [k["py/reduce"][1]["py/tuple"][0] for k in kinds if "py/reduce" in k]
    if "py/reduce" in kind:
        return bool(kind["py/reduce"][1]["py/tuple"][0] == 2)
    number = int(kind.get("py/id", 1))
    return bool(0 < number <= len(stated) and stated[number - 1] == 2)


def check(file: File) -> None:
    """Refuse tables that refer to missing rows, and frames that occur twice."""
    f, i = file.frames, file.instances
    remedy = "The file is damaged: save it again from SLEAP."
    start, end = f["instance_id_start"].astype(np.int64), f["instance_id_end"].astype(np.int64)
    wrong = (start > end) | (end > len(i)) | (f["video"] >= len(file.videos))
    if wrong.any():
        where = some(file.frame(int(r)) for r in np.flatnonzero(wrong))
        raise DataError(f"{file.path}: frames name instances or videos that the file does not have: {where}. {remedy}")
    _, first, count = np.unique(f[["video", "frame_idx"]], return_index=True, return_counts=True)
    if (count > 1).any():
        where = some(file.frame(int(r)) for r in first[count > 1])
        raise DataError(f"{file.path}: frames are labelled twice: {where}. Merge or delete one of each in SLEAP.")
    if (i["skeleton"] >= len(file.skeletons)).any():
        raise DataError(f"{file.path}: instances name a skeleton that the file does not have. {remedy}")
    nodes = np.array([len(s.keypoints) for s in file.skeletons], dtype=np.int64)
    begin, stop = i["point_id_start"].astype(np.int64), i["point_id_end"].astype(np.int64)
    limit = np.where(i["instance_type"] == PREDICTED, len(file.pred_points), len(file.points))
    wrong = (stop - begin != nodes[i["skeleton"]]) | (begin < 0) | (stop > limit)
    if wrong.any():
        raise DataError(
            f"{file.path}: instances {some(np.flatnonzero(wrong))} do not have as many points as their skeleton has "
            f"nodes. {remedy}"
        )
