"""Label Studio JSON: a list of tasks with key points and rectangles.

Coordinates are percent of the image, continuous from its corner. A key point belongs to the rectangle that its ``parentID``
names, or that a relation joins it to, or to the smallest rectangle around it, or to the only subject of the image. It is
hidden where its region has the choice ``hidden`` or ``occluded``.

Source: Label Studio, export format JSON and the tags KeyPointLabels and RectangleLabels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree

import msgspec
import numpy as np

from kplab.data.formats._builder import Builder
from kplab.data.formats._files import clean, copy_images, json_keys, posix, read_json, write_json
from kplab.data.formats._grouping import Part, group_parts
from kplab.data.holds import Holds, instances_of
from kplab.data.naming import Names
from kplab.errors import DataError
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

HOLDS = Holds(visibility=True, boxes=True, bare=True, precision=1e-6)
HIDDEN = ("hidden", "occluded")
KINDS = ("keypointlabels", "rectanglelabels")
#: What serves the files of Label Studio's own machine.
LOCAL_FILES = "/data/local-files/?d="
#: Width of a point as it is drawn, percent of the image.
POINT = 0.4


class Result(msgspec.Struct):
    """A region, as far as kplab uses it."""

    type: str
    value: dict[str, Any] = {}
    id: str = ""
    parent: str | None = msgspec.field(name="parentID", default=None)
    width: int | None = msgspec.field(name="original_width", default=None)
    height: int | None = msgspec.field(name="original_height", default=None)
    rotation: float = msgspec.field(name="image_rotation", default=0)
    from_id: str | None = None
    to_id: str | None = None


class Annotation(msgspec.Struct):
    """The regions of one annotator."""

    result: list[Result] = []
    was_cancelled: bool = False


class Task(msgspec.Struct):
    """An image."""

    data: dict[str, Any]
    annotations: list[Annotation] = []
    predictions: list[Annotation] = []

    def results(self, predicted: bool) -> list[Annotation]:
        """The results to read: annotations that were not cancelled; with ``predicted``, predictions if there is none."""
        if predicted and not self.annotations:
            return self.predictions
        return [a for a in self.annotations if not a.was_cancelled]


def recognise(path: Path) -> bool:
    """Whether a file is Label Studio's JSON export, or an import of predictions."""
    keys = json_keys(path) if path.is_file() else set()
    return "data" in keys and bool({"annotations", "predictions"} & keys)


def names(path: Path) -> Names:
    """Labels of all key points, in the order in which they first occur."""
    found: dict[str, None] = {}
    for task in _tasks(path):
        regions = (region for result in (*task.annotations, *task.predictions) for region in result.result)
        found |= dict.fromkeys(_label(region, path) for region in regions if region.type == "keypointlabels")
    return Names(tuple(found))


def read(
    annotations: str | Path,
    images: str | Path,
    skeleton: Skeleton,
    key: str | None = None,
    rename: Mapping[str, str] | None = None,
    box_margin: float = 1.2,
    allow_outside: bool = False,
    predicted: bool = False,
) -> Labels:
    """Read an export of the kind JSON; where a task has several annotations, the last that was not cancelled is read.

    Addresses of uploads and of other machines stand for the file name at their end; ``/data/local-files/?d=PATH`` for
    the path.

    Args:
        annotations: the JSON file.
        images: folder of the images.
        skeleton: its names must be the labels of the key points.
        key: entry of a task's data that names the image; null: the only one that is text, or ``image``.
        rename: label of a key point to keypoint of the skeleton, where they differ.
        box_margin: factor on the extent of the keypoints that makes a missing box.
        allow_outside: allow file names that lead out of the image folder.
        predicted: read the predictions of tasks without an annotation as truth.

    Raises:
        DataError: the file is damaged or another kind of export, or key points can't be assigned to subjects.
    """
    path = Path(annotations)
    builder = Builder(skeleton, path)
    tasks = _tasks(path)
    regions = [region for task in tasks for result in task.results(predicted) for region in result.result]
    builder.check_names((_label(r, path) for r in regions if r.type == "keypointlabels"), rename)
    for number, task in enumerate(tasks, 1):
        where = f"{path}, task {number}"
        kept = task.results(predicted)
        if len(kept) > 1:
            builder.notes["tasks have several annotations: the last one is read"] += 1
        if not task.annotations and task.predictions:
            what = "prediction is read" if predicted else "predictions are not read (predicted: true reads them)"
            builder.notes[f"tasks have no annotation: their {what}"] += 1
        regions = kept[-1].result if kept else []
        turned = any(region.rotation for region in regions)
        sizes = {(r.width, r.height) for r in regions if r.width and r.height}
        if turned or len(sizes) > 1:
            raise DataError(f"{where}: its image is rotated or has several sizes. Label the image as it is stored.")
        size = next(iter(sizes), None)
        image = builder.image(_image_name(task.data, key, where), size)  # type: ignore[arg-type]
        parts = _parts(regions, rename or {}, where, builder)
        for subject in group_parts(parts, where):
            builder.instance(image, *subject.arrays(skeleton, where))
    return builder.labels(Path(images), [path], box_margin=box_margin, allow_outside=allow_outside)


