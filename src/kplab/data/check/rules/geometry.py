"""Positions, boxes and areas: outside their image, empty, too large, or not those of the keypoints."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kplab.data.check.checked import Checked
from kplab.data.check.finding import Finding, rule
from kplab.data.reading import BOX_TOLERANCE, OUTSIDE_TOLERANCE

SMALL_BOX = 4.0
"""Pixels: a labelled subject whose box has a shorter side is hardly visible."""

LARGE_BOX = 8.0
"""A box whose side is this many times that of the extent of at least ``SPREAD`` keypoints is not a box of one subject."""

LARGE_AREA = 1.05
"""Areas are at most this share of their box: segments end at its edges."""

SMALL_AREA = 0.02
"""Areas are at least this share of their box."""

SPREAD = 4
"""Keypoints from which on their extent tells the size of a subject."""

FAR = 0.5
"""Diagonals of the box that a keypoint may lie outside of it; annotators draw boxes around what is visible."""

MARGIN = 0.2
"""Share of its sides by which keypoints may lie beyond a box."""


@rule(
    "error",
    "instances with keypoints outside",
    f"keypoints lie more than {OUTSIDE_TOLERANCE:g} px outside the image",
    "Correct the labels; kplab's readers treat such points as unlabelled.",
    training=True,
)
def keypoint_outside(data: Checked) -> Iterator[Finding]:
    """Keypoints lie outside the image."""
    past = _past_edge(data)
    for i in np.flatnonzero((past > OUTSIDE_TOLERANCE).any(1)):
        names = [data.labels.skeleton.keypoints[k] for k in np.flatnonzero(past[i] > OUTSIDE_TOLERANCE)]
        farthest = float(past[i].max())
        text = f"{', '.join(names[:4])}{' …' if len(names) > 4 else ''} by {farthest:.1f} px"
        yield data.at(i, int(past[i].argmax()), text, farthest, OUTSIDE_TOLERANCE, "make these keypoints unlabelled")


@rule(
    "warning",
    "instances with keypoints on the edge",
    f"keypoints lie up to {OUTSIDE_TOLERANCE:g} px outside the image",
    "They are kept; no action is needed.",
    training=True,
)
def keypoint_on_edge(data: Checked) -> Iterator[Finding]:
    """Keypoints lie outside the image by less than a pixel."""
    past = _past_edge(data).max(1, initial=0)
    for i in np.flatnonzero((past > 0) & (past <= OUTSIDE_TOLERANCE)):
        yield data.at(i, value=float(past[i]), expected=0.0)


@rule(
    "warning",
    "splits whose points count from 1",
    "points lie within one pixel beyond their image, and none in its first row or column",
    "Subtract 1 in the file; a plain CSV is read with pixels: index from 1.",
)
def counted_from_one(data: Checked) -> Iterator[Finding]:
    """Points probably count from 1: some lie beyond the image, and none at its start."""
    labels = data.labels
    size, known = labels.size[data.image_of].astype(np.float64)[:, None], labels.poses.labelled
    with np.errstate(invalid="ignore"):
        beyond = (labels.poses.xy > size).any(-1) & known
        first = (labels.poses.xy < 1).any(-1) & known
    if beyond.any() and not first.any():
        yield Finding(text=f"{int(beyond.sum())} keypoints", value=float(beyond.sum()), expected=0.0)


@rule(
    "error",
    "instances with keypoints at the corner",
    "keypoints lie at the first pixel of the image, where exports put points that were not labelled",
    "Unlabelled keypoints must have visibility 0.",
)
def keypoint_at_origin(data: Checked) -> Iterator[Finding]:
    """Keypoints lie at (0, 0), while others of the subject don't lie near it."""
    p = data.labels.poses
    with np.errstate(invalid="ignore"):
        at = (p.xy <= 0.75).all(-1) & (p.xy >= -0.25).all(-1)
        far = np.nanmax(np.where(np.isfinite(p.xy), p.xy, 0), axis=(1, 2)) if len(p) else np.zeros(0)
    for i, k in zip(*np.nonzero(at & (far > 20)[:, None]), strict=True):
        yield data.at(i, int(k), fix="make this keypoint unlabelled")


