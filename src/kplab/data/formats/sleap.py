"""SLEAP labels: ``.slp`` files (HDF5) with the video that they are on.

SLEAP stores pixel indices from 0; user instances of files older than format 1.1 have the image's corner at 0, that is
continuous coordinates. It stores no boxes and no areas: boxes come from the keypoints, and an area is that of its box.
Tracks are kept, with their names. Frames are written as images once, by ``data.video``.

Source: talmolab/sleap, ``sleap/io/format/hdf5.py``, formats 1.0 to 1.3 (later 1.x add tables that kplab does not use).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from kplab.data.apart import read_apart
from kplab.data.images import read_header
from kplab.data.reading import boxes_around, labels_from, match_keypoints, some
from kplab.data.sources.files import FileSource
from kplab.data.video import frame_name, write_frames
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.labels import Extras, Labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

MIDPIXEL_SINCE = 1.1
PREDICTED = 1


FORMAT = "sleap"


@dataclass(frozen=True)
class Head:
    """What ``Extras.head`` holds; ``Extras.instance`` holds SLEAP's own score of each predicted instance.

    Args:
        tracks: name of each track.
    """

    tracks: tuple[str, ...]


@dataclass
class File:
    """The tables of a ``.slp`` and the contents of its JSON."""

    path: Path
    format_id: float
    skeletons: list[list[str]]
    videos: list[Mapping[str, Any]]
    tracks: list[str]
    frames: np.ndarray
    instances: np.ndarray
    points: np.ndarray
    pred_points: np.ndarray

    def frame(self, row: int) -> str:
        """A frame in words."""
        return f"frame {self.frames['frame_idx'][row]} of video {self.frames['video'][row]}"


def read(
    labels: str | Path,
    skeleton: Skeleton,
    frames_to: str | Path,
    video: str | Path | Sequence[str | Path] | None = None,
    frames: Sequence[int] | None = None,
    predicted: bool = False,
    box_margin: float = 1.2,
    rename: Mapping[str, str] | None = None,
) -> Labels:
    """Read a ``.slp`` file; an image's group is its video, names of tracks are in ``Labels.extras``.

    Frames without an instance are left out, since SLEAP does not state whether such a frame is empty or unfinished; so
    are instances without a point. Points marked as not visible become unlabelled, as in SLEAP's own training.

    Args:
        labels: the ``.slp`` file.
        skeleton: its names must be the nodes of the file's skeleton, in any order.
        frames_to: folder for the videos' frames, see ``data.video``; only frames that are read are written.
        video: the video, or one for each video of the file; null looks beside the ``.slp``, then at the path in it.
        frames: [start, stop, step]: of the labelled frames from number start and before stop, every step-th.
        predicted: read predicted instances as truth as well, where no user instance supersedes them.
        box_margin: factor on the extent of the keypoints that makes a box.
        rename: node to keypoint of the skeleton, where they differ.

    Raises:
        DataError: the file or a video is missing or broken, or contradicts itself or the skeleton.
    """
    file = _load(Path(labels))
    _check(file)
    frame_of, rows, notes = _instances(file, predicted)
    xy, visible, hidden = _points(file, rows, skeleton, rename)
    pointless = ~(visible > 0).any(1)
    _refuse_copies(file, frame_of[~pointless], xy[~pointless])
    labelled = np.unique(frame_of[~pointless])
    empty = len(file.frames) - len(labelled)
    notes += hidden
    if pointless.any():
        notes.append(f"{int(pointless.sum())} instances without a point are left out")
    if empty:
        notes.append(f"{empty} of {len(file.frames)} frames are left out: no instance in them is taken for truth")
    kept = _chosen(file, labelled, frames)
    names, groups, size = _images(file, kept, Path(frames_to), video)
    image_of = np.full(len(file.frames), -1)
    image_of[kept] = np.arange(len(kept))
    shown = (image_of[frame_of] >= 0) & ~pointless
    image_of, rows = image_of[frame_of[shown]], rows[shown]
    ids, table = np.arange(1, len(rows) + 1), file.instances[rows]
    guessed = table["instance_type"] == PREDICTED
    labelled_frames = labels_from(
        skeleton,
        FileSource(frames_to, names),
        np.arange(1, len(names) + 1),
        size,
        groups,
        xy[shown],
        visible[shown],
        image_of,
        ids,
        box_margin=box_margin,
        area_share=1.0,
        track=_tracks(file, table),
        notes=notes,
        extras=Extras(
            FORMAT,
            Head(tuple(file.tracks)),
            instance=dict(zip(ids[guessed].tolist(), table["score"][guessed].astype(float).tolist(), strict=True)),
        ),
        files=[file.path],
    )
    labelled_frames.area_source = f"area of the keypoints' padded box ({labelled_frames.box_source})"
    return labelled_frames


def read_frames(
    labels: str | Path, skeleton: Skeleton, predicted: bool = False, box_margin: float = 1.2
) -> dict[int, Poses]:
    """The poses of a video by number of frame, ascending, without its images: the video need not be there.

    Args:
        labels: the ``.slp`` file, of one video.
        skeleton: it has all nodes of the file, and may have more: these are unlabelled.
        predicted: read predicted instances as well, where no user instance supersedes them; they have SLEAP's scores.
        box_margin: factor on the extent of the keypoints that makes a box; an area is that of its box.

    Raises:
        DataError: the file is missing or broken, has several videos, or has nodes that the skeleton lacks.
    """
    file = _load(Path(labels))
    _check(file)
    if len(np.unique(file.frames["video"])) != 1:
        raise DataError(f"{file.path}: has frames of {len(np.unique(file.frames['video']))} videos, not of one.")
    nodes = tuple({node: None for number in np.unique(file.instances["skeleton"]) for node in file.skeletons[number]})
    unknown = [node for node in nodes if node not in skeleton.keypoints]
    if unknown:
        raise DataError(
            f"{file.path}: skeleton '{skeleton.name}' lacks the nodes {some(unknown)}. Name the skeleton of this file."
        )
    frame_of, rows, _ = _instances(file, predicted)
    own = Skeleton(skeleton.name, nodes, (), tuple(range(len(nodes))), (1.0,) * len(nodes), "not used")
    found, visible, _ = _points(file, rows, own, None)
    columns = [skeleton.index(node) for node in nodes]
    xy, seen = np.full((len(rows), len(skeleton), 2), np.nan), np.zeros((len(rows), len(skeleton)), dtype=np.uint8)
    xy[:, columns], seen[:, columns] = found, visible
    table = file.instances[rows]
    score = np.where(table["instance_type"] == PREDICTED, table["score"], 1.0)
    poses = Poses.make(xy, seen, score, track=_tracks(file, table))
    poses.box = boxes_around(poses, box_margin)
    poses.area = (poses.box[:, 2:] - poses.box[:, :2]).prod(1)
    some_point = poses.labelled.any(1)
    numbers = file.frames["frame_idx"]
    return {
        int(numbers[row]): poses[(frame_of == row) & some_point] for row in np.argsort(numbers, kind="stable").tolist()
    }


def _tracks(file: File, table: np.ndarray) -> np.ndarray:
    """The track of each instance; -1 where it has none."""
    track = table["track"].astype(np.int64)
    return np.where(track < len(file.tracks), np.maximum(track, -1), -1)


def _load(path: Path) -> File:
    if not path.is_file():
        raise DataError(f"{path}: no such SLEAP file. Check the path of the dataset's labels.")
    try:
        found = read_apart("kplab.data.formats._slp_tables:tables", path)
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ").removesuffix(".")
        raise DataError(f"{path}: not a whole SLEAP .slp file ({reason}). Save it again from SLEAP.") from error
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


def _skeletons(header: Mapping[str, Any]) -> list[list[str]]:
    """Node names of each skeleton, in the order of its points; the file stores indices into a list that all skeletons share."""
    names = [str(node["name"]) for node in header["nodes"]]
    graphs = [s.get("nx_graph", s) for s in header["skeletons"]]
    return [[names[node["id"]] for node in graph["nodes"]] for graph in graphs]


def _check(file: File) -> None:
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
    nodes = np.array([len(s) for s in file.skeletons], dtype=np.int64)
    begin, stop = i["point_id_start"].astype(np.int64), i["point_id_end"].astype(np.int64)
    limit = np.where(i["instance_type"] == PREDICTED, len(file.pred_points), len(file.points))
    wrong = (stop - begin != nodes[i["skeleton"]]) | (begin < 0) | (stop > limit)
    if wrong.any():
        raise DataError(
            f"{file.path}: instances {some(np.flatnonzero(wrong))} do not have as many points as their skeleton has "
            f"nodes. {remedy}"
        )


def _instances(file: File, predicted: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The instances that are truth: frame row and instance row of each, and notes on the others."""
    counts = (file.frames["instance_id_end"] - file.frames["instance_id_start"]).astype(np.int64)
    frame_of = np.repeat(np.arange(len(file.frames)), counts)
    first = np.cumsum(counts) - counts
    rows = np.arange(counts.sum()) - np.repeat(first - file.frames["instance_id_start"].astype(np.int64), counts)
    table = file.instances[rows]
    guessed = table["instance_type"] == PREDICTED
    if not predicted:
        notes = [f"{int(guessed.sum())} predicted instances are left out"] if guessed.any() else []
        return frame_of[~guessed], rows[~guessed], notes
    user = ~guessed
    track = table["track"].astype(np.int64)
    place = np.stack([frame_of, track], axis=1)
    tracked = {tuple(p) for p in place[user & (track >= 0)].tolist()}
    corrected = set(table["from_predicted"][user].tolist())
    superseded = guessed & np.array(
        [tuple(p) in tracked or row in corrected for p, row in zip(place.tolist(), rows.tolist(), strict=True)],
        dtype=bool,
    )
    notes = []
    if superseded.any():
        notes.append(f"{int(superseded.sum())} predicted instances are left out, which user instances supersede")
    if (guessed & ~superseded).any():
        notes.append(f"{int((guessed & ~superseded).sum())} predicted instances are taken for truth")
    return frame_of[~superseded], rows[~superseded], notes


