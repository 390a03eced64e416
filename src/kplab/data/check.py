"""The linter of datasets: everything that would spoil a training run, found before it starts and said all at once."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kplab.data.formats import OUTSIDE_TOLERANCE, some
from kplab.data.images import read_header, read_image
from kplab.errors import DataError
from kplab.structures.labels import Labels

SMALL_BOX = 4.0
"""Pixels: a labelled subject whose box has a shorter side can hardly be seen."""


@dataclass
class Report:
    """What ``check_labels`` found.

    Args:
        errors: faults that training cannot or must not go on with, a line each, with the remedy.
        warnings: what may be meant so, a line each.
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
    """Check a dataset: its files, and its labels against them.

    Args:
        labels: the dataset, or one part of it.
        deep: decode every image whole, in threads, rather than reading headers only.
        max_poses: poses that one image may show, where a head is limited; None for any number.

    Returns:
        All faults, the first ten of each kind with the number of all.
    """
    report = Report()
    p = labels.poses
    report.counts = {
        "images": len(labels),
        "instances": len(p),
        "labelled instances": int(p.labelled.any(1).sum()),
        "labelled keypoints": int(p.labelled.sum()),
    }
    _check_files(labels, deep, report)
    _check_poses(labels, report)
    if max_poses is not None:
        counted = np.add.reduceat(np.append(~p.ignore, 0), labels.start[:-1]) if len(labels) else np.zeros(0)
        crowded = np.flatnonzero((counted > max_poses) & (np.diff(labels.start) > 0))
        _say(
            report,
            "errors",
            "images with too many poses",
            [f"{labels.path(int(i))} ({counted[i]})" for i in crowded],
            f"show more than {max_poses} poses, which is all that the head can hold",
            "Use regions=annotated, or a head for any number of poses.",
        )
    return report


def _say(report: Report, level: str, kind: str, where: list[str], what: str, remedy: str) -> None:
    if where:
        report.counts[kind] = len(where)
        getattr(report, level).append(f"{len(where)} {kind}: {some(where)}: {what}. {remedy}")


def _look(job: tuple[Path, bool]) -> tuple[tuple[int, int] | None, int, str]:
    path, deep = job
    try:
        size, orientation = read_header(path)
        if deep:
            height, width = read_image(path).shape[:2]
            size = (width, height)
    except DataError as error:
        return None, 1, "missing" if not path.is_file() else str(error).removeprefix(f"{path}: ")
    return size, orientation, ""


def _check_files(labels: Labels, deep: bool, report: Report) -> None:
    with ThreadPoolExecutor() as pool:
        seen = list(pool.map(_look, [(labels.path(i), deep) for i in range(len(labels))]))
    found: dict[str, list[str]] = defaultdict(list)
    for i, (size, orientation, fault) in enumerate(seen):
        path, stated = labels.path(i), tuple(int(v) for v in labels.size[i])
        if fault:
            found["missing" if fault == "missing" else "unreadable"].append(
                str(path) if fault == "missing" else f"{path} ({fault})"
            )
        elif size is not None and size != stated:
            turned = orientation >= 5 and size[::-1] == stated
            found["turned" if turned else "sizes"].append(f"{path} (file {size}, labels {stated})")
        elif orientation != 1:
            found["oriented"].append(f"{path} (EXIF orientation {orientation})")
    say = ("errors", "missing images", "no such file", "Check the image folder, or fetch the dataset again.")
    for key, (level, kind, what, remedy) in {
        "missing": say,
        "unreadable": (
            "errors",
            "unreadable images",
            "cannot be decoded whole",
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
    }.items():
        _say(report, level, kind, found[key], what, remedy)


def _check_poses(labels: Labels, report: Report) -> None:
    p = labels.poses
    image = np.repeat(np.arange(len(labels)), np.diff(labels.start))
    counted = p.labelled.any(1) & ~p.ignore

    def named(mask: np.ndarray) -> list[str]:
        return [f"{labels.path(image[i])} instance {labels.instance_id[i]}" for i in np.flatnonzero(mask)]

    if not counted.any():
        report.errors.append(
            f"{labels.root}: no labelled keypoint in {len(labels)} images and {len(p)} instances. "
            "Check that this is the keypoint file, and that visibility is 1 or 2 where a keypoint is labelled."
        )
        report.counts["datasets without labels"] = 1
    ever = p.labelled.sum(0) > 0
    never = [name for name, labelled in zip(labels.skeleton.keypoints, ever, strict=True) if not labelled]
    if never and counted.any():
        _say(
            report,
            "warnings",
            "keypoints that are never labelled",
            never,
            f"no instance of {labels.root} has them",
            "Nothing can be learnt or scored there; check the names.",
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
            "Correct the labels; the readers of kplab take such points as unlabelled.",
        ),
        (
            "warnings",
            "instances with keypoints on the edge",
            edge,
            f"keypoints lie up to {OUTSIDE_TOLERANCE:g} px outside the image",
            "Nothing need be done: they are kept.",
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
            "Correct the boxes: wanted x, y, width, height in pixels of this image.",
        ),
        (
            "warnings",
            "instances with a small box",
            counted & (sides > 0) & (sides < SMALL_BOX),
            f"a side is under {SMALL_BOX:g} px",
            "Check these; a crop of them shows nothing.",
        ),
        (
            "warnings",
            "instances with all keypoints in one place",
            pile,
            "several keypoints are labelled at the same position",
            "Unlabelled keypoints must have visibility 0.",
        ),
    ):
        _say(report, level, kind, named(mask), what, remedy)
