"""Instances as the pages edit them, and their way from and into ``Labels``."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from kplab.data.reading import OUTSIDE_TOLERANCE, boxes_around, share_of_box
from kplab.errors import DataError
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses

#: Factor on the extent of the keypoints that makes the box of an instance for which none was drawn.
BOX_MARGIN = 1.25
#: Largest difference of a box from the extent of its keypoints, pixels, with which it counts as made from them.
DERIVED = 0.01
#: Largest factor of a box that was made from keypoints.
MOST = 1.6


class Instance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One subject of an image, source pixels, continuous.

    Args:
        xyv: 3K numbers: x, y and COCO visibility of each keypoint; 0, 0, 0 where it is not labelled.
        box: xyxy, as drawn; None where there is none.
        track: its number through a video; -1 for none.
        crowd: many subjects in one box.
    """

    xyv: tuple[float, ...]
    box: tuple[float, float, float, float] | None = None
    track: int = -1
    crowd: bool = False

    @property
    def labelled(self) -> int:
        """Number of labelled keypoints."""
        return sum(v > 0 for v in self.xyv[2::3])


def check(instance: Instance, keypoints: int, size: tuple[int, int]) -> None:
    """Refuse an instance that a label file can't hold.

    Args:
        keypoints: number of keypoints of the skeleton.
        size: (width, height) of the image, pixels.

    Raises:
        DataError: states what is wrong.
    """
    if len(instance.xyv) != 3 * keypoints:
        raise DataError(
            f"an instance has {len(instance.xyv)} numbers, but {keypoints} keypoints have {3 * keypoints} (x, y, v)."
        )
    points = np.array(instance.xyv).reshape(-1, 3)
    shown = points[points[:, 2] > 0, :2]
    if not np.isin(points[:, 2], (0, 1, 2)).all() or points[points[:, 2] == 0].any():
        raise DataError("visibility is 0, 1 or 2, and a keypoint that is not labelled is 0, 0, 0.")
    if not ((shown >= -OUTSIDE_TOLERANCE) & (shown <= np.array(size) + OUTSIDE_TOLERANCE)).all():
        raise DataError(f"a keypoint lies outside its image of {size[0]} x {size[1]} pixels.")
    if instance.box is not None:
        x0, y0, x1, y1 = instance.box
        if not (np.isfinite(instance.box).all() and x1 > x0 and y1 > y0):
            raise DataError(f"the box {list(instance.box)} has no area. It needs left, top, right, bottom in pixels.")
    if instance.crowd and len(shown):
        raise DataError("a crowd has no keypoints.")
    if instance.box is None and not len(shown):
        raise DataError("an instance has neither a keypoint nor a box.")


def instances_of(labels: Labels, i: int) -> dict[str, Instance]:
    """The instances of image i by the text of their ids; boxes that were made from keypoints are left out."""
    poses = labels.poses_of(i)
    drawn = np.isnan(margins(poses)) & np.isfinite(poses.box).all(1)
    triplets = np.concatenate([np.nan_to_num(poses.xy), poses.visible[..., None]], axis=-1)
    rows = slice(int(labels.start[i]), int(labels.start[i + 1]))
    return {
        str(id_): Instance(
            tuple(triplets[n].ravel().tolist()),
            tuple(poses.box[n].tolist()) if drawn[n] else None,
            int(poses.track[n]),
            bool(labels.crowd[rows][n]),
        )
        for n, id_ in enumerate(labels.instance_id[rows].tolist())
    }


def margins(poses: Poses) -> np.ndarray:
    """(N,) factor on the extent of the keypoints that makes each box, as readers and the annotator make them.

    NaN where a box is another one: it was drawn.
    """
    hull = boxes_around(poses, 1.0)
    side, own = hull[:, 2:] - hull[:, :2], poses.box[:, 2:] - poses.box[:, :2]
    factor = own.max(1) / side.max(1)
    made = (
        np.concatenate(
            [hull[:, :2] + hull[:, 2:] - side * factor[:, None], hull[:, :2] + hull[:, 2:] + side * factor[:, None]], 1
        )
        / 2
    )
    with np.errstate(invalid="ignore"):
        same = (np.abs(made - poses.box) < DERIVED).all(1) & (factor > 0.99) & (factor < MOST)
    return np.where(same, factor, np.nan)


def with_instances(
    labels: Labels, edited: Mapping[int, Mapping[str, Instance]], ids: Mapping[str, int] | None = None
) -> Labels:
    """Labels in which the instances of some images are others; nothing else changes.

    Instances that did not change keep their rows. A box that was not drawn is the extent of the keypoints times ``BOX_MARGIN``,
    or times the factor that it had. The area of an instance changes as its box does; of a new one it is 0.53 of its box.

    Args:
        labels: as read.
        edited: index of an image to all of its instances.
        ids: key of a new instance to its id; other keys are ids.
    """
    kept = ~np.isin(labels.image_of(), list(edited))
    parts, image_of = [labels.poses[kept]], [labels.image_of()[kept]]
    id_, crowd = [labels.instance_id[kept]], [labels.crowd[kept]]
    for i, instances in edited.items():
        own = [(ids or {}).get(key, 0) or int(key) for key in instances]
        parts.append(_poses(labels, i, own, list(instances.values())))
        image_of.append(np.full(len(own), i))
        id_.append(np.array(own, dtype=np.int64))
        crowd.append(np.array([instance.crowd for instance in instances.values()], dtype=bool))
    return make_labels(
        labels.skeleton,
        labels.source,
        labels.image_id,
        labels.size,
        list(labels.group),
        Poses.concat(parts),
        np.concatenate(image_of).astype(np.int64),
        np.concatenate(id_),
        np.concatenate(crowd),
        box_source=labels.box_source,
        area_source=labels.area_source,
        notes=labels.notes,
        extras=labels.extras,
        files=labels.files,
    )


def _poses(labels: Labels, i: int, ids: list[int], instances: list[Instance]) -> Poses:
    """The poses of image i after it was edited; rows of instances that are as before are taken over."""
    k = len(labels.skeleton)
    if not instances:
        return Poses.empty(k)
    points = np.array([instance.xyv for instance in instances]).reshape(-1, k, 3)
    made = Poses.make(
        points[..., :2],
        points[..., 2],
        box=np.array([instance.box or (np.nan,) * 4 for instance in instances]),
        ignore=np.array([not instance.labelled for instance in instances]),
        track=np.array([instance.track for instance in instances]),
    )
    before, rows = instances_of(labels, i), labels.poses_of(i)
    place = {int(key): n for n, key in enumerate(before)}
    # a box that follows its keypoints keeps its factor
    factor = dict(zip(place, np.nan_to_num(margins(rows), nan=BOX_MARGIN).tolist(), strict=True))
    for n in np.flatnonzero(np.isnan(made.box).any(1)).tolist():
        made.box[n] = boxes_around(made[[n]], factor.get(ids[n], BOX_MARGIN))[0]
    made.area = share_of_box(made.box)
    out = []
    for n, id_ in enumerate(ids):
        one = made[[n]]
        if id_ in place:
            old = rows[[place[id_]]]
            if before[str(id_)] == instances[n]:
                one = old
            elif (share := share_of_box(old.box, 1.0)) > 0:
                one.area = old.area * share_of_box(one.box, 1.0) / share
        out.append(one)
    return Poses.concat(out)
