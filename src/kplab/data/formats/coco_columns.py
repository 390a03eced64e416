"""COCO keypoint annotations as columns: the parsed file, its checks, and how its numbers become ``Labels``."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np

from kplab.data.formats import (
    BOX_AREA_SHARE,
    boxes_around,
    drop_outside,
    match_keypoints,
    share_of_box,
    some,
)
from kplab.errors import DataError
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton


# Only the fields kplab uses: msgspec skips the text of all others, which is where most of a COCO file is (segments).
class Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    width: int
    height: int
    video_id: int | str | None = None
    vid_id: int | str | None = None


class Category(msgspec.Struct, gc=False):
    id: int
    name: str = ""
    keypoints: list[str] | None = None


class Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    keypoints: list[float] | None = None
    num_keypoints: int | None = None
    bbox: list[float] | None = None
    area: float | None = None
    iscrowd: int | bool = 0


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
) -> Labels:
    """Check a parsed file and turn it into Labels; the arguments are those of ``coco.read``."""
    order = order_by_category(file.categories, path, skeleton, category, rename)
    _check_ids(file, path)
    size = np.array([(i.width, i.height) for i in file.images], dtype=np.int64).reshape(-1, 2)
    if (size <= 0).any():
        bad = [file.images[i].file_name for i in np.flatnonzero((size <= 0).any(1))]
        raise DataError(f"{path}: images without a positive width and height: {some(bad)}. Write their size in pixels.")
    rows = [a for a in file.annotations if a.category_id in order]
    notes = []
    if len(rows) < len(file.annotations):
        notes.append(f"{len(file.annotations) - len(rows)} annotations of other categories left out")
    index = {image.id: i for i, image in enumerate(file.images)}
    image_of = np.fromiter((index[a.image_id] for a in rows), dtype=np.int64, count=len(rows))
    poses, box_source, area_source, said = _poses(rows, order, path, skeleton, size[image_of], area_mode)
    return make_labels(
        skeleton,
        root,
        [i.file_name for i in file.images],
        np.array([i.id for i in file.images], dtype=np.int64),
        size,
        [_group(i) for i in file.images],
        poses,
        image_of,
        np.fromiter((a.id for a in rows), dtype=np.int64, count=len(rows)),
        crowd=np.array([bool(a.iscrowd) for a in rows], dtype=bool),
        box_source=box_source,
        area_source=area_source,
        notes=notes + said,
    )


def _group(image: Image) -> str:
    video = image.vid_id if image.video_id is None else image.video_id
    return image.file_name if video is None else str(video)


def order_by_category(
    categories: list[Category],
    path: Path,
    skeleton: Skeleton,
    category: str | None,
    rename: Mapping[str, str] | None,
) -> dict[int, np.ndarray]:
    """Id of each category to read, and where the skeleton's keypoints stand in it."""
    chosen = [c for c in categories if (c.keypoints if category is None else c.name == category)]
    if not chosen:
        what = "no category names any keypoints" if category is None else f"no category is called '{category}'"
        raise DataError(
            f"{path}: {what} (categories: {some(c.name for c in categories) or 'none'}). Choose the keypoint file of "
            "the dataset rather than its detection file, or write 'keypoints' into its category."
        )
    return {c.id: match_keypoints(c.keypoints or [], skeleton, f"{path}, category '{c.name}'", rename) for c in chosen}


def _check_ids(file: File, path: Path) -> None:
    """Identifiers that pycocotools would mistake: it reads annotation id 0 as 'no match', and AP becomes 0."""
    for kind, ids in (("image", [i.id for i in file.images]), ("annotation", [a.id for a in file.annotations])):
        column = np.array(ids, dtype=np.int64)
        if (column <= 0).any():
            raise DataError(
                f"{path}: {int((column <= 0).sum())} {kind} ids are not positive, e.g. {column.min()}; COCO's "
                f"evaluator takes 0 for 'no match'. Number them from 1: add {1 - column.min()} to every {kind} id."
            )
        values, counts = np.unique(column, return_counts=True)
        if (counts > 1).any():
            raise DataError(
                f"{path}: {kind} ids occur twice: {some(values[counts > 1])}. Give every {kind} an id of its own."
            )
    names = [i.file_name for i in file.images]
    if len(set(names)) < len(names):
        seen: set[str] = set()
        doubled = [n for n in names if n in seen or seen.add(n)]  # type: ignore[func-returns-value]
        raise DataError(f"{path}: images are listed twice: {some(doubled)}. Keep one entry for each file.")
    known = {i.id for i in file.images}
    lost = [a for a in file.annotations if a.image_id not in known]
    if lost:
        listed = some(f"annotation {a.id} of image {a.image_id}" for a in lost)
        raise DataError(
            f"{path}: {len(lost)} annotations are of images that the file does not list: {listed}. "
            "Add the images, or remove the annotations."
        )


