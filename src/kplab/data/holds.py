"""What a label format can hold, as one declarative value, and what labels lose when they are written in it.

Each format states ``HOLDS``. The table of ``docs/formats.md``, the losses that ``kplab data convert`` prints and the round
trips of the tests are all made from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from kplab.data.reading import BOX_AREA_SHARE, boxes_around, share_of_box, some
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.labels import Labels, make_labels

VISIBLE = 0.01
"""Error of a coordinate, pixels, above which it is stated as a loss."""


@dataclass(frozen=True)
class Holds:
    """What a file of a format has a place for, beside the names of images and the keypoints of one subject an image.

    Args:
        several: several subjects in an image.
        visibility: keypoints that are labelled but hidden (visibility 1).
        boxes: boxes that are not those of the keypoints.
        areas: areas of subjects.
        crowds: boxes around many subjects (COCO's ``iscrowd``).
        bare: subjects without a labelled keypoint.
        empty: images without a subject.
        tracks: the identity of a subject in a video.
        groups: the group of an image, for splits.
        names: names of the keypoints; without them their order decides.
        sizes: images of different sizes.
        keypoints: the only keypoints that it has a place for; empty: any.
        precision: largest error of a coordinate that is written and read, pixels.
    """

    several: bool = True
    visibility: bool = False
    boxes: bool = False
    areas: bool = False
    crowds: bool = False
    bare: bool = False
    empty: bool = True
    tracks: bool = False
    groups: bool = False
    names: bool = True
    sizes: bool = True
    keypoints: tuple[str, ...] = ()
    precision: float = 1e-6


@dataclass(frozen=True)
class Loss:
    """What a format can't hold of labels.

    Args:
        what: with a count, as text.
        instances: number of labelled subjects that would be missing in the file.
    """

    what: str
    instances: int = 0


def losses(labels: Labels, holds: Holds) -> list[Loss]:
    """What a file of a format would lack, with counts; an empty list if the format holds all of the labels."""
    p, image_of = labels.poses, labels.image_of()
    labelled = p.labelled.any(1)
    bare = ~labelled & ~labels.crowd
    counted = np.bincount(image_of[labelled], minlength=len(labels))
    groups = sum(str(group) != str(name) for group, name in zip(labels.group, labels.names, strict=True))
    more = int(np.maximum(counted - 1, 0).sum())
    annotated = labels.box_source.startswith("annotation")
    found = [
        (holds.several, more, f"subjects beyond the first of {int((counted > 1).sum())} images: left out", more),
        (holds.visibility, int((p.visible == 1).sum()), "hidden keypoints: written as visible", 0),
        (holds.crowds, int(labels.crowd.sum()), "crowds: left out", 0),
        (holds.bare, int(bare.sum()), "subjects without a labelled keypoint: left out", 0),
        (holds.empty, int((counted == 0).sum()), "images without a labelled subject: left out", 0),
        (holds.boxes, int(labelled.sum()) if annotated else 0, "boxes: made from the keypoints when read", 0),
        (
            holds.areas,
            int(labelled.sum()) if labels.area_source.startswith(("annotation", "segment")) else 0,
            "areas: made from the boxes when read",
            0,
        ),
        (holds.tracks, int((p.track >= 0).sum()), "tracks: not written", 0),
        (holds.groups, groups, "images with a group: a reader makes groups of its own", 0),
    ]
    listed = [Loss(f"{count} {words}", instances) for held, count, words, instances in found if not held and count]
    if holds.precision > VISIBLE and (rounded := _fractions(p.xy[p.labelled])):
        listed.append(Loss(f"fractions: {rounded} keypoints are rounded by up to {holds.precision:.1g} px"))
    return listed + ([] if holds.names else [Loss(f"names of {len(labels.skeleton)} keypoints: their order is kept")])


def _fractions(xy: np.ndarray) -> int:
    """Number of points that whole pixel indices don't hold."""
    index = affine.to_pixel_index(xy)
    return int((np.abs(index - np.rint(index)) > VISIBLE).any(-1).sum())


def reduced(labels: Labels, holds: Holds, box_margin: float = 1.2) -> Labels:
    """What is left of labels in a file of a format: what its reader must find again.

    Args:
        labels: what is written.
        holds: of the format.
        box_margin: factor on the extent of the keypoints that makes a box, where the format has none.
    """
    p, image_of = labels.poses, labels.image_of()
    visible = p.visible if holds.visibility else np.where(p.labelled, 2, 0).astype(np.uint8)
    poses = replace(p, visible=visible, track=p.track if holds.tracks else np.full(len(p), -1))
    if not holds.boxes:
        poses = replace(poses, box=boxes_around(poses, box_margin))
    if not holds.areas:
        poses = replace(poses, area=share_of_box(poses.box, BOX_AREA_SHARE))
    labelled = p.labelled.any(1)
    kept = labelled | (labels.crowd & holds.crowds) | (~labelled & ~labels.crowd & holds.bare)
    if not holds.several:
        _, first = np.unique(image_of[kept], return_index=True)
        kept = np.isin(np.arange(len(p)), np.flatnonzero(kept)[first])
    images = np.arange(len(labels)) if holds.empty else np.unique(image_of[kept])
    part = make_labels(
        labels.skeleton,
        labels.source,
        labels.image_id,
        labels.size,
        list(labels.group) if holds.groups else None,
        poses[kept],
        image_of[kept],
        labels.instance_id[kept],
        labels.crowd[kept],
        box_source=labels.box_source if holds.boxes else f"keypoint extent x {box_margin:g}",
        area_source=labels.area_source if holds.areas else f"{BOX_AREA_SHARE:g} x box",
        notes=labels.notes,
        extras=labels.extras,
    )
    return part if len(images) == len(labels) else part.select(images)


def instances_of(labels: Labels, image: int) -> list[int]:
    """Rows in ``labels.poses`` of the instances of an image."""
    return list(range(int(labels.start[image]), int(labels.start[image + 1])))


def singles(labels: Labels, where: object) -> list[int | None]:
    """Row of the one labelled instance of each image, None where there is none, for formats with one subject an image.

    Raises:
        DataError: an image has several labelled subjects; names the images.
    """
    image_of = labels.image_of()
    rows = np.flatnonzero(labels.poses.labelled.any(1) & ~labels.crowd)
    images, first, count = np.unique(image_of[rows], return_index=True, return_counts=True)
    if (count > 1).any():
        several = some(labels.names[i] for i in images[count > 1])
        raise DataError(
            f"{where}: the format has one subject an image, but {int((count > 1).sum())} images have several: {several}. "
            "Choose another format, or cut the images around the subjects."
        )
    found = dict(zip(images.tolist(), rows[first].tolist(), strict=True))
    return [found.get(i) for i in range(len(labels))]


def table(formats: Sequence[tuple[str, str, Holds]]) -> list[str]:
    """A Markdown table of what formats hold, a line each.

    Args:
        formats: name, "yes, no" for reading and writing, and what it holds.
    """
    flags = [f.name for f in fields(Holds) if f.name not in ("precision", "keypoints")]
    rows = [["format", "in, out", *("hidden" if flag == "visibility" else flag for flag in flags), "px"]]
    for name, how, holds in formats:
        rows.append([f"`{name}`", how, *("yes" if getattr(holds, f) else "–" for f in flags), f"{holds.precision:.0g}"])
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]