def _tasks(path: Path) -> list[Task]:
    if path.is_file() and "annotations" not in json_keys(path) and "annotator" in json_keys(path):
        raise DataError(f"{path}: an export of the kind JSON-MIN, which lacks the groups of regions. Export JSON.")
    return read_json(path, "Label Studio JSON export", list[Task])


def _image_name(data: Mapping[str, Any], key: str | None, where: str) -> str:
    text = {name: value for name, value in data.items() if isinstance(value, str)}
    chosen = key or ("image" if "image" in text or len(text) != 1 else next(iter(text)))
    if chosen not in text:
        raise DataError(f"{where}: its data has no text '{chosen}' that names the image. Name the entry with key=.")
    try:
        at = urlsplit(posix(text[chosen]))
    except ValueError as error:
        raise DataError(f"{where}: '{text[chosen][:80]}' is no name of an image ({error}). Correct it.") from error
    if at.path.startswith("/data/local-files"):
        return parse_qs(at.query).get("d", [""])[0].lstrip("/")
    if at.scheme or at.path.startswith("/data/upload"):
        return PurePosixPath(unquote(at.path)).name
    return posix(text[chosen])


def _label(region: Result, where: object) -> str:
    labels = region.value.get(region.type)
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise DataError(f"{where}: region '{region.id}' has not one label but {labels!r}. Give it one.")
    return labels[0]


def _parts(regions: list[Result], rename: Mapping[str, str], where: str, builder: Builder) -> list[Part]:
    choices: dict[str, list[str]] = {
        r.id: [str(c).lower() for c in r.value.get("choices", [])] for r in regions if r.type == "choices"
    }
    boxes = {r.id for r in regions if r.type == "rectanglelabels"}
    related: dict[str, str] = {}
    for r in regions:
        if r.type == "relation" and r.from_id and r.to_id:
            related |= {a: b for a, b in ((r.from_id, r.to_id), (r.to_id, r.from_id)) if b in boxes}
    parts = []
    for region in regions:
        if region.type not in (*KINDS, "choices", "relation"):
            builder.notes[f"regions of type '{region.type}' are left out"] += 1
        if region.type not in KINDS:
            continue
        label = _label(region, where)
        if region.width is None or region.height is None:
            raise DataError(
                f"{where}: region '{region.id}' has no original_width and original_height. Export it again."
            )
        scale = np.array([region.width, region.height]) / 100
        x, y, w, h = (_percent(region, name, where) for name in ("x", "y", "width", "height"))
        if region.type == "keypointlabels":
            hidden = any(choice in HIDDEN for choice in choices.get(region.id, []))
            parent = region.parent or related.get(region.id)
            if parent is not None and parent not in boxes:
                raise DataError(f"{where}: key point '{label}' names a parent that the task lacks. Export it again.")
            parts.append(Part(rename.get(label, label), np.array([x, y]) * scale, group=parent, hidden=hidden))
            continue
        corner, along, down = np.array([x, y]) * scale, np.array([w, 0]) * scale, np.array([0, h]) * scale
        angle = np.deg2rad(_percent(region, "rotation", where))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        hull = np.array([corner, *(corner + turn @ side for side in (along, down, along + down))])
        if angle:
            builder.notes["rotated rectangles are replaced by the upright boxes around them"] += 1
        parts.append(Part(label, box=np.concatenate([hull.min(0), hull.max(0)]), group=region.id))
    return parts


def _percent(region: Result, name: str, where: str) -> float:
    value = region.value.get(name, 0)
    if not isinstance(value, int | float) or not -1e6 < value < 1e6:
        raise DataError(f"{where}: region '{region.id}' has the {name} {value!r}, which is no number. Correct it.")
    return float(value)


