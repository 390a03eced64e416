"""COCO keypoint annotations as columns: the parsed file, its checks, and how its numbers become ``Labels``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec
import numpy as np

from kplab.data.images import is_file_name
from kplab.data.naming import Names
from kplab.data.reading import check_copies, check_extents, labels_from, match_keypoints, some
from kplab.data.sources.files import FileSource
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

# what int64 holds; and the sides of images, of which the writer makes one up where it knows none
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Side = Annotated[int, msgspec.Meta(le=2**31)]


# Only the fields kplab uses: msgspec skips the text of all others, which is where most of a COCO file is (segments).
class Image(msgspec.Struct, gc=False):
    id: Integer
    file_name: str
    width: Side
    height: Side
    video_id: int | str | None = None
    vid_id: int | str | None = None


class Category(msgspec.Struct, gc=False):
    id: Integer
    name: str = ""
    keypoints: list[str] | None = None
    skeleton: Any = None


class Annotation(msgspec.Struct, gc=False):
    id: Integer
    image_id: Integer
    category_id: Integer
    keypoints: list[float] | None = None
    num_keypoints: Integer | None = None
    bbox: list[float] | None = None
    area: float | None = None
    iscrowd: int | bool = 0
    track_id: Any = None


class File(msgspec.Struct, gc=False):
    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]


def to_labels(
    file: File,
    path: Path,
    root: Path,
    skeleton: Skeleton,
    category: str | None,
    area_mode: str,
    rename: Mapping[str, str] | None,
    group: str | None = None,
    allow_outside: bool = False,
    renumber: bool = False,
) -> Labels:
    """Check a parsed file and turn it into Labels; the arguments are those of ``coco.read``."""
    order = order_by_category(file.categories, path, skeleton, category, rename)
    notes = _renumbered(file) if renumber else []
    _check_ids(file, path)
    huge = [i.file_name for i in file.images if max(abs(i.width), abs(i.height)) >= 2**62]
    if huge:
        raise DataError(f"{path}: images whose width or height is no number of pixels: {some(huge)}. Write their size.")
    size = np.array([(i.width, i.height) for i in file.images], dtype=np.int64).reshape(-1, 2)
    if (size <= 0).any():
        bad = [file.images[i].file_name for i in np.flatnonzero((size <= 0).any(1))]
        raise DataError(f"{path}: images without a positive width and height: {some(bad)}. Write their size in pixels.")
    rows = [a for a in file.annotations if a.category_id in order]
    if len(rows) < len(file.annotations):
        notes.append(f"{len(file.annotations) - len(rows)} annotations of other categories left out")
    index = {image.id: i for i, image in enumerate(file.images)}
    image_of = np.fromiter((index[a.image_id] for a in rows), dtype=np.int64, count=len(rows))
    xy, visible, noted = _keypoints(rows, order, path, skeleton)
    track, odd = _tracks(rows)
    groups, ungrouped = _groups(file.images, group, path)
    notes += ungrouped
    box = _boxes(rows, path)
    area = np.array([np.nan if a.area is None else a.area for a in rows], dtype=np.float64)
    ids = np.fromiter((a.id for a in rows), dtype=np.int64, count=len(rows))
    counted = (visible > 0).any(1) & np.array([not a.iscrowd for a in rows], dtype=bool)
    notes += check_extents(str(path), ids, box, None if area_mode == "box" else area, size[image_of], counted)
    notes += check_copies(str(path), ids, image_of, xy, visible, counted)
    return labels_from(
        skeleton,
        FileSource(root, [i.file_name for i in file.images], allow_outside),
        np.array([i.id for i in file.images], dtype=np.int64),
        size,
        groups,
        xy,
        visible,
        image_of,
        ids,
        box=box,
        area=None if area_mode == "box" else area,
        crowd=np.array([bool(a.iscrowd) for a in rows], dtype=bool),
        track=track,
        notes=notes + noted + odd,
        files=[path],
    )


def _groups(images: list[Image], rule: str | None, path: Path) -> tuple[list[str], list[str]]:
    """The group of each image, and a note where only some have one."""
    if rule is None:
        videos = [image.vid_id if image.video_id is None else image.video_id for image in images]
        alone = sum(video is None for video in videos)
        note = f"{alone} of {len(images)} images name no video: each is a group of its own in splits"
        groups = [i.file_name if v is None else str(v) for i, v in zip(images, videos, strict=True)]
        return groups, [note] if 0 < alone < len(images) else []
    if rule == "folder":
        return [PurePosixPath(image.file_name).parent.as_posix() for image in images], []
    try:
        found = [re.search(rule, image.file_name) for image in images]
    except re.error as error:
        raise DataError(f"{path}: group='{rule}' is not a regular expression ({error}). Correct it.") from error
    without = [
        i.file_name for i, match in zip(images, found, strict=True) if not match or not match[match.re.groups > 0]
    ]
    if without:
        raise DataError(
            f"{path}: group='{rule}' finds no group in {len(without)} of {len(images)} file names: {some(without)}. "
            "Write an expression that every name matches, or group=folder."
        )
    return [match[match.re.groups > 0] for match in found if match], []


def order_by_category(
    categories: list[Category],
    path: Path,
    skeleton: Skeleton,
    category: str | None,
    rename: Mapping[str, str] | None,
) -> dict[int, np.ndarray]:
    """Id of each category to read, and the positions of the skeleton's keypoints in it."""
    chosen = [c for c in categories if (c.keypoints if category is None else c.name == category)]
    if not chosen:
        what = "no category names any keypoints" if category is None else f"no category is called '{category}'"
        raise DataError(
            f"{path}: {what} (categories: {some(c.name for c in categories) or 'none'}). Choose the keypoint file of "
            "the dataset rather than its detection file, write 'keypoints' into its category, or use in_order=true."
        )
    return {c.id: match_keypoints(c.keypoints or [], skeleton, f"{path}, category '{c.name}'", rename) for c in chosen}


