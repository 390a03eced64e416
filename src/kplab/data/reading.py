"""The rules that all readers of label formats share: keypoints by name, points outside, boxes and areas that are missing.

A reader turns a file into arrays, converts pixels to continuous coordinates (``ops.affine.from_pixel_index``) and hands
them to ``labels_from``. Whatever is left out or filled in is stated in ``Labels.notes``. A file that cannot be understood
is a ``DataError`` that names it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from kplab.errors import DataError
from kplab.structures.image_source import ImageSource
from kplab.structures.labels import Extras, Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

FIRST_PIXEL = 1.5
"""Coordinate below which all fractions lie, also those that were taken for pixel indices."""

FRACTIONS = 20
"""Keypoints from which on they are judged to be fractions."""

OUTSIDE_TOLERANCE = 1.0
"""Pixels by which a keypoint may lie outside its image and still count as labelled: annotators' rounding."""

BOX_TOLERANCE = 0.1
"""Share of its image's side by which a box may extend beyond it, and of its image by which an area may be larger, without
remark."""

BOX_AREA_SHARE = 0.53
"""Area of a subject as a share of its box where no segment is known (CrowdPose evaluation, xtcocotools)."""


def some(items: Iterable[object], limit: int = 10) -> str:
    """The first few of a list for a message, and how many more there are."""
    listed = [str(item) for item in items]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def match_keypoints(
    names: Sequence[str], skeleton: Skeleton, where: str, rename: Mapping[str, str] | None = None
) -> np.ndarray:
    """Position in a file of each keypoint of the skeleton, matched by name.

    Args:
        names: keypoint names of the file, in its order.
        skeleton: whose keypoints are looked up.
        where: file and part of it, for the message.
        rename: file's name to skeleton's name, where they differ.

    Returns:
        (K,) int64 index into ``names`` of every keypoint of the skeleton.

    Raises:
        DataError: the two sets of names differ, or the file names a keypoint twice.
    """
    known = [(rename or {}).get(n, n) for n in names]
    doubled = sorted({n for n in known if known.count(n) > 1})
    if doubled:
        raise DataError(f"{where}: keypoints are named twice: {', '.join(doubled)}. Give each a name of its own.")
    missing = [n for n in skeleton.keypoints if n not in known]
    extra = [n for n in known if n not in skeleton.keypoints]
    if missing or extra:
        raise DataError(
            f"{where}: keypoints differ from skeleton '{skeleton.name}': the file lacks {some(missing) or 'none'}, and "
            f"has unknown {some(extra) or 'none'}. Choose the skeleton of this dataset, or map the names with 'rename'."
        )
    return np.array([known.index(n) for n in skeleton.keypoints], dtype=np.int64)


def labels_from(
    skeleton: Skeleton,
    source: ImageSource,
    image_id: np.ndarray,
    size: np.ndarray,
    group: Sequence[str] | None,
    xy: np.ndarray,
    visible: np.ndarray | None,
    image_of: np.ndarray,
    instance_id: np.ndarray,
    *,
    box: np.ndarray | None = None,
    area: np.ndarray | None = None,
    box_margin: float = 1.0,
    area_share: float = BOX_AREA_SHARE,
    crowd: np.ndarray | None = None,
    track: np.ndarray | None = None,
    notes: Sequence[str] = (),
    extras: Extras | None = None,
    files: Sequence[Path] = (),
) -> Labels:
    """Labels from the columns of a reader: the last step of every format.

    Keypoints of crowds and keypoints more than ``OUTSIDE_TOLERANCE`` outside their image become unlabelled, instances
    without a labelled keypoint become ``ignore``, and missing boxes and areas are filled in; notes state each of these.

    Args:
        skeleton: names of the K keypoints.
        source: the I images.
        image_id: (I,) positive and unique.
        size: (I, 2) width and height, pixels.
        group: (I,) of each image; None: each image is a group of its own.
        xy: (N, K, 2) continuous source pixels; NaN where unlabelled.
        visible: (N, K) COCO visibility; None: 2 where xy is finite.
        image_of: (N,) index of the image of each instance.
        instance_id: (N,) positive and unique.
        box: (N, 4) xyxy, NaN where absent; None: the format has none.
        area: (N,) pixels**2, NaN or 0 where absent; None: the format has none.
        box_margin: factor on the extent of the keypoints that makes a missing box.
        area_share: share of its box that is taken for a missing area.
        crowd: (N,) bool; None: the format has no crowds.
        track: (N,) tracks, -1 where there is none; None: the format has none.
        notes: what the reader itself left out or changed.
        extras: for the format's writer.
        files: that the labels were read from; a run records their hashes.
    """
    poses = Poses.make(xy, visible, track=track)
    if crowd is not None:
        poses.visible[crowd] = 0
    refuse_fractions(poses, size[image_of], some(files, 1) or source)
    visible, outside = drop_outside(poses.xy, poses.visible, size[image_of])
    poses = Poses.make(poses.xy, visible, ignore=(visible == 0).all(1), track=track)
    all_notes = [*notes, *outside]
    if poses.ignore.any():
        crowds = 0 if crowd is None else int(crowd.sum())
        bare = int(poses.ignore.sum()) - crowds
        all_notes.append(f"{crowds} crowds and {bare} subjects without a labelled keypoint are ignored")
    poses.box, box_source, filled = _filled_boxes(poses, box, box_margin)
    all_notes += filled
    poses.area, area_source, filled = _filled_areas(poses.box, box_source, area, area_share)
    return make_labels(
        skeleton,
        source,
        image_id,
        size,
        group,
        poses,
        image_of,
        instance_id,
        crowd,
        box_source=box_source,
        area_source=area_source,
        notes=all_notes + filled,
        extras=extras,
        files=tuple(files),
    )


