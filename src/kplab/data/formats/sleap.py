"""SLEAP labels: ``.slp`` files (HDF5) with the video that they are on.

SLEAP stores pixel indices from 0; user instances of files older than format 1.1 have the image's corner at 0, that is
continuous coordinates. It stores no boxes and no areas: boxes come from the keypoints, and an area is that of its box.
Tracks are kept, with their names. Frames are written as images once, by ``data.video``.

Source: talmolab/sleap, ``sleap/io/format/hdf5.py``, formats 1.0 to 1.3 (later 1.x add tables that kplab does not use).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from kplab.data.formats._files import below, copy_images, image_sizes
from kplab.data.formats._slp_file import PREDICTED, File, check, load
from kplab.data.formats._slp_write import write_tables
from kplab.data.holds import Holds
from kplab.data.images import read_header
from kplab.data.naming import Names
from kplab.data.reading import boxes_around, labels_from, match_keypoints, some
from kplab.data.sources.files import FileSource
from kplab.data.video import frame_name, write_frames
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.labels import Extras, Labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

MIDPIXEL_SINCE = 1.1
FORMAT = "sleap"
HOLDS = Holds(empty=False, tracks=True, precision=1e-9)


@dataclass(frozen=True)
class Head:
    """What ``Extras.head`` holds; ``Extras.instance`` holds SLEAP's own score of each predicted instance.

    Args:
        tracks: name of each track.
    """

    tracks: tuple[str, ...]


def recognise(path: Path) -> bool:
    """Whether a file is SLEAP's."""
    return path.suffix == ".slp" and path.is_file()


def names(path: Path) -> Names:
    """Nodes and edges of the file's first skeleton."""
    skeletons = load(path).skeletons
    if not skeletons:
        raise DataError(f"{path}: has no skeleton. Save the file again from SLEAP.")
    return skeletons[0]


def read(
    labels: str | Path,
    skeleton: Skeleton,
    frames_to: str | Path,
    video: str | Path | Sequence[str | Path] | None = None,
    frames: Sequence[int] | None = None,
    predicted: bool = False,
    box_margin: float = 1.2,
    rename: Mapping[str, str] | None = None,
    images: str | Path | None = None,
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
        images: folder of the images, where the file lists images in place of a video; null is the file's own. The longest
            end of a stored path that is a file in it is the image.

    Raises:
        DataError: the file or a video is missing or broken, or contradicts itself or the skeleton.
    """
    return labels_of(load(Path(labels)), skeleton, frames_to, video, frames, predicted, box_margin, rename, images)


def labels_of(
    file: File,
    skeleton: Skeleton,
    frames_to: str | Path,
    video: str | Path | Sequence[str | Path] | None,
    frames: Sequence[int] | None,
    predicted: bool,
    box_margin: float,
    rename: Mapping[str, str] | None,
    images: str | Path | None,
) -> Labels:
    """Labels of a file's tables; the arguments are those of ``read``."""
    check(file)
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
    source, groups, size = _images(file, kept, Path(frames_to), video, images)
    image_of = np.full(len(file.frames), -1)
    image_of[kept] = np.arange(len(kept))
    shown = (image_of[frame_of] >= 0) & ~pointless
    image_of, rows = image_of[frame_of[shown]], rows[shown]
    ids, table = np.arange(1, len(rows) + 1), file.instances[rows]
    guessed = table["instance_type"] == PREDICTED
    labelled_frames = labels_from(
        skeleton,
        source,
        np.arange(1, len(source) + 1),
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
    file = load(Path(labels))
    check(file)
    if len(np.unique(file.frames["video"])) != 1:
        raise DataError(f"{file.path}: has frames of {len(np.unique(file.frames['video']))} videos, not of one.")
    nodes = tuple(
        {node: None for number in np.unique(file.instances["skeleton"]) for node in file.skeletons[number].keypoints}
    )
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
        order = match_keypoints(file.skeletons[number].keypoints, skeleton, f"{file.path}: skeleton {number}", rename)
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
    file: File,
    kept: np.ndarray,
    folder: Path,
    given: str | Path | Sequence[str | Path] | None,
    images: str | Path | None,
) -> tuple[FileSource, list[str] | None, np.ndarray]:
    """Images, groups and (I, 2) sizes of frames; writes the frames of videos that are missing in ``folder``."""
    lists = [_listed(video) for video in file.videos]
    used = np.unique(file.frames["video"][kept]).tolist()
    if given is None and all(lists[v] for v in used):
        return _image_lists(file, kept, lists, file.path.parent if images is None else Path(images))
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
    return FileSource(folder, names), groups, np.array([sizes[int(v)] for v in videos], dtype=np.int64).reshape(-1, 2)


def _listed(video: Mapping[str, Any]) -> list[str]:
    """Images that a video is made of; empty where it is a film."""
    listed = video.get("backend", {}).get("filenames") or video.get("filename")
    return [str(name) for name in listed] if isinstance(listed, list) else []


def _image_lists(
    file: File, kept: np.ndarray, lists: list[list[str]], root: Path
) -> tuple[FileSource, list[str] | None, np.ndarray]:
    """Images that the file lists. Each is a group of its own, or, of several lists, a list is."""
    frames = file.frames[kept]
    beyond = [
        file.frame(int(row)) for row in kept if file.frames["frame_idx"][row] >= len(lists[file.frames["video"][row]])
    ]
    if beyond:
        raise DataError(f"{file.path}: frames are beyond the images that it lists: {some(beyond)}. Save it again.")
    stored = [lists[v][int(i)] for v, i in zip(frames["video"].tolist(), frames["frame_idx"].tolist(), strict=True)]
    names = [below(root, name) for name in stored]
    missing = [was for was, name in zip(stored, names, strict=True) if name is None]
    if missing:
        raise DataError(f"{file.path}: {len(missing)} images are not below {root}: {some(missing)}. Use images=.")
    found = [str(name) for name in names]
    groups = [f"video{v}" for v in frames["video"].tolist()] if len(set(frames["video"].tolist())) > 1 else None
    return FileSource(root, found), groups, image_sizes(root, found)


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


def write(labels: Labels, path: str | Path, copy: bool = False) -> Path:
    """Write a ``.slp`` file with user instances on a list of images.

    Args:
        labels: what to write; images without a labelled instance are listed, but have no frame.
        path: the ``.slp`` file.
        copy: copy the images beside it as well.
    """
    path = Path(path)
    if copy:
        copy_images(labels, path.parent, labels.names)
    files = [_stored_path(labels, i, path.parent if copy else None) for i in range(len(labels))]
    tracks = labels.extras.head.tracks if labels.extras is not None and labels.extras.format == FORMAT else ()
    write_tables(labels, path, files, tracks)
    return path


def _stored_path(labels: Labels, i: int, folder: Path | None) -> str:
    """An absolute path, as SLEAP stores them; the name of an image that is not a file."""
    source = labels.path(i) if folder is None else folder / str(labels.names[i])
    return str(labels.names[i]) if source is None else source.absolute().as_posix()
