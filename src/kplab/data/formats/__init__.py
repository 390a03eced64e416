"""One reader, and where it makes sense one writer, for each file format; and the rules that all of them share.

A reader converts the format's pixels to kplab's continuous ones (``ops.affine``), matches keypoints to the skeleton by
name, and says in ``Labels.notes`` whatever it left out or filled in. What it cannot make sense of is a ``DataError``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from kplab.errors import DataError
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

OUTSIDE_TOLERANCE = 1.0
"""Pixels by which a keypoint may lie outside its image and still count as labelled: annotators' rounding."""

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
    """Where each keypoint of the skeleton stands in a file, by name and never by position.

    Args:
        names: keypoint names of the file, in its order.
        skeleton: whose keypoints are wanted.
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


def drop_outside(xy: np.ndarray, visible: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Unlabel keypoints that lie more than ``OUTSIDE_TOLERANCE`` outside their image, and say how many.

    Args:
        xy: (N, K, 2) source pixels, continuous.
        visible: (N, K) visibility.
        size: (N, 2) width and height of each instance's image, pixels.

    Returns:
        (N, K) visibility with such keypoints 0, and the note, if any.
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


def boxes_around(poses: Poses, margin: float) -> tuple[np.ndarray, str]:
    """Boxes for a format that has none: the hull of the labelled keypoints, enlarged about its centre.

    A side is at least a tenth of the other and at least 1 pixel, so that one keypoint, or a straight row of them, still
    has a box with an area.

    Returns:
        (N, 4) xyxy, NaN where nothing is labelled; and the words for ``Labels.box_source``.
    """
    hull = poses.extent()
    centre, side = (hull[:, :2] + hull[:, 2:]) / 2, hull[:, 2:] - hull[:, :2]
    side = np.maximum(np.maximum(side, side[:, ::-1] / 10), 1.0) * margin
    return np.concatenate([centre - side / 2, centre + side / 2], axis=1), f"keypoint extent x {margin:g}"


def share_of_box(box: np.ndarray) -> np.ndarray:
    """(N,) areas for subjects without a segment: ``BOX_AREA_SHARE * width * height``."""
    return BOX_AREA_SHARE * (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
