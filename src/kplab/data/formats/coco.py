"""COCO keypoint JSON, read into columns and written back without loss.

Keypoints of COCO are pixel indices from 0; its boxes are continuous. ``iscrowd`` subjects and those without a labelled
keypoint become ``ignore`` instances without keypoints. ``track_id`` is the track.

Source: https://cocodataset.org/#format-data; half-pixel and identifier traps as in pycocotools.
"""

from __future__ import annotations

import contextlib
import gc
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kplab.data.formats._coco_columns import File, names_of, order_by_category, to_labels
from kplab.data.formats._files import copy_images, json_keys
from kplab.data.holds import Holds
from kplab.data.naming import Names, numbered
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.labels import Extras, Labels
from kplab.structures.skeleton import Skeleton

FORMAT = "coco"
HOLDS = Holds(visibility=True, boxes=True, areas=True, crowds=True, bare=True, tracks=True, groups=True, precision=1e-9)
#: ``write`` changes only what differs from the file that was read.
UPDATES = True
UNKNOWN_SIZE = 2**31


@dataclass(frozen=True)
class Head:
    """What ``Extras.head`` holds: the document without its images and annotations, and how it was read."""

    document: dict[str, Any]
    category: str | None
    area: str
    rename: Mapping[str, str] | None
    group: str | None


@dataclass(frozen=True)
class Numbered:
    """An annotation with its position in the document: what ``Extras.instance`` holds of each instance."""

    position: int
    raw: dict[str, Any]


@dataclass(frozen=True)
class ImageExtras:
    """What ``Extras.image`` holds of each image: its entry, and its annotations of categories that are not read."""

    raw: dict[str, Any]
    others: list[Numbered]


def recognise(path: Path) -> bool:
    """Whether a file is COCO's JSON."""
    return path.is_file() and {"images", "annotations", "categories"} <= json_keys(path)


