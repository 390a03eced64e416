"""Checks of a dataset: everything that would spoil a training run, found before it starts and reported at once."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from kplab.data.damage import find_damaged
from kplab.data.images import FEW_BITS, few_bits, read_header
from kplab.data.reading import OUTSIDE_TOLERANCE, some
from kplab.errors import DataError
from kplab.structures.labels import Labels

SMALL_BOX = 4.0
"""Pixels: a labelled subject whose box has a shorter side is hardly visible."""


@dataclass
class Report:
    """What ``check_labels`` found.

    Args:
        errors: faults that prevent or invalidate a training, a line each, with what to do.
        warnings: what may be intended, a line each.
        counts: kind of fault to how often it occurs; and images, instances, labelled instances and keypoints.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        head = ", ".join(f"{count} {kind}" for kind, count in self.counts.items())
        return "\n".join([head, *(f"error: {e}" for e in self.errors), *(f"warning: {w}" for w in self.warnings)])

    def raise_if_errors(self) -> None:
        """Raise one DataError that names every error."""
        if self.errors:
            raise DataError(f"the dataset has {len(self.errors)} kinds of error:\n" + "\n".join(self.errors))


def check_labels(labels: Labels, *, deep: bool = False, max_poses: int | None = None) -> Report:
    """Check a dataset: its images, and its labels against them.

    Args:
        labels: the dataset, or one part of it.
        deep: decode every image whole, in threads, rather than reading headers only.
        max_poses: largest number of poses in one image, where a head is limited; None for any number.

    Returns:
        All faults: of each kind the first ten, with their number.
    """
    report = Report()
    p = labels.poses
    report.counts = {
        "images": len(labels),
        "instances": len(p),
        "labelled instances": int(p.labelled.any(1).sum()),
        "labelled keypoints": int(p.labelled.sum()),
    }
    _check_images(labels, deep, report)
    _check_poses(labels, report)
    if max_poses is not None:
        counted = np.add.reduceat(np.append(~p.ignore, 0), labels.start[:-1]) if len(labels) else np.zeros(0)
        crowded = np.flatnonzero((counted > max_poses) & (np.diff(labels.start) > 0))
        _add(
            report,
            "errors",
            "images with too many poses",
            [f"{labels.where(int(i))} ({counted[i]})" for i in crowded],
            f"show more than {max_poses} poses, the largest number that the head can represent",
            "Use regions=annotated, or a head for any number of poses.",
        )
    return report


def _add(report: Report, level: str, kind: str, places: list[str], what: str, remedy: str) -> None:
    if places:
        report.counts[kind] = len(places)
        getattr(report, level).append(f"{len(places)} {kind}: {some(places)}: {what}. {remedy}")


def _look(labels: Labels, i: int, deep: bool) -> tuple[tuple[int, int] | None, int, str, int | None]:
    """(width, height), EXIF orientation, words for a fault, and bits where few, of image i; only files have headers."""
    path = labels.path(i)
    size, orientation = None, 1
    try:
        if path is not None:
            size, orientation = read_header(path)
        if deep or path is None:
            height, width = labels.read(i).shape[:2]
            size = (width, height)
    except DataError as error:
        missing = path is not None and not path.is_file()
        return None, 1, "missing" if missing else str(error).removeprefix(f"{path}: "), None
    return size, orientation, "", few_bits(path) if path is not None else None


def _check_images(labels: Labels, deep: bool, report: Report) -> None:
    with ThreadPoolExecutor() as pool:
        seen = list(pool.map(lambda i: _look(labels, i, deep), range(len(labels))))
    found: dict[str, list[str]] = defaultdict(list)
    if deep:
        files = [file for i in range(len(labels)) if (file := labels.path(i)) is not None]
        found["damaged"] = [f"{file} ({text})" for file, text in find_damaged(files).items()]
    for i, (size, orientation, fault, bits) in enumerate(seen):
        path, stated = labels.where(i), tuple(int(v) for v in labels.size[i])
        if fault:
            found["missing" if fault == "missing" else "unreadable"].append(
                path if fault == "missing" else f"{path} ({fault})"
            )
        elif size is not None and size != stated:
            turned = orientation >= 5 and size[::-1] == stated
            found["turned" if turned else "sizes"].append(f"{path} (file {size}, labels {stated})")
        elif orientation != 1:
            found["oriented"].append(f"{path} (EXIF orientation {orientation})")
        if bits:
            found["dark"].append(f"{path} ({bits} bits)")
    for key, (level, kind, what, remedy) in {
        "missing": (
            "errors",
            "missing images",
            "no such file",
            "Check the image folder, or fetch the dataset again.",
        ),
        "unreadable": (
            "errors",
            "unreadable images",
            "cannot be decoded completely",
            "Fetch these files again, or leave them out of the dataset.",
        ),
        "turned": (
            "errors",
            "turned images",
            "the labels are for the image as EXIF turns it, but kplab reads pixels as stored",
            "Store the pixels upright without the EXIF tag (e.g. exiftran -ai, or mogrify -auto-orient).",
        ),
        "sizes": (
            "errors",
            "images of another size",
            "file and labels (width, height) disagree",
            "The images were resized after labelling: take the originals, or scale the labels with them.",
        ),
        "oriented": (
            "warnings",
            "images with EXIF orientation",
            "kplab ignores the tag, as COCO's tools do",
            "Make sure that the labels are on the stored pixels.",
        ),
        "dark": (
            "warnings",
            "16-bit images that appear dark",
            f"their values use {FEW_BITS} or fewer of the 16 bits",
            "Stretch their values to 16 bits, all by one factor.",
        ),
        "damaged": (
            "warnings",
            "JPEG images with damaged data",
            "the decoder found a fault, and the image may be wrong from there on",
            "Look at these, and fetch them again or leave them out.",
        ),
    }.items():
        _add(report, level, kind, found[key], what, remedy)