@rule(
    "error",
    "instances without a box",
    "the box has no extent",
    "Give them boxes, or mark them ignored.",
    training=True,
)
def box_missing(data: Checked) -> Iterator[Finding]:
    """A labelled subject has no box, or one without extent."""
    for i in np.flatnonzero(data.counted & ~(_sides(data).min(1) > 0)):
        yield data.at(i, fix="take a box around the keypoints")


@rule(
    "error",
    "instances without an area",
    "OKS divides by the area, which is missing or 0",
    "Give areas, or read with area=box.",
    training=True,
)
def area_missing(data: Checked) -> Iterator[Finding]:
    """A labelled subject has no positive area."""
    p = data.labels.poses
    for i in np.flatnonzero(data.counted & ~(p.area > 0) & (_sides(data).min(1) > 0)):
        yield data.at(i, value=float(p.area[i]), expected=0.0, fix="take a share of the box")


@rule(
    "error",
    "instances with a box outside",
    "the box does not touch the image",
    "Correct the boxes: expected x, y, width, height in pixels of this image.",
    training=True,
)
def box_outside(data: Checked) -> Iterator[Finding]:
    """A box lies outside its image."""
    p, size = data.labels.poses, data.labels.size[data.image_of]
    with np.errstate(invalid="ignore"):
        beyond = (p.box[:, :2] >= size).any(1) | (p.box[:, 2:] <= 0).any(1)
    for i in np.flatnonzero(data.counted & beyond):
        yield data.at(i, text=_box_text(p.box[i]), fix="take a box around the keypoints")


@rule(
    "warning",
    "instances with a box beyond the image",
    f"the box extends beyond the image by more than {BOX_TOLERANCE:.0%} of its side",
    "Check whether the box is in pixels of this image.",
)
def box_beyond_image(data: Checked) -> Iterator[Finding]:
    """A box extends far beyond its image."""
    p, size = data.labels.poses, data.labels.size[data.image_of].astype(np.float64)
    if data.labels.box_source.startswith("keypoint"):
        return  # it has a margin around keypoints that are inside
    with np.errstate(invalid="ignore"):
        past = (np.maximum(-p.box[:, :2], p.box[:, 2:] - size) / size).max(1)
        touches = (p.box[:, :2] < size).all(1) & (p.box[:, 2:] > 0).all(1)
    for i in np.flatnonzero(data.counted & touches & (past > BOX_TOLERANCE)):
        yield data.at(i, None, _box_text(p.box[i]), float(past[i]), BOX_TOLERANCE, "clip the box to the image")


@rule(
    "warning",
    "instances with a small box",
    f"a side is under {SMALL_BOX:g} px",
    "Check these; a crop of them shows next to nothing.",
    training=True,
)
def box_small(data: Checked) -> Iterator[Finding]:
    """A labelled subject has a box of a few pixels."""
    sides = _sides(data).min(1)
    for i in np.flatnonzero(data.counted & (sides > 0) & (sides < SMALL_BOX)):
        yield data.at(i, value=float(sides[i]), expected=SMALL_BOX)


@rule(
    "warning",
    "instances with a large box",
    f"the box has {LARGE_BOX:g} times the extent of the keypoints",
    "Check whether the box is that of this subject.",
)
def box_large(data: Checked) -> Iterator[Finding]:
    """A box is much larger than the extent of its keypoints."""
    ratio = _box_ratio(data)
    if not np.isfinite(ratio).any():
        return
    limit = max(LARGE_BOX, 4 * float(np.nanmedian(ratio)))
    for i in np.flatnonzero(ratio > limit):
        yield data.at(i, None, f"{ratio[i]:.1f} times", float(ratio[i]), limit)


@rule(
    "error",
    "instances with keypoints of another box",
    "most keypoints lie outside the box",
    "Check whether box and keypoints belong to the same subject.",
)
def keypoints_outside_box(data: Checked) -> Iterator[Finding]:
    """Most keypoints of a subject lie outside its box."""
    p = data.labels.poses
    margin = MARGIN * _sides(data)
    with np.errstate(invalid="ignore"):
        inside = ((p.xy >= (p.box[:, :2] - margin)[:, None]) & (p.xy <= (p.box[:, 2:] + margin)[:, None])).all(-1)
    labelled = p.labelled.sum(1)
    share = (p.labelled & ~inside).sum(1) / np.maximum(labelled, 1)
    for i in np.flatnonzero(data.counted & (_sides(data).min(1) > 0) & (share > 0.5)):
        yield data.at(i, None, f"{share[i]:.0%} outside", float(share[i]), 0.5)