def names(path: Path, category: str | None = None, parts: Sequence[str] | None = None, in_order: bool = False) -> Names:
    """Keypoints and skeleton of the category; numbers where it names none and ``in_order`` is set."""
    if not path.is_file():
        raise DataError(f"{path}: no such annotation file. Check its path.")
    file, _ = _file(path.read_bytes(), path, parts)
    if in_order and not any(c.keypoints for c in file.categories):
        return numbered(max((len(a.keypoints or ()) // 3 for a in file.annotations), default=0))
    return names_of(file.categories, path, category)


def read(
    annotations: str | Path,
    images: str | Path,
    skeleton: Skeleton,
    category: str | None = None,
    keep_extras: bool = False,
    area: str = "annotation",
    rename: Mapping[str, str] | None = None,
    group: str | None = None,
    allow_outside: bool = False,
    renumber: bool = False,
    parts: Sequence[str] | None = None,
    in_order: bool = False,
) -> Labels:
    """Read a COCO keypoint file.

    An image's group, for splits, is its ``video_id`` or ``vid_id`` where it has one, else its own file name. A missing box becomes
    the extent of the keypoints, a missing area ``0.53 * w * h`` of the box; the sources and notes state both.
    Keypoints more than 1 px outside their image become unlabelled, and are counted in the notes.

    Args:
        annotations: JSON file with images, annotations and categories.
        images: folder that the file names in it are relative to.
        skeleton: its names must be those of the category, in any order.
        category: name of the one category to read; null reads every category that names keypoints.
        keep_extras: keep all fields that kplab does not use, also of parts of the dataset, for ``write``.
        area: annotation, or box for ``0.53 * w * h`` throughout, as CrowdPose is scored.
        rename: keypoint name in the file to name in the skeleton, where they differ.
        group: folder, or a regular expression of which the match in the file name (or its first group) is the image's
            group, such as ``^[^_]+``; null takes the videos that the file names.
        allow_outside: allow file names that lead out of the image folder.
        renumber: number annotations anew, and images from 1, for exports whose ids are 0 or repeated; not with keep_extras.
        parts: of COCO-WholeBody: any of body, foot, face, left_hand and right_hand, whose keypoints are read as one list;
            null reads ``keypoints`` only. Not with keep_extras.
        in_order: the categories name no keypoints, and the skeleton's order is that of the numbers.

    Raises:
        DataError: the file is missing, truncated, not a COCO keypoint file, or contradicts itself.
    """
    path, root = Path(annotations), Path(images)
    if area not in ("annotation", "box"):
        raise DataError(f"{path}: area='{area}' is unknown. Use area=annotation or area=box.")
    if not path.is_file():
        raise DataError(f"{path}: no such annotation file. Check the path of the dataset's annotations.")
    if not root.is_dir():
        raise DataError(f"{root}: no such image folder, for {path}. Check the path of the dataset's images.")
    if keep_extras and (renumber or parts is not None or in_order):
        raise DataError(f"{path}: keep_extras=true can't be used with renumber, parts or in_order. Leave it out.")
    data = path.read_bytes()
    with _no_collection():
        read, mended = _file(data, path, parts)
        if in_order and not any(c.keypoints for c in read.categories):
            for one in read.categories:
                one.keypoints = list(skeleton.keypoints)
        labels = to_labels(read, path, root, skeleton, category, area, rename, group, allow_outside, renumber)
    labels.notes += mended
    if keep_extras:
        labels.extras = _extras(_decode(data, path, dict[str, Any]), labels, category, area, rename, group)
    return labels


def _extras(
    document: dict[str, Any],
    labels: Labels,
    category: str | None,
    area: str,
    rename: Mapping[str, str] | None,
    group: str | None,
) -> Extras:
    ids = set(labels.instance_id.tolist())
    instance: dict[int, Numbered] = {}
    others: dict[int, list[Numbered]] = defaultdict(list)
    for position, raw in enumerate(document["annotations"]):
        if raw["id"] in ids:
            instance[raw["id"]] = Numbered(position, raw)
        else:
            others[raw["image_id"]].append(Numbered(position, raw))
    image = {raw["id"]: ImageExtras(raw, others.get(raw["id"], [])) for raw in document["images"]}
    head = Head({**document, "images": [], "annotations": []}, category, area, rename, group)
    return Extras(FORMAT, head, image, instance)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Disable the cyclic garbage collector: it would scan a hundred thousand lists again and again, and free none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _file(data: bytes, path: Path, parts: Sequence[str] | None) -> tuple[File, list[str]]:
    """The file, with the keypoints of the parts of COCO-WholeBody that are asked for, and notes on what was mended."""
    from kplab.data.formats._coco_parts import WholeFile, joined

    kind: type[Any] = File if parts is None else WholeFile
    notes = []
    try:
        decoded = _decode(data, path, kind)
    except DataError:
        flat, count = _flattened(data)
        if not count:
            raise
        decoded = _decode(flat, path, kind)
        notes = [f"the keypoints of {count} annotations are lists of x, y, visibility: taken as one list each"]
    return (decoded if parts is None else joined(decoded, parts, path)), notes


def _flattened(data: bytes) -> tuple[bytes, int]:
    """A document whose nested keypoints, as in mmpose's file of RHD, are flat lists; and the number of such annotations."""
    try:
        document = msgspec.json.decode(data, type=dict[str, Any])
        listed = [a for a in document["annotations"] if a.get("keypoints") and isinstance(a["keypoints"][0], list)]
        for one in listed:
            one["keypoints"] = [value for triplet in one["keypoints"] for value in triplet]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError):
        return data, 0
    return msgspec.json.encode(document), len(listed)


def _decode(data: bytes, path: Path, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise DataError(
            f"{path}: not a COCO keypoint file: {error}. Expected {{images, annotations, categories}} with integer "
            "ids, width and height of every image, and keypoints as one flat list; convert it, or choose another file."
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        remedy = "Fetch or export the file again."
        if b"NaN" in data or b"Infinity" in data:
            remedy = (
                "NaN and Infinity are not JSON: write an unlabelled keypoint as 0, 0, 0, and leave other fields out."
            )
        raise DataError(f"{path}: not whole JSON ({len(data)} bytes): {error}. {remedy}") from error


def write(labels: Labels, path: str | Path, copy: bool = False, parts: bool = False) -> Path:
    """Write a COCO keypoint file.

    With the extras of ``read(keep_extras=True)``, also of a part of what was read, every field of the source is written
    as it was, and only what differs in ``labels`` is changed: keypoints one by one, boxes, areas, tracks, images and
    instances added or removed. Without them the file has the fields that COCO names; an ignored instance with labelled
    keypoints is then written as a crowd.

    Args:
        labels: what to write.
        path: the JSON file.
        copy: copy the images beside it as well, under their names.
        parts: write feet, face and hands in the fields of COCO-WholeBody; only without extras.
    """
    path = Path(path)
    extras = labels.extras if not parts else None
    document = _fresh(labels) if extras is None or extras.format != FORMAT else _updated(labels, extras, path)
    if parts:
        from kplab.data.formats._coco_parts import split

        document = split(document)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(document))
    if copy:
        copy_images(labels, path.parent, labels.names)
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
    image = {"id": int(labels.image_id[i]), "file_name": str(labels.names[i]), "width": width, "height": height}
    return image if labels.group[i] == labels.names[i] else {**image, "video_id": str(labels.group[i])}


def _image_of(labels: Labels) -> list[int]:
    return np.repeat(labels.image_id, np.diff(labels.start)).tolist()


def _number(value: float) -> float | int:
    """The shortest form of a number: rounding removes what adding and subtracting half a pixel leaves behind."""
    value = round(float(value), 9)
    return int(value) if value.is_integer() else value


def _annotation(
    labels: Labels, row: int, image_id: int, category_id: int, order: np.ndarray | None = None
) -> dict[str, Any]:
    """One instance as COCO writes it; ``order`` as from ``match_keypoints``, None for the skeleton's own order."""
    p = labels.poses
    triplets = np.zeros((p.xy.shape[1], 3))
    places = np.arange(len(triplets)) if order is None else order
    triplets[places] = np.concatenate(
        [np.nan_to_num(affine.to_pixel_index(p.xy[row])), p.visible[row][:, None]], axis=1
    )
    labelled = int((p.visible[row] > 0).sum())
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
    if p.track[row] >= 0:
        out["track_id"] = int(p.track[row])
    return out


def _iscrowd(labels: Labels, row: int) -> int:
    """COCO can express a labelled instance that is ignored only as a crowd."""
    p = labels.poses
    return int(labels.crowd[row] or (p.ignore[row] and (p.visible[row] > 0).any()))


def _bbox(box: np.ndarray) -> list[float | int]:
    x0, y0, x1, y1 = box
    return [_number(v) for v in (x0, y0, x1 - x0, y1 - y0)]


def _updated(labels: Labels, extras: Extras, path: Path) -> dict[str, Any]:
    """The source document of these images, with the differences between it and the labels written into it."""
    head: Head = extras.head
    before = _source_labels(labels, extras, path)
    categories = msgspec.convert(head.document, File).categories
    order = order_by_category(categories, path, labels.skeleton, head.category, head.rename)
    then = {int(i): row for row, i in enumerate(before.instance_id)}
    found = [n for i in labels.image_id.tolist() if i in extras.image for n in extras.image[i].others]
    added = []
    for row, (id_, image_id) in enumerate(zip(labels.instance_id.tolist(), _image_of(labels), strict=True)):
        if id_ not in extras.instance:
            first, places = next(iter(order.items()))
            added.append(_annotation(labels, row, image_id, first, places))
            continue
        source = extras.instance[id_]
        changes = _changes(source.raw, labels, row, before, then[id_], order[source.raw["category_id"]])
        if source.raw["image_id"] != image_id:
            changes["image_id"] = image_id
        found.append(Numbered(source.position, {**source.raw, **changes} if changes else source.raw))
    found.sort(key=lambda n: n.position)
    annotations = [n.raw for n in found] + added
    return {**head.document, "images": _updated_images(labels, before, extras), "annotations": annotations}


def _source_labels(labels: Labels, extras: Extras, path: Path) -> Labels:
    """The labels' instances, and all images in the extras, as they are in the source."""
    head: Head = extras.head
    rows = [extras.instance[i].raw for i in labels.instance_id.tolist() if i in extras.instance]
    images = [e.raw for e in extras.image.values()]
    # an instance may have been moved here from an image of another part, of which nothing is known
    unknown = sorted({raw["image_id"] for raw in rows} - extras.image.keys())
    images += [{"id": i, "file_name": f"{i}", "width": UNKNOWN_SIZE, "height": UNKNOWN_SIZE} for i in unknown]
    document = {**head.document, "images": images, "annotations": rows}
    how = (head.category, head.area, head.rename, head.group)
    return to_labels(msgspec.convert(document, File), path, Path(), labels.skeleton, *how, allow_outside=True)


def _updated_images(labels: Labels, before: Labels, extras: Extras) -> list[dict[str, Any]]:
    then = {int(i): row for row, i in enumerate(before.image_id)}
    out = []
    for i, image_id in enumerate(labels.image_id.tolist()):
        image = _image(labels, i)
        if image_id not in extras.image:
            out.append(image)
            continue
        raw, old = extras.image[image_id].raw, _image(before, then[image_id])
        changes = {key: value for key, value in image.items() if old.get(key) != value}
        out.append({**raw, **changes} if changes else raw)
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
        changes["num_keypoints"] = int((p.visible[row] > 0).sum())
    if not np.array_equal(p.box[row], before.box[old], equal_nan=True) and np.isfinite(p.box[row]).all():
        changes["bbox"] = _bbox(p.box[row])
    if not np.array_equal(p.area[row], before.area[old], equal_nan=True) and np.isfinite(p.area[row]):
        changes["area"] = _number(p.area[row])
    if _iscrowd(labels, row) != _iscrowd(source, old):
        changes["iscrowd"] = _iscrowd(labels, row)
    if p.track[row] != before.track[old]:
        changes["track_id"] = int(p.track[row]) if p.track[row] >= 0 else None
    return changes