def _check_poses(labels: Labels, report: Report) -> None:
    p = labels.poses
    image = labels.image_of()
    counted = p.labelled.any(1) & ~p.ignore

    def named(mask: np.ndarray) -> list[str]:
        return [f"{labels.where(image[i])} instance {labels.instance_id[i]}" for i in np.flatnonzero(mask)]

    if not counted.any():
        report.errors.append(
            f"{labels.source}: no labelled keypoint in {len(labels)} images and {len(p)} instances. "
            "Check that this is the keypoint file, and that visibility is 1 or 2 where a keypoint is labelled."
        )
        report.counts["datasets without labels"] = 1
    ever = p.labelled.sum(0) > 0
    never = [name for name, labelled in zip(labels.skeleton.keypoints, ever, strict=True) if not labelled]
    if never and counted.any():
        _add(
            report,
            "warnings",
            "keypoints that are never labelled",
            never,
            f"no instance of {labels.source} has them",
            "They are neither learnt nor scored; check the names.",
        )
    size = labels.size[image]
    with np.errstate(invalid="ignore"):
        beyond_edge = np.maximum(-p.xy, p.xy - size[:, None]).reshape(len(p), 2 * len(labels.skeleton))
        beyond = (p.box[:, :2] >= size).any(1) | (p.box[:, 2:] <= 0).any(1)
    past = np.max(np.nan_to_num(beyond_edge), axis=1, initial=0)
    outside, edge = past > OUTSIDE_TOLERANCE, (past > 0) & (past <= OUTSIDE_TOLERANCE)
    sides = (p.box[:, 2:] - p.box[:, :2]).min(1, initial=np.inf)
    hull = p.extent()
    pile = counted & (p.labelled.sum(1) > 1) & (hull[:, :2] == hull[:, 2:]).all(1)
    no_box = counted & ~(sides > 0)
    no_area = counted & ~(p.area > 0)
    for level, kind, mask, what, remedy in (
        (
            "errors",
            "instances with keypoints outside",
            outside,
            f"keypoints lie more than {OUTSIDE_TOLERANCE:g} px outside the image",
            "Correct the labels; kplab's readers treat such points as unlabelled.",
        ),
        (
            "warnings",
            "instances with keypoints on the edge",
            edge,
            f"keypoints lie up to {OUTSIDE_TOLERANCE:g} px outside the image",
            "They are kept; no action is needed.",
        ),
        (
            "errors",
            "instances without a box",
            no_box,
            "the box has no extent",
            "Give them boxes, or mark them ignored.",
        ),
        (
            "errors",
            "instances without an area",
            no_area & ~no_box,
            "OKS divides by the area, which is missing or 0",
            "Give areas, or read with area=box.",
        ),
        (
            "errors",
            "instances with a box outside",
            counted & beyond,
            "the box does not touch the image",
            "Correct the boxes: expected x, y, width, height in pixels of this image.",
        ),
        (
            "warnings",
            "instances with a small box",
            counted & (sides > 0) & (sides < SMALL_BOX),
            f"a side is under {SMALL_BOX:g} px",
            "Check these; a crop of them shows next to nothing.",
        ),
        (
            "warnings",
            "instances with all keypoints in one place",
            pile,
            "several keypoints are labelled at the same position",
            "Unlabelled keypoints must have visibility 0.",
        ),
    ):
        _add(report, level, kind, named(mask), what, remedy)
