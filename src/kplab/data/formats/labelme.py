"""LabelMe and X-AnyLabeling JSON: one file for each image, with points and rectangles.

Coordinates are continuous pixels from the image's corner. Points and rectangles of one subject have the same ``group_id``;
without one, a point belongs to the smallest rectangle around it, or to the only subject of the image. A point with the flag
``occluded`` or ``hidden`` (LabelMe) or ``difficult`` (X-AnyLabeling) is hidden.

Source: wkentaro/labelme, ``labelme/_label_file.py``; CVHub520/X-AnyLabeling, ``views/labeling/label_file.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np

from kplab.data.formats._builder import Builder
from kplab.data.formats._files import clean, copy_images, json_keys, posix, read_json, write_json
from kplab.data.formats._grouping import Part, group_parts
from kplab.data.holds import Holds, instances_of
from kplab.data.naming import Names
from kplab.data.reading import some
from kplab.errors import DataError
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

HOLDS = Holds(visibility=True, boxes=True, bare=True, precision=1e-6)
HIDDEN = ("occluded", "hidden")
VERSION = "5.4"


class Shape(msgspec.Struct):
    """A shape, as far as kplab uses it."""

    label: str
    points: list[list[float]]
    shape_type: str = "polygon"
    group_id: int | None = None
    flags: dict[str, Any] | None = None
    difficult: bool | None = False


class File(msgspec.Struct):
    """A file of one image, as far as kplab uses it."""

    shapes: list[Shape]
    image_path: str = msgspec.field(name="imagePath")
    width: int | None = msgspec.field(name="imageWidth", default=None)
    height: int | None = msgspec.field(name="imageHeight", default=None)


def recognise(path: Path) -> bool:
    """Whether a folder has, or a file is, JSON of LabelMe."""
    return {"shapes", "imagePath"} <= json_keys(path)


def names(path: Path) -> Names:
    """Labels of all points, in the order in which they first occur."""
    found: dict[str, None] = {}
    for file in _files(path):
        shapes = read_json(file, "LabelMe file", File).shapes
        found |= dict.fromkeys(shape.label for shape in shapes if shape.shape_type == "point")
    return Names(tuple(found))


def read(
    folder: str | Path,
    skeleton: Skeleton,
    rename: Mapping[str, str] | None = None,
    box_margin: float = 1.2,
    allow_outside: bool = False,
) -> Labels:
    """Read all files of a folder; an image's path is the file's own ``imagePath``.

    Rectangles are the boxes of subjects. Shapes of other kinds are left out, and counted in the notes.

    Args:
        folder: folder with one ``.json`` for each image, or one such file.
        skeleton: its names must be the labels of the points.
        rename: label of a point to keypoint of the skeleton, where they differ.
        box_margin: factor on the extent of the keypoints that makes a missing box.
        allow_outside: allow images outside the folder, such as ``../images/a.jpg``.

    Raises:
        DataError: a file is damaged, a label is unknown, or points can't be assigned to subjects.
    """
    root, files = Path(folder), _files(Path(folder))
    root = root if root.is_dir() else root.parent
    builder = Builder(skeleton, Path(folder))
    read_files = [(path, read_json(path, "LabelMe file", File)) for path in files]
    builder.check_names((s.label for _, f in read_files for s in f.shapes if s.shape_type == "point"), rename)
    for path, file in read_files:
        name = posix(str(PurePosixPath(path.parent.relative_to(root).as_posix()) / posix(file.image_path)))
        size = None if not file.width or not file.height else (file.width, file.height)
        image = builder.image(name, size)
        parts = []
        for shape in file.shapes:
            label = (rename or {}).get(shape.label, shape.label)
            parts += _part(shape, label, path, builder)
        for subject in group_parts(parts, f"{path}"):
            builder.instance(image, *subject.arrays(skeleton, str(path)))
    return builder.labels(root, files, box_margin=box_margin, allow_outside=allow_outside)


def _part(shape: Shape, label: str, path: Path, builder: Builder) -> list[Part]:
    """A shape as a part of a subject; none where it is of another kind."""
    xy = np.array([p[:2] for p in shape.points if len(p) >= 2], dtype=np.float64).reshape(-1, 2)
    group = None if shape.group_id is None else str(shape.group_id)
    if len(xy) != len(shape.points) or not np.isfinite(xy).all():
        raise DataError(f"{path}: shape '{shape.label}' has points without x and y. Correct or remove it.")
    if shape.shape_type == "point" and len(xy) == 1:
        hidden = bool(shape.difficult) or any((shape.flags or {}).get(flag) for flag in HIDDEN)
        return [Part(label, xy[0], group=group, hidden=hidden)]
    if shape.shape_type == "rectangle" and len(xy) in (2, 4):
        return [Part(label, box=np.concatenate([xy.min(0), xy.max(0)]), group=group)]
    builder.notes[f"shapes of type '{shape.shape_type}' are left out"] += 1
    return []


def _files(path: Path) -> list[Path]:
    """The label files: JSON with shapes. Others, such as settings, are left out."""
    if path.is_file():
        return [path]
    found = sorted(path.rglob("*.json"))
    if not found:
        raise DataError(f"{path}: no LabelMe file (.json). Give the folder that holds one for each image.")
    return found


def write(labels: Labels, folder: str | Path, copy: bool = False) -> list[Path]:
    """Write one file for each image, beside where the image is expected.

    Args:
        labels: what to write.
        folder: to write to; images are named relative to it.
        copy: copy the images there as well.

    Returns:
        The files written.
    """
    target, written = Path(folder), []
    stems = [PurePosixPath(str(name)).with_suffix("").as_posix() for name in labels.names]
    doubled = sorted({s for s in stems if stems.count(s) > 1}) if len(set(stems)) < len(stems) else []
    if doubled:
        raise DataError(f"{target}: several images would have the same label file: {some(doubled)}. Rename them.")
    for i, stem in enumerate(stems):
        shapes = []
        for group, row in enumerate(instances_of(labels, i), 1):
            if np.isfinite(labels.poses.box[row]).all() and not labels.crowd[row]:
                shapes.append(_shape(labels.skeleton.name, labels.poses.box[row].reshape(2, 2), "rectangle", group))
            for k in np.flatnonzero(labels.poses.visible[row] > 0):
                hidden = labels.poses.visible[row, k] == 1
                name = labels.skeleton.keypoints[k]
                shapes.append(_shape(name, labels.poses.xy[row, k][None], "point", group, bool(hidden)))
        content: dict[str, Any] = {
            "version": VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": PurePosixPath(str(labels.names[i])).name,
            "imageData": None,
            "imageHeight": int(labels.size[i, 1]),
            "imageWidth": int(labels.size[i, 0]),
        }
        written.append(write_json(content, target / f"{stem}.json"))
    if copy:
        copy_images(labels, target, labels.names)
    return written


def _shape(label: str, points: np.ndarray, kind: str, group: int, hidden: bool = False) -> dict[str, Any]:
    return {
        "label": label,
        "points": [[clean(v) for v in point] for point in points],
        "group_id": group,
        "description": "",
        "shape_type": kind,
        "flags": {"occluded": True} if hidden else {},
        "difficult": hidden,
        "mask": None,
    }