def names_of(categories: list[Category], path: Path, category: str | None = None) -> Names:
    """Keypoints and edges of the categories that name any; they must agree.

    Raises:
        DataError: none does, or their names differ.
    """
    chosen = [c for c in categories if (c.keypoints if category is None else c.name == category)]
    listed = {tuple(c.keypoints or ()) for c in chosen}
    if len({frozenset(one) for one in listed}) != 1 or not all(listed):
        raise DataError(
            f"{path}: {len(chosen)} categories name keypoints, of {len(listed)} kinds (categories: "
            f"{some(c.name for c in categories) or 'none'}). Choose one with category=, or a file of keypoints; where the "
            "file names none, in_order=true takes the order of the numbers."
        )
    keypoints, count = tuple(chosen[0].keypoints or ()), len(chosen[0].keypoints or ())
    listed_edges = chosen[0].skeleton if isinstance(chosen[0].skeleton, list) else []
    pairs = [e for e in listed_edges if isinstance(e, list) and len(e) == 2 and all(type(i) is int for i in e)]
    first = 0 if any(0 in edge for edge in pairs) else 1  # COCO counts from 1; some tools count from 0
    edges = [(a - first, b - first) for a, b in pairs if 0 <= a - first < count and 0 <= b - first < count and a != b]
    return Names(keypoints, tuple(dict.fromkeys(edges)))


def _renumbered(file: File) -> list[str]:
    """Number annotations from 1 in their order, and images where they count from 0; returns notes.

    Images keep their order, and annotations their images: an image id that occurs twice can't be mended.
    """
    first = min((image.id for image in file.images), default=1)
    if first <= 0:
        for image in file.images:
            image.id += 1 - first
        for annotation in file.annotations:
            annotation.image_id += 1 - first
    for number, annotation in enumerate(file.annotations, 1):
        annotation.id = number
    return [f"{len(file.annotations)} annotations are numbered anew" + (", and images from 1" if first <= 0 else "")]


def _check_ids(file: File, path: Path) -> None:
    """Refuse identifiers that are not unique and positive: pycocotools takes annotation id 0 for 'no match'."""
    for kind, ids in (("image", [i.id for i in file.images]), ("annotation", [a.id for a in file.annotations])):
        column = np.array(ids, dtype=np.int64)
        if (column <= 0).any():
            alike = len(column) > 1 and (column == column[0]).all()
            remedy = f"add {1 - column.min()} to every {kind} id" if not alike else f"all {kind} ids are {column[0]}"
            raise DataError(
                f"{path}: {int((column <= 0).sum())} {kind} ids are not positive, e.g. {column.min()}; COCO's "
                f"evaluator takes 0 for 'no match'. Number them from 1: {remedy}, or read with renumber=true."
            )
        values, counts = np.unique(column, return_counts=True)
        if (counts > 1).any():
            raise DataError(
                f"{path}: {kind} ids occur twice: {some(values[counts > 1])}. Give every {kind} an id of its own."
            )
    names = [i.file_name for i in file.images]
    unnamed = [i.id for i in file.images if not i.file_name.strip("./ ") or not is_file_name(i.file_name)]
    if unnamed:
        raise DataError(
            f"{path}: images {some(unnamed)} have a file_name that no file can have. Write the path of the image file."
        )
    if len(set(names)) < len(names):
        seen: set[str] = set()
        doubled = [n for n in names if n in seen or seen.add(n)]  # type: ignore[func-returns-value]
        raise DataError(f"{path}: images are listed twice: {some(doubled)}. Keep one entry for each file.")
    known = {i.id for i in file.images}
    orphans = [a for a in file.annotations if a.image_id not in known]
    if orphans:
        listed = some(f"annotation {a.id} of image {a.image_id}" for a in orphans)
        raise DataError(
            f"{path}: {len(orphans)} annotations are of images that the file does not list: {listed}. "
            "Add the images, or remove the annotations."
        )


