"""CVAT XML 1.1, "for images" and "for video": skeletons, points and boxes.

Coordinates are continuous pixels from the image's corner. A keypoint with ``outside="1"`` is unlabelled, one with
``occluded="1"`` is hidden. A box belongs to the skeleton with the same ``group_id``, or to the one whose points it is
smallest around. In videos, frames between two key frames of a track are interpolated linearly, as CVAT shows them.

Source: CVAT, XML annotation format 1.1. (CVAT's "COCO Keypoints" export is read by the format ``coco``.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from kplab.data.formats._builder import Builder
from kplab.data.formats._files import clean, copy_images, number, posix, read_xml, write_xml, xml_root
from kplab.data.formats._grouping import Part, group_parts
from kplab.data.holds import Holds, instances_of
from kplab.data.naming import Names
from kplab.errors import DataError
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

HOLDS = Holds(visibility=True, boxes=True, bare=True, precision=1e-6)
MAX_FRAMES = 10_000_000


@dataclass(frozen=True)
class Shown:
    """A shape in one frame of a track."""

    frame: int
    outside: bool
    parts: list[tuple[str, np.ndarray, bool]]


def recognise(path: Path) -> bool:
    """Whether a file is CVAT's XML."""
    return xml_root(path) == "annotations"


def names(path: Path) -> Names:
    """Labels of the points of all skeletons, in the order in which they first occur."""
    root = _root(path)
    found = dict.fromkeys(p.get("label", "") for s in root.iter("skeleton") for p in s.iter("points"))
    return Names(tuple(found))


def read(
    annotations: str | Path,
    images: str | Path,
    skeleton: Skeleton,
    frame_name: str = "frame_{:06d}.PNG",
    rename: Mapping[str, str] | None = None,
    box_margin: float = 1.2,
    allow_outside: bool = False,
) -> Labels:
    """Read an export of a task or a job.

    Args:
        annotations: the XML file.
        images: folder of the images; of a video, of its frames.
        skeleton: its names must be the labels of the skeletons' points.
        frame_name: file name of a frame of a video by its number, as CVAT exports them.
        rename: label of a point to keypoint of the skeleton, where they differ.
        box_margin: factor on the extent of the keypoints that makes a missing box.
        allow_outside: allow file names that lead out of the image folder.

    Raises:
        DataError: the file is damaged, a label is unknown, or points and boxes can't be assigned to subjects.
    """
    path = Path(annotations)
    root = _root(path)
    builder = Builder(skeleton, path)
    builder.check_names((p.get("label", "") for s in root.iter("skeleton") for p in s.iter("points")), rename)
    tracks = root.findall("track")
    if tracks:
        _read_tracks(root, tracks, builder, skeleton, rename or {}, frame_name)
    for element in root.findall("image"):
        name, where = posix(element.get("name", "")), f"{path}, image {element.get('name', '')}"
        size = tuple(int(_real(element, side, where)) for side in ("width", "height"))
        image = builder.image(name, size)  # type: ignore[arg-type]
        for subject in group_parts(list(_image_parts(element, rename or {}, where, builder)), where):
            builder.instance(image, *subject.arrays(skeleton, where))
    return builder.labels(Path(images), [path], box_margin=box_margin, allow_outside=allow_outside)


def _root(path: Path) -> Element:
    return read_xml(path, "CVAT XML export", "annotations")


def _real(element: Element, key: str, where: str) -> float:
    value = number(element.get(key, ""), f"{where}, <{element.tag}>, {key}")
    if not -1e9 < value < 1e9:
        raise DataError(f"{where}: <{element.tag}> has no {key}. Export the file again.")
    return value


