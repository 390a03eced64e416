"""COCO keypoint JSON: read into columns, and write back without loss.

Keypoints of COCO count pixel centres from 0, so 0.5 is added; boxes are continuous there and stay. ``iscrowd`` subjects
and those without a labelled keypoint become ``ignore`` instances without keypoints.

Source: https://cocodataset.org/#format-data; half-pixel and identifier traps as in pycocotools.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kplab.data.formats.coco_columns import File, order_by_category, to_labels
from kplab.errors import DataError
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton


@dataclass
class Source:
    """What ``Labels.extras`` holds for lossless writing: the whole document, and how it was read."""

    document: dict[str, Any]
    category: str | None
    area: str
    rename: Mapping[str, str] | None


def read(
    annotations: str | Path,
    images: str | Path,
    skeleton: Skeleton,
    category: str | None = None,
    keep_extras: bool = False,
    area: str = "annotation",
    rename: Mapping[str, str] | None = None,
) -> Labels:
    """Read a COCO keypoint file.

    An image's group is its ``video_id`` or ``vid_id`` where it has one, else its own file name. A missing box becomes
    the extent of the keypoints, a missing area ``0.53 * w * h`` of the box; both are said in the sources and notes.
    Keypoints more than 1 px outside their image become unlabelled, and are counted in the notes.

    Args:
        annotations: the JSON file.
        images: folder that the file names in it are relative to.
        skeleton: its names must be those of the category, in any order.
        category: name of the one category to read; None takes every category that names keypoints.
        keep_extras: hold the whole document, so that ``write`` changes nothing but what was changed.
        area: "annotation", or "box" for ``0.53 * w * h`` throughout, as CrowdPose is scored.
        rename: keypoint name in the file to name in the skeleton, where they differ.

    Raises:
        DataError: the file is missing, cut short, no COCO keypoint file, or contradicts itself.
    """
    path, root = Path(annotations), Path(images)
    if area not in ("annotation", "box"):
        raise DataError(f"{path}: area='{area}' is unknown. Use area=annotation or area=box.")
    if not path.is_file():
        raise DataError(f"{path}: no such annotation file. Check the path of the dataset's annotations.")
    if not root.is_dir():
        raise DataError(f"{root}: no such image folder, for {path}. Check the path of the dataset's images.")
    data = path.read_bytes()
    with _no_collection():
        labels = to_labels(_decode(data, path), path, root, skeleton, category, area, rename)
    if keep_extras:
        labels.extras = Source(msgspec.json.decode(data), category, area, rename)
    return labels


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Hold the cyclic garbage collector back: it would scan a hundred thousand lists again and again, and free none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _decode(data: bytes, path: Path) -> File:
    try:
        return msgspec.json.decode(data, type=File)
    except msgspec.ValidationError as error:
        raise DataError(
            f"{path}: not a COCO keypoint file: {error}. Wanted {{images, annotations, categories}} with whole-number "
            "ids, width and height of every image, and keypoints as one flat list; convert it, or choose another file."
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        remedy = "Fetch or export the file again."
        if b"NaN" in data or b"Infinity" in data:
            remedy = (
                "NaN and Infinity are not JSON: write an unlabelled keypoint as 0, 0, 0, and leave other fields out."
            )
        raise DataError(f"{path}: not whole JSON ({len(data)} bytes): {error}. {remedy}") from error


def write(labels: Labels, path: str | Path) -> Path:
    """Write a COCO keypoint file.

    With the extras of ``read(keep_extras=True)`` every field of the source returns as it was, and only what differs in
    ``labels`` is changed: keypoints one by one, boxes, areas, images and instances added or taken away. Without them
    the file has the fields COCO names; an ignored instance with labelled keypoints is then written as a crowd.
    """
    path = Path(path)
    source = labels.extras if isinstance(labels.extras, Source) else None
    document = _fresh(labels) if source is None else _updated(labels, source, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(document))
    return path


def _fresh(labels: Labels) -> dict[str, Any]:
    skeleton = labels.skeleton
    category = {
        "id": 1,
        "name": skeleton.name,
        "supercategory": skeleton.name,
        "keypoints": list(skeleton.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.edges],
    }
    return {
        "info": {"description": f"keypoints of skeleton {skeleton.name}, boxes: {labels.box_source}"},
        "licenses": [],
        "images": [_image(labels, i) for i in range(len(labels))],
        "annotations": [_annotation(labels, row, image, 1) for row, image in enumerate(_image_of(labels))],
        "categories": [category],
    }


def _image(labels: Labels, i: int) -> dict[str, Any]:
    width, height = (int(v) for v in labels.size[i])
    image = {"id": int(labels.image_id[i]), "file_name": str(labels.files[i]), "width": width, "height": height}
    return image if labels.group[i] == labels.files[i] else {**image, "video_id": str(labels.group[i])}


def _image_of(labels: Labels) -> list[int]:
    return np.repeat(labels.image_id, np.diff(labels.start)).tolist()


def _number(value: float) -> float | int:
    """As short as it can be: rounding takes off what adding and subtracting half a pixel leaves behind."""
    value = round(float(value), 9)
    return int(value) if value.is_integer() else value


def _annotation(
    labels: Labels, row: int, image_id: int, category_id: int, order: np.ndarray | None = None
) -> dict[str, Any]:
    """One instance as COCO writes it; ``order`` as from ``match_keypoints``, None where the file's order is ours."""
    p = labels.poses
    triplets = np.zeros((p.xy.shape[1], 3))
    places = np.arange(len(triplets)) if order is None else order
    triplets[places] = np.concatenate([np.nan_to_num(p.xy[row] - 0.5), p.visible[row][:, None]], axis=1)
    labelled = int(p.labelled[row].sum())
    out: dict[str, Any] = {
        "id": int(labels.instance_id[row]),
        "image_id": image_id,
        "category_id": category_id,
        "iscrowd": _iscrowd(labels, row),
        "num_keypoints": labelled,
        "keypoints": [_number(v) for v in triplets.ravel()],
    }
    if np.isfinite(p.box[row]).all():
        out["bbox"] = _bbox(p.box[row])
    if np.isfinite(p.area[row]):
        out["area"] = _number(p.area[row])
    return out