def write(labels: Labels, path: str | Path, copy: bool = False, images_at: str | None = None) -> list[Path]:
    """Write an import of tasks with annotations, and its labelling configuration beside it (``.xml``).

    Subjects are rectangles, which their key points name as parent.

    Args:
        labels: what to write.
        path: the JSON file; images are named relative to its folder.
        copy: copy the images there as well.
        images_at: where Label Studio finds the images: an address (``https://…``), or a folder below the root of its local
            files; null: they are named without an address.

    Raises:
        DataError: there is another file in the place of the configuration.
    """
    path, tasks = Path(path), []
    config = path.with_suffix(".xml")
    if config.exists():
        raise DataError(
            f"{config}: exists, and is where the labelling configuration goes. Name another file, or remove it."
        )
    for i, name in enumerate(labels.names):
        results: list[dict[str, Any]] = []
        for row in instances_of(labels, i):
            box, number = labels.poses.box[row], int(labels.instance_id[row])
            if labels.crowd[row] or not np.isfinite(box).all():
                continue
            width, height = (int(v) for v in labels.size[i])
            results += regions_of(labels.poses, row, labels.skeleton, (width, height), f"subject{number}")
        image = str(name) if images_at is None else address(str(name), images_at)
        tasks.append({"id": i + 1, "data": {"image": image}, "annotations": [{"id": i + 1, "result": results}]})
    if copy:
        copy_images(labels, path.parent, labels.names)
    write_json(tasks, path)
    config.write_text(labelling_config(labels.skeleton), encoding="utf-8")
    return [path, config]


def address(name: str, images_at: str) -> str:
    """The address by which Label Studio finds an image.

    Args:
        name: of the image, relative to its folder.
        images_at: address of that folder (``https://…``, ``s3://…``), or its path below the root of the local files.

    >>> address("a b.png", "mice/day1"), address("a.png", "https://example.org/mice")
    ('/data/local-files/?d=mice/day1/a%20b.png', 'https://example.org/mice/a.png')
    """
    if "://" in images_at:
        return f"{images_at.rstrip('/')}/{quote(name)}"
    return LOCAL_FILES + quote("/".join(part for part in (images_at.strip("/"), name) if part))


def labelling_config(skeleton: Skeleton) -> str:
    """The labelling configuration (XML) of a project into which tasks of a skeleton can be imported."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    box, points = (
        ElementTree.SubElement(view, tag, name=tag.lower(), toName="image")
        for tag in ("RectangleLabels", "KeyPointLabels")
    )
    ElementTree.SubElement(box, "Label", value=skeleton.name)
    for keypoint in skeleton.keypoints:
        ElementTree.SubElement(points, "Label", value=keypoint)
    hidden = ElementTree.SubElement(view, "Choices", name="choices", toName="image", perRegion="true")
    ElementTree.SubElement(hidden, "Choice", value=HIDDEN[0])
    # pasted into a form as text, it must not declare an encoding
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def regions_of(
    poses: Poses, row: int, skeleton: Skeleton, size: tuple[int, int], id_: str, scored: bool = False
) -> list[dict[str, Any]]:
    """The regions of one subject, in the names of ``labelling_config``.

    Args:
        poses: source pixels, with a box.
        row: number of the subject in them.
        skeleton: of the poses.
        size: (width, height) of the image, pixels.
        id_: identifier of its rectangle; those of its key points begin with it.
        scored: state the scores of predictions.
    """
    found: list[dict[str, Any]] = []
    common = {"original_width": size[0], "original_height": size[1], "image_rotation": 0, "to_name": "image"}

    def add(id_: str, kind: str, value: dict[str, Any], parent: str | None = None, score: float | None = None) -> None:
        more: dict[str, Any] = {"parentID": parent} if parent else {}
        if scored and score is not None and np.isfinite(score):
            more["score"] = float(np.clip(score, 0, 1))
        found.append({"id": id_, "type": kind, "from_name": kind, "value": value, **common, **more})

    x, y, x1, y1 = (clean(v, 12) for v in poses.box[row] * 100 / np.tile(size, 2))
    value = {"x": x, "y": y, "width": clean(x1 - x, 12), "height": clean(y1 - y, 12), "rotation": 0}
    add(id_, "rectanglelabels", {**value, "rectanglelabels": [skeleton.name]}, score=poses.score[row])
    for k in np.flatnonzero(poses.visible[row] > 0):
        x, y = (clean(v, 12) for v in poses.xy[row, k] * 100 / size)
        point, region = {"x": x, "y": y, "width": POINT}, f"{id_}-{k}"
        labelled = {**point, "keypointlabels": [skeleton.keypoints[k]]}
        add(region, "keypointlabels", labelled, id_, poses.keypoint_score[row, k])
        found.append({"type": "relation", "from_id": id_, "to_id": region, "direction": "right"})
        if poses.visible[row, k] == 1:
            add(region, "choices", {**point, "choices": [HIDDEN[0]]}, id_)
    return found