def drop_outside(xy: np.ndarray, visible: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Unlabel keypoints that lie more than ``OUTSIDE_TOLERANCE`` outside their image.

    Args:
        xy: (N, K, 2) source pixels, continuous.
        visible: (N, K) visibility.
        size: (N, 2) width and height of each instance's image, pixels.

    Returns:
        (N, K) visibility with such keypoints 0, and a note with their number, if any.
    """
    limit = size[:, None, :] + OUTSIDE_TOLERANCE
    with np.errstate(invalid="ignore"):
        outside = (visible > 0) & ((xy < -OUTSIDE_TOLERANCE) | (xy > limit)).any(-1)
    if not outside.any():
        return visible, []
    note = (
        f"{int(outside.sum())} labelled keypoints of {int(outside.any(1).sum())} instances lie more than "
        f"{OUTSIDE_TOLERANCE:g} px outside their image: taken as unlabelled"
    )
    return np.where(outside, 0, visible), [note]


def check_extents(
    where: str, ids: np.ndarray, box: np.ndarray, area: np.ndarray | None, size: np.ndarray, counted: np.ndarray
) -> list[str]:
    """Refuse boxes and areas that can't be those of their images; returns notes on the doubtful ones.

    A box may extend beyond its image, as annotators draw what they assume there, but by a side of the image at most. An
    area above the image's own is an error. Either one would make scores meaningless: OKS and PCK divide by them.

    Args:
        where: the file.
        ids: (N,) of the annotations.
        box: (N, 4) xyxy; NaN where absent.
        area: (N,) pixels**2; NaN where absent; None: not used.
        size: (N, 2) width and height of the image of each.
        counted: (N,) bool: those that are trained on and scored.

    Raises:
        DataError: names the annotations.
    """
    sides = size.astype(np.float64)
    with np.errstate(invalid="ignore"):
        past = np.maximum(-box[:, :2], box[:, 2:] - sides) / sides
        wrong, doubtful = (past > 1).any(1), (past > BOX_TOLERANCE).any(1)
        large = np.zeros(len(ids), dtype=bool) if area is None else area > (1 + BOX_TOLERANCE) * sides.prod(1)
    for bad, what, remedy in (
        (wrong, "boxes extend beyond their image by more than its own side", "x, y, width, height in pixels"),
        (large, "areas are larger than their image", "pixels², or read with area=box"),
    ):
        if (bad & counted).any():
            listed = some(f"annotation {i}" for i in ids[bad & counted])
            raise DataError(f"{where}: {int((bad & counted).sum())} {what}: {listed}. Correct these: {remedy}.")
    number = int((doubtful & counted).sum())
    note = f"{number} boxes extend beyond their image by more than {BOX_TOLERANCE:.0%} of its side: kept as they are"
    return [note] if number else []


def check_copies(
    where: str, ids: np.ndarray, image_of: np.ndarray, xy: np.ndarray, visible: np.ndarray, counted: np.ndarray
) -> list[str]:
    """A note on instances of an image that have the same keypoints; refuses a file that lists most of them twice.

    Args:
        where: the file.
        ids: (N,) of the instances.
        image_of: (N,) image of each.
        xy: (N, K, 2) pixels.
        visible: (N, K) COCO visibility.
        counted: (N,) bool: those that are trained on and scored.

    Raises:
        DataError: at least half of the counted instances have a copy, and there is more than one such pair.
    """
    rows = np.flatnonzero(counted)
    points = np.where(visible[rows, :, None] > 0, xy[rows], -1e9).reshape(len(rows), 2 * xy.shape[1])
    content = np.column_stack([image_of[rows].astype(np.float64), points])
    # as bytes: much faster than np.unique(axis=0) for COCO's 150,000 instances; 0 is added because -0 has other bytes
    keys = [row.tobytes() for row in content + 0.0]
    count = Counter(keys)
    twice = rows[[count[key] > 1 for key in keys]] if len(count) < len(keys) else rows[:0]
    if not len(twice):
        return []
    listed = some(ids[twice])
    if len(twice) > 2 and 2 * len(twice) >= len(rows):
        raise DataError(
            f"{where}: {len(twice)} of {len(rows)} labelled instances have the same keypoints as another one of their image: "
            f"{listed}. The file lists its instances twice: remove the copies, or export it again."
        )
    return [f"{len(twice)} instances have the same keypoints as another one of their image: {listed}"]


def boxes_around(poses: Poses, margin: float) -> np.ndarray:
    """Boxes from keypoints: the hull of the labelled keypoints, enlarged about its centre.

    A side is at least a tenth of the other and at least 1 pixel, so that one keypoint, or a straight row of them, still
    has a box with an area.

    Returns:
        (N, 4) xyxy, NaN where nothing is labelled.
    """
    hull = poses.extent()
    centre, side = (hull[:, :2] + hull[:, 2:]) / 2, hull[:, 2:] - hull[:, :2]
    side = np.maximum(np.maximum(side, side[:, ::-1] / 10), 1.0) * margin
    return np.concatenate([centre - side / 2, centre + side / 2], axis=1)


def share_of_box(box: np.ndarray, share: float = BOX_AREA_SHARE) -> np.ndarray:
    """(N,) areas for subjects without a segment: ``share * width * height``."""
    return share * (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])


def _filled_boxes(poses: Poses, box: np.ndarray | None, margin: float) -> tuple[np.ndarray, str, list[str]]:
    """Boxes, the words for ``Labels.box_source``, and notes."""
    words = f"keypoint extent x {margin:g}"
    hull = boxes_around(poses, margin)
    if box is None:
        return hull, words, []
    absent = np.logical_not(np.all(box[:, 2:] > box[:, :2], axis=1))
    if not absent.any():
        return box, "annotation", []
    note = f"{int(absent.sum())} annotations have no box: {words} taken"
    source = words if absent.all() else f"annotation; {words} where absent ({int(absent.sum())})"
    return np.where(absent[:, None], hull, box), source, [note]


def _filled_areas(
    box: np.ndarray, box_source: str, area: np.ndarray | None, share: float
) -> tuple[np.ndarray, str, list[str]]:
    """Areas, the words for ``Labels.area_source``, and notes."""
    filled = share_of_box(box, share)
    words = f"{share:g} x box"
    derived = words if box_source.startswith("annotation") else f"{words} ({box_source})"
    if area is None:
        return filled, derived, []
    absent = ~(area > 0)
    if not absent.any():
        return area, "annotation", []
    note = f"{int(absent.sum())} annotations have no positive area: {words} taken"
    source = derived if absent.all() else f"annotation; {words} where absent ({int(absent.sum())})"
    return np.where(absent, filled, area), source, [note]


def refuse_fractions(poses: Poses, size: np.ndarray, where: object) -> None:
    """Refuse points that are fractions of their image in place of pixels.

    Args:
        poses: continuous pixels.
        size: (N, 2) of the image of each.
        where: the file.

    Raises:
        DataError: all points lie within the first pixel of images of 32 pixels or more, spread over it.
    """
    xy = poses.xy[poses.labelled]
    if len(xy) < FRACTIONS or (size < 32).any():
        return
    if xy.min() >= 0 and xy.max() <= FIRST_PIXEL and (np.ptp(xy, axis=0) > 1 / 4).all():
        raise DataError(
            f"{where}: all {len(xy)} keypoints lie within the first pixel of their images: they are fractions 0..1, in place "
            "of pixels. Multiply x by the width and y by the height; a plain CSV is read with pixels=fraction."
        )