def _poses(
    rows: list[Annotation],
    order: dict[int, np.ndarray],
    path: Path,
    skeleton: Skeleton,
    size: np.ndarray,
    area_mode: str,
) -> tuple[Poses, str, str, list[str]]:
    """Annotations as columns; with box source, area source and notes."""
    n, k = len(rows), len(skeleton)
    triplets = _triplets(rows, path, k)
    if n:
        places = np.stack([order[a.category_id] for a in rows])
        triplets = np.take_along_axis(triplets, places[..., None], axis=1)
    xy, visible = triplets[..., :2] + 0.5, triplets[..., 2].astype(np.uint8)
    notes = []
    placed = (visible == 0) & triplets[..., :2].any(-1)
    if placed.any():
        notes.append(f"{int(placed.sum())} keypoints have a position but visibility 0: taken as unlabelled")
    stated = np.array([-1 if a.num_keypoints is None else a.num_keypoints for a in rows], dtype=np.int64)
    wrong = (stated >= 0) & (stated != (visible > 0).sum(1))
    if wrong.any():
        notes.append(f"{int(wrong.sum())} annotations state another num_keypoints than they have: counted anew")
    crowd = np.array([bool(a.iscrowd) for a in rows], dtype=bool)
    visible[crowd] = 0
    visible, said = drop_outside(xy, visible, size)
    notes += said
    poses = Poses.make(xy, visible, ignore=(visible == 0).all(1))
    unlabelled = int((poses.ignore & ~crowd).sum())
    if poses.ignore.any():
        notes.append(f"{int(crowd.sum())} crowds and {unlabelled} subjects without a labelled keypoint are ignored")

    poses.box, box_source, said = _boxes(rows, poses, path)
    notes += said
    annotated = np.array([np.nan if a.area is None or area_mode == "box" else a.area for a in rows], dtype=np.float64)
    absent = ~(annotated > 0)
    poses.area = np.where(absent, share_of_box(poses.box), annotated)
    area_source = f"{BOX_AREA_SHARE} x box" if n and absent.all() else "annotation"
    if absent.any() and area_mode == "annotation":
        notes.append(f"{int(absent.sum())} annotations have no positive area: {BOX_AREA_SHARE} x box taken")
        if not absent.all():
            area_source = f"annotation; {BOX_AREA_SHARE} x box where absent ({int(absent.sum())})"
    return poses, box_source, area_source, notes


def _triplets(rows: list[Annotation], path: Path, k: int) -> np.ndarray:
    """(N, K, 3) x, y, visibility in the file's order; zeros where an annotation has no keypoints."""
    lengths = np.fromiter((len(a.keypoints or ()) for a in rows), dtype=np.int64, count=len(rows))
    bad = np.flatnonzero((lengths != 3 * k) & (lengths != 0))
    if len(bad):
        listed = some(f"annotation {rows[i].id} has {lengths[i]}" for i in bad)
        raise DataError(f"{path}: wanted {3 * k} keypoint numbers (x, y, visibility of {k}): {listed}. Correct these.")
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


def _boxes(rows: list[Annotation], poses: Poses, path: Path) -> tuple[np.ndarray, str, list[str]]:
    bad = [a.id for a in rows if a.bbox and len(a.bbox) != 4]
    if not bad:
        numbers = chain.from_iterable(a.bbox or (np.nan,) * 4 for a in rows)
        box = np.fromiter(numbers, dtype=np.float64, count=4 * len(rows)).reshape(-1, 4)
        bad = [rows[i].id for i in np.flatnonzero((box[:, 2:] < 0).any(1) | np.isinf(box).any(1))]
    if bad:
        ids = some(f"annotation {i}" for i in bad)
        raise DataError(f"{path}: boxes are not x, y, width, height with sides of 0 or more: {ids}. Correct these.")
    absent = ~(box[:, 2:] > 0).all(1)
    box[:, 2:] += box[:, :2]
    if not absent.any():
        return box, "annotation", []
    hull, source = boxes_around(poses, 1.0)
    box[absent] = hull[absent]
    note = f"{int(absent.sum())} annotations have no box: {source} taken"
    return box, source if absent.all() else f"annotation; {source} where absent ({int(absent.sum())})", [note]