def _keypoints(
    rows: list[Annotation], order: dict[int, np.ndarray], path: Path, skeleton: Skeleton
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(N, K, 2) continuous pixels and (N, K) visibility in the skeleton's order, and notes."""
    triplets = _triplets(rows, path, len(skeleton))
    if rows:
        places = np.stack([order[a.category_id] for a in rows])
        triplets = np.take_along_axis(triplets, places[..., None], axis=1)
    visible = triplets[..., 2].astype(np.uint8)
    notes = []
    placed = (visible == 0) & triplets[..., :2].any(-1)
    if placed.any():
        notes.append(f"{int(placed.sum())} keypoints have a position but visibility 0: taken as unlabelled")
    stated = np.array([-1 if a.num_keypoints is None else a.num_keypoints for a in rows], dtype=np.int64)
    wrong = (stated >= 0) & (stated != (visible > 0).sum(1))
    if wrong.any():
        notes.append(f"{int(wrong.sum())} annotations state another num_keypoints than they have: counted anew")
    return affine.from_pixel_index(triplets[..., :2]), visible, notes


def _tracks(rows: list[Annotation]) -> tuple[np.ndarray, list[str]]:
    """(N,) track of each annotation, -1 where it has none; and a note where an identifier is not an integer."""
    fits = [type(a.track_id) is int and a.track_id < 2**63 for a in rows]
    known = [a.track_id if fit and a.track_id >= 0 else -1 for a, fit in zip(rows, fits, strict=True)]
    odd = sum(a.track_id is not None and not fit for a, fit in zip(rows, fits, strict=True))
    notes = [f"{odd} annotations have a track_id that is not an integer: taken as without a track"] if odd else []
    return np.array(known, dtype=np.int64), notes


def _triplets(rows: list[Annotation], path: Path, k: int) -> np.ndarray:
    """(N, K, 3) x, y, visibility in the file's order; zeros where an annotation has no keypoints."""
    lengths = np.fromiter((len(a.keypoints or ()) for a in rows), dtype=np.int64, count=len(rows))
    bad = np.flatnonzero((lengths != 3 * k) & (lengths != 0))
    if len(bad):
        listed = some(f"annotation {rows[i].id} has {lengths[i]}" for i in bad)
        raise DataError(
            f"{path}: expected {3 * k} keypoint numbers (x, y, visibility of {k}): {listed}. Correct these."
        )
    numbers = chain.from_iterable(a.keypoints for a in rows if a.keypoints)
    triplets = np.zeros((len(rows), k, 3))
    triplets[lengths > 0] = np.fromiter(numbers, dtype=np.float64, count=int(lengths.sum())).reshape(-1, k, 3)
    infinite: np.ndarray = np.logical_or.reduce(~np.isfinite(triplets), axis=-1)
    odd: np.ndarray = ~np.isin(triplets[..., 2], (0, 1, 2))
    for wrong, what, remedy in (
        (infinite, "not finite", "Write unlabelled keypoints as 0, 0, 0."),
        (odd, "of a visibility other than 0, 1 or 2", "Write 0 not labelled, 1 hidden, 2 visible."),
    ):
        if wrong.any():
            ids = some(f"annotation {rows[i].id}" for i in np.flatnonzero(wrong.any(1)))
            raise DataError(f"{path}: {int(wrong.sum())} keypoints are {what}: {ids}. {remedy}")
    return triplets


def _boxes(rows: list[Annotation], path: Path) -> np.ndarray:
    """(N, 4) xyxy; NaN where an annotation has no box."""
    bad = [a.id for a in rows if a.bbox and len(a.bbox) != 4]
    if not bad:
        numbers = chain.from_iterable(a.bbox or (np.nan,) * 4 for a in rows)
        box = np.fromiter(numbers, dtype=np.float64, count=4 * len(rows)).reshape(-1, 4)
        bad = [rows[i].id for i in np.flatnonzero((box[:, 2:] < 0).any(1) | np.isinf(box).any(1))]
    if bad:
        ids = some(f"annotation {i}" for i in bad)
        raise DataError(f"{path}: boxes are not x, y, width, height with sides of 0 or more: {ids}. Correct these.")
    box[:, 2:] += box[:, :2]
    return box