def _points(element: Element, where: str) -> np.ndarray:
    """(N, 2) of a list "x,y;x,y"."""
    pairs = [pair.split(",") for pair in element.get("points", "").split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise DataError(f"{where}: points are '{element.get('points', '')[:40]}', expected x,y;x,y. Export it again.")
    return np.array([[number(v, where) for v in pair] for pair in pairs])


def _box(element: Element, where: str) -> np.ndarray:
    return np.array([_real(element, key, where) for key in ("xtl", "ytl", "xbr", "ybr")])


def _skeleton_parts(element: Element, rename: Mapping[str, str], where: str) -> list[tuple[str, np.ndarray, bool]]:
    """Label, position and whether it is hidden, of each point that is in the image."""
    parts = []
    for point in element.findall("points"):
        if point.get("outside") == "1":
            continue
        xy = _points(point, where)
        if len(xy) != 1 or not np.isfinite(xy).all():
            raise DataError(f"{where}: point '{point.get('label')}' of a skeleton is not one x,y. Export it again.")
        label = point.get("label", "")
        parts.append((rename.get(label, label), xy[0], point.get("occluded") == "1"))
    return parts


def _image_parts(element: Element, rename: Mapping[str, str], where: str, builder: Builder) -> Iterator[Part]:
    boxes: list[tuple[str | None, np.ndarray]] = []
    for drawn in element.findall("box"):
        boxes.append((drawn.get("group_id"), _box(drawn, where)))
    grouped = {group for group, _ in boxes if group not in (None, "0")}
    free = [box for group, box in boxes if group in (None, "0")]
    for group, box in boxes:
        if group in grouped:
            yield Part("box", box=box, group=f"group {group}")
    for n, skeleton in enumerate(element.findall("skeleton")):
        parts = _skeleton_parts(skeleton, rename, where)
        group = skeleton.get("group_id")
        key = f"skeleton {n}"
        if group in grouped:
            key = f"group {group}"
        elif parts and free:
            xy = np.array([p[1] for p in parts])
            around = [i for i, b in enumerate(free) if (xy >= b[:2]).all() and (xy <= b[2:]).all()]
            if around:
                box = free.pop(min(around, key=lambda i: float(np.prod(free[i][2:] - free[i][:2]))))
                yield Part("box", box=box, group=key)
        for label, xy, hidden in parts:
            yield Part(label, xy, group=key, hidden=hidden)
    for n, box in enumerate(free):
        yield Part("box", box=box, group=f"box {n}")
    others = [child for child in element if child.tag not in ("box", "skeleton", "tag")]
    for child in others:
        builder.notes[f"shapes <{child.tag}> are left out"] += 1


def _read_tracks(
    root: Element, tracks: list[Element], builder: Builder, skeleton: Skeleton, rename: Mapping[str, str], pattern: str
) -> None:
    """Add the frames and subjects of a video."""
    where = str(builder.where)
    size_element = root.find("meta//original_size")
    size = None
    if size_element is not None:
        sides = [number(size_element.findtext(key) or "", where) for key in ("width", "height")]
        size = (int(sides[0]), int(sides[1])) if np.isfinite(sides).all() else None
    in_frame: dict[int, list[tuple[int, list[tuple[str, np.ndarray, bool]]]]] = defaultdict(list)
    for track_number, track in enumerate(tracks):
        if track.find("skeleton") is None:
            builder.notes["tracks without a skeleton are left out"] += 1
            continue
        shown = []
        for element in track.findall("skeleton"):
            frame = _real(element, "frame", where)
            if not 0 <= frame < MAX_FRAMES or frame % 1:
                raise DataError(f"{where}: track {track_number} has the frame {frame:g}. Export the file again.")
            parts = _skeleton_parts(element, rename, f"{where}, frame {frame:g}")
            shown.append(Shown(int(frame), element.get("outside") == "1", parts))
        for one in _filled(sorted(shown, key=lambda s: s.frame)):
            if not one.outside and one.parts:
                in_frame[one.frame].append((track_number, one.parts))
    video = root.findtext("meta//source") or "video"
    for frame in sorted(in_frame):
        try:
            name = pattern.format(frame)
        except (IndexError, KeyError, ValueError) as error:
            raise DataError(
                f"{where}: frame_name='{pattern}' is no pattern of names. Write frame_{{:06d}}.PNG."
            ) from error
        image = builder.image(name, size, group=video)
        for track_number, parts in in_frame[frame]:
            listed = [Part(label, xy, group=str(track_number), hidden=hidden) for label, xy, hidden in parts]
            (subject,) = group_parts(listed, f"{where}, frame {frame}")
            xy, visible, _ = subject.arrays(skeleton, f"{where}, frame {frame}, track {track_number}")
            builder.instance(image, xy, visible, track=track_number)


def _filled(shown: list[Shown]) -> Iterator[Shown]:
    """The frames of a track, and those between its key frames, interpolated."""
    for now, then in zip(shown, [*shown[1:], None], strict=True):
        yield now
        if then is None or now.outside:
            continue
        last = {label: xy for label, xy, _ in then.parts}
        for frame in range(now.frame + 1, then.frame):
            share = (frame - now.frame) / (then.frame - now.frame)
            parts = [(label, xy + share * (last.get(label, xy) - xy), hidden) for label, xy, hidden in now.parts]
            yield Shown(frame, False, parts)


def write(labels: Labels, path: str | Path, copy: bool = False) -> Path:
    """Write CVAT's XML for images: a skeleton and a box for each subject, joined by their group.

    Args:
        labels: what to write.
        path: the XML file; images are named relative to its folder.
        copy: copy the images there as well.
    """
    path, name = Path(path), labels.skeleton.name
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    for i, image_name in enumerate(labels.names):
        width, height = (str(int(v)) for v in labels.size[i])
        image = ElementTree.SubElement(root, "image", id=str(i), name=str(image_name), width=width, height=height)
        for group, row in enumerate(instances_of(labels, i), 1):
            if labels.crowd[row]:
                continue
            common = {"label": name, "source": "manual", "occluded": "0", "z_order": "0", "group_id": str(group)}
            if np.isfinite(labels.poses.box[row]).all():
                corners = zip(("xtl", "ytl", "xbr", "ybr"), labels.poses.box[row], strict=True)
                ElementTree.SubElement(image, "box", {**common, **{key: str(clean(v)) for key, v in corners}})
            if not (labels.poses.visible[row] > 0).any():
                continue
            skeleton = ElementTree.SubElement(image, "skeleton", common)
            for k, label in enumerate(labels.skeleton.keypoints):
                visible = int(labels.poses.visible[row, k])
                xy = np.nan_to_num(labels.poses.xy[row, k])
                flags = {"outside": str(int(visible == 0)), "occluded": str(int(visible == 1))}
                position = {"points": f"{clean(xy[0])},{clean(xy[1])}"}
                ElementTree.SubElement(skeleton, "points", {"label": label, **flags, **position})
    if copy:
        copy_images(labels, path.parent, labels.names)
    return write_xml(root, path)