def _points(
    file: File, rows: np.ndarray, skeleton: Skeleton, rename: Mapping[str, str] | None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(N, K, 2) continuous pixels and (N, K) visibility of instances."""
    table = file.instances[rows]
    xy = np.full((len(rows), len(skeleton), 2), np.nan)
    visible = np.zeros(xy.shape[:2], dtype=bool)
    for number in np.unique(table["skeleton"]):
        order = match_keypoints(file.skeletons[number], skeleton, f"{file.path}: skeleton {number}", rename)
        for kind, points in ((0, file.points), (PREDICTED, file.pred_points)):
            here = (table["skeleton"] == number) & ((table["instance_type"] == PREDICTED) == (kind == PREDICTED))
            places = table["point_id_start"][here].astype(np.int64)[:, None] + order
            stored = np.stack([points["x"][places], points["y"][places]], axis=-1)
            # predicted points are pixel indices in all versions of the format
            continuous = kind != PREDICTED and file.format_id < MIDPIXEL_SINCE
            xy[here] = stored if continuous else affine.from_pixel_index(stored)
            visible[here] = points["visible"][places]
    odd = np.isinf(xy).any((1, 2)) | (np.isnan(xy[..., 0]) != np.isnan(xy[..., 1])).any(1)
    if odd.any():
        raise DataError(
            f"{file.path}: instances {some(rows[odd])} have points that are infinite, or x without y. Delete or place "
            "these points again in SLEAP."
        )
    hidden = int((np.isfinite(xy[..., 0]) & ~visible).sum())
    notes = [f"{hidden} points that are marked as not visible are taken as unlabelled"] if hidden else []
    return xy, np.where(visible & np.isfinite(xy[..., 0]), 2, 0), notes


def _refuse_copies(file: File, frame_of: np.ndarray, xy: np.ndarray) -> None:
    content = np.concatenate([frame_of[:, None], np.nan_to_num(xy.reshape(len(xy), 2 * xy.shape[1]), nan=-1e9)], axis=1)
    found, count = np.unique(content, axis=0, return_counts=True)
    if (count > 1).any():
        where = some(file.frame(int(r)) for r in found[count > 1, 0])
        raise DataError(f"{file.path}: two instances of a frame have the same points: {where}. Delete one in SLEAP.")


def _chosen(file: File, kept: np.ndarray, frames: Sequence[int] | None) -> np.ndarray:
    """Frame rows in the order of video and number, those that ``frames`` selects."""
    table = file.frames[kept]
    kept = kept[np.lexsort((table["frame_idx"], table["video"]))]
    if frames is not None:
        if len(frames) != 3 or frames[0] < 0 or frames[1] <= frames[0] or frames[2] < 1:
            raise DataError(f"{file.path}: frames={list(frames)}, but needs [start, stop, step] with start < stop.")
        start, stop, step = frames
        table = file.frames[kept]
        within = kept[(table["frame_idx"] >= start) & (table["frame_idx"] < stop)]
        videos = file.frames["video"][within]
        kept = np.concatenate([within[videos == v][::step] for v in np.unique(videos)] or [within])
    if not len(kept):
        asked = "" if frames is None else f" from {frames[0]} to {frames[1]}"
        raise DataError(
            f"{file.path}: no frame{asked} has an instance with a point. Choose other frames, or predicted=true where "
            "predictions are to be read as truth."
        )
    return kept


def _images(
    file: File, kept: np.ndarray, folder: Path, given: str | Path | Sequence[str | Path] | None
) -> tuple[list[str], list[str], np.ndarray]:
    """File names relative to ``folder``, groups and (I, 2) sizes of frames; writes what is missing."""
    listed = [given] if isinstance(given, str | Path) else given
    if listed is not None and len(listed) != len(file.videos):
        raise DataError(
            f"{file.path}: has {len(file.videos)} videos, but video= names {len(listed)}. Name one for each, in the "
            f"order {some(_stored(v) for v in file.videos)}."
        )
    videos, numbers = file.frames["video"][kept], file.frames["frame_idx"][kept]
    found = {int(v): _find(file, int(v), None if listed is None else Path(listed[v])) for v in np.unique(videos)}
    if len({path.resolve() for path in found.values()}) < len(found):
        raise DataError(
            f"{file.path}: several of its videos are the same file: {some(found.values())}. Name each with video=[…]."
        )
    homes, sizes = {}, {}
    for v, path in found.items():
        homes[v] = write_frames(path, numbers[videos == v], folder)
        sizes[v] = read_header(homes[v] / frame_name(int(numbers[videos == v][0])))[0]
    groups = [homes[int(v)].name for v in videos]
    names = [f"{group}/{frame_name(int(n))}" for group, n in zip(groups, numbers, strict=True)]
    return names, groups, np.array([sizes[int(v)] for v in videos], dtype=np.int64).reshape(-1, 2)


def _stored(video: Mapping[str, Any]) -> str:
    """The path of a video as stored in the file, which may be a path of another machine."""
    return str(video.get("backend", {}).get("filename") or video.get("filename") or "")


def _find(file: File, number: int, given: Path | None) -> Path:
    if given is not None:
        return given
    stored = _stored(file.videos[number])
    remedy = "Put the video beside the .slp file, or name it with video=."
    if stored == "." or "filenames" in file.videos[number].get("backend", {}):
        kind = "images inside the .slp" if stored == "." else "a list of images"
        raise DataError(f"{file.path}: its video {number} is {kind}, which kplab does not read. {remedy}")
    beside = file.path.parent / PureWindowsPath(stored).name  # splits at both kinds of slashes
    places = [beside, file.path.parent / stored, Path(stored)]
    for place in places:
        try:
            if stored and place.is_file():
                return place
        except OSError:  # such as a name that is too long
            continue
    raise DataError(f"{file.path}: its video '{stored}' is neither at that path nor beside it. {remedy}")