def _iscrowd(labels: Labels, row: int) -> int:
    """A labelled instance that is to be ignored can be told to COCO only as a crowd."""
    p = labels.poses
    return int(labels.crowd[row] or (p.ignore[row] and p.labelled[row].any()))


def _bbox(box: np.ndarray) -> list[float | int]:
    x0, y0, x1, y1 = box
    return [_number(v) for v in (x0, y0, x1 - x0, y1 - y0)]


def _updated(labels: Labels, source: Source, path: Path) -> dict[str, Any]:
    """The source document with the differences between it and the labels written into it."""
    document = source.document
    parsed = msgspec.convert(document, File)
    how = (source.category, source.area, source.rename)
    before = to_labels(parsed, path, labels.root, labels.skeleton, *how)
    order = order_by_category(parsed.categories, path, labels.skeleton, source.category, source.rename)
    now = {int(i): row for row, i in enumerate(labels.instance_id)}
    then = {int(i): row for row, i in enumerate(before.instance_id)}
    image_now = _image_of(labels)
    kept = {int(i) for i in labels.image_id}
    rows = []
    for raw in document["annotations"]:
        if raw["category_id"] not in order:
            if raw["image_id"] in kept:
                rows.append(raw)
        elif raw["id"] in now:
            row = now[raw["id"]]
            changes = _changes(raw, labels, row, before, then[raw["id"]], order[raw["category_id"]])
            if raw["image_id"] != image_now[row]:
                changes["image_id"] = image_now[row]
            rows.append({**raw, **changes} if changes else raw)
    first, places = next(iter(order.items()))
    rows += [_annotation(labels, row, image_now[row], first, places) for i, row in now.items() if i not in then]
    return {**document, "images": _updated_images(labels, before, document["images"]), "annotations": rows}


def _updated_images(labels: Labels, before: Labels, raw: list[dict[str, Any]]) -> list[dict[str, Any]]:
    source = {image["id"]: image for image in raw}
    then = {int(i): row for row, i in enumerate(before.image_id)}
    out = []
    for i, image_id in enumerate(labels.image_id.tolist()):
        image = _image(labels, i)
        if image_id not in source:
            out.append(image)
            continue
        old = _image(before, then[image_id])
        changes = {key: value for key, value in image.items() if old.get(key) != value}
        out.append({**source[image_id], **changes} if changes else source[image_id])
    return out


def _changes(
    raw: dict[str, Any], labels: Labels, row: int, source: Labels, old: int, order: np.ndarray
) -> dict[str, Any]:
    """The fields of an annotation that differ from its source; keypoints that were not touched keep their numbers."""
    p, before = labels.poses, source.poses
    changes: dict[str, Any] = {}
    same = (p.visible[row] == before.visible[old]) & (
        (p.xy[row] == before.xy[old]) | (np.isnan(p.xy[row]) & np.isnan(before.xy[old]))
    ).all(-1)
    if not same.all():
        fresh = np.asarray(_annotation(labels, row, 0, 0, order)["keypoints"], dtype=object).reshape(-1, 3)
        triplets = np.array(raw.get("keypoints") or [0] * fresh.size, dtype=object).reshape(-1, 3)
        triplets[order[~same]] = fresh[order[~same]]
        changes["keypoints"] = triplets.ravel().tolist()
        changes["num_keypoints"] = int(p.labelled[row].sum())
    if not np.array_equal(p.box[row], before.box[old], equal_nan=True) and np.isfinite(p.box[row]).all():
        changes["bbox"] = _bbox(p.box[row])
    if not np.array_equal(p.area[row], before.area[old], equal_nan=True) and np.isfinite(p.area[row]):
        changes["area"] = _number(p.area[row])
    if _iscrowd(labels, row) != _iscrowd(source, old):
        changes["iscrowd"] = _iscrowd(labels, row)
    return changes