@rule(
    "warning",
    "keypoints far outside the box",
    f"a keypoint is farther outside its box than {FAR:g} of the box's diagonal",
    "Look at these keypoints, or at the box.",
)
def keypoint_far_from_box(data: Checked) -> Iterator[Finding]:
    """A keypoint lies far outside its box, as drawn by an annotator."""
    p = data.labels.poses
    if data.labels.box_source != "annotation":
        return  # boxes around keypoints say nothing about them
    beyond = np.maximum(np.maximum(p.box[:, None, :2] - p.xy, p.xy - p.box[:, None, 2:]), 0)
    sides = _sides(data)
    with np.errstate(invalid="ignore", divide="ignore"):
        far = np.linalg.norm(beyond, axis=-1) / np.linalg.norm(sides, axis=-1)[:, None]
    few = (far > FAR).sum(1) <= p.labelled.sum(1) / 2  # keypoints_outside_box reports more
    for i in np.flatnonzero(data.counted & (sides.min(1) > 0) & few):
        for k in np.flatnonzero(far[i] > FAR):
            yield data.at(i, int(k), f"{far[i, k]:.2f} diagonals outside", float(far[i, k]), FAR)


@rule(
    "error",
    "instances with a large area",
    "the area is larger than the box",
    "Areas are in pixels**2 of this image; correct them, or read with area=box.",
)
def area_large(data: Checked) -> Iterator[Finding]:
    """An area is larger than its box."""
    share = _area_share(data)
    for i in np.flatnonzero(share > LARGE_AREA):
        yield data.at(i, None, f"{share[i]:.2f} of the box", float(share[i]), LARGE_AREA, "take a share of the box")


@rule(
    "warning",
    "instances with a small area",
    f"the area is under {SMALL_AREA:.0%} of the box",
    "Check the area or the box: small areas make OKS strict.",
)
def area_small(data: Checked) -> Iterator[Finding]:
    """An area is a very small part of its box."""
    share = _area_share(data)
    for i in np.flatnonzero(share < SMALL_AREA):
        yield data.at(i, None, f"{share[i]:.3f} of the box", float(share[i]), SMALL_AREA)


@rule(
    "warning",
    "instances with all keypoints in one place",
    "several keypoints are labelled at the same position",
    "Unlabelled keypoints must have visibility 0.",
    training=True,
)
def keypoints_in_one_place(data: Checked) -> Iterator[Finding]:
    """All keypoints of a subject have the same position."""
    p = data.labels.poses
    hull = p.extent()
    pile = data.counted & (p.labelled.sum(1) > 1) & (hull[:, :2] == hull[:, 2:]).all(1)
    for i in np.flatnonzero(pile):
        yield data.at(i)


def _past_edge(data: Checked) -> np.ndarray:
    """(N, K) pixels by which keypoints lie outside; 0 inside and where unlabelled."""
    p, size = data.labels.poses, data.labels.size[data.image_of]
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.maximum(-p.xy, p.xy - size[:, None]).max(-1, initial=0)).clip(0)


def _sides(data: Checked) -> np.ndarray:
    box = data.labels.poses.box
    return box[:, 2:] - box[:, :2]


def _box_ratio(data: Checked) -> np.ndarray:
    """(N,) root of the area of a box over that of the extent of its keypoints; NaN for few keypoints."""
    p, hull = data.labels.poses, data.labels.poses.extent()
    extent = np.maximum(hull[:, 2:] - hull[:, :2], 1)
    known = data.counted & (p.labelled.sum(1) >= SPREAD) & (_sides(data).min(1) > 0)
    return np.where(known, np.sqrt(_sides(data).prod(1).clip(0) / extent.prod(1)), np.nan)


def _area_share(data: Checked) -> np.ndarray:
    """(N,) area as a share of the box; NaN where either is missing."""
    p, sides = data.labels.poses, _sides(data)
    known = data.counted & (sides.min(1) > 0) & (p.area > 0)
    return np.where(known, p.area / np.where(known, sides.prod(1), 1), np.nan)


def _box_text(box: np.ndarray) -> str:
    return f"x {box[0]:.0f} to {box[2]:.0f}, y {box[1]:.0f} to {box[3]:.0f}"
