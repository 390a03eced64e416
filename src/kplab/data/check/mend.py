"""Corrects what can be corrected without a look at the picture; every change is listed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from kplab.data.check import Finding, Report
from kplab.data.reading import BOX_AREA_SHARE, OUTSIDE_TOLERANCE, share_of_box
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses

MARGIN = 1.2
"""Factor on the extent of the keypoints that makes a box, as the readers of formats without boxes have it."""


def mend(report: Report) -> tuple[dict[str, Labels], list[dict[str, Any]]]:
    """Corrected copies of the labels, and a list of what was done.

    Only findings with a ``fix`` are corrected: those of which the right value is known or does not matter. Exchanged names,
    outliers and damaged images are left for a person to decide.

    Returns:
        Split to Labels; and one entry a change: split, rule, image, instance_id, keypoint, and what was ``done``.
    """
    fixable: dict[str, list[Finding]] = defaultdict(list)
    for finding in report.findings:
        if finding.fix:
            fixable[finding.split].append(finding)
    out, done = {}, []
    for split, labels in report.labels.items():
        changed, removed = _copy(labels), np.zeros(len(labels.poses), dtype=bool)
        # boxes are taken from keypoints, and areas from boxes
        for finding in sorted(fixable[split], key=lambda f: list(MENDS).index(f.rule)):
            MENDS[finding.rule](changed, finding, removed)
            done.append(
                {
                    "split": split,
                    "rule": finding.rule,
                    "image": None if finding.image is None else str(labels.names[finding.image]),
                    "instance_id": None if finding.instance is None else int(labels.instance_id[finding.instance]),
                    "keypoint": None if finding.keypoint is None else labels.skeleton.keypoints[finding.keypoint],
                    "done": finding.fix,
                }
            )
        out[split] = _without(changed, removed)
    return out, done


def _outside(labels: Labels, finding: Finding, removed: np.ndarray) -> None:
    p, i = labels.poses, _row(finding)
    size = labels.size[finding.image]
    with np.errstate(invalid="ignore"):
        beyond = ((p.xy[i] < -OUTSIDE_TOLERANCE) | (p.xy[i] > size + OUTSIDE_TOLERANCE)).any(1)
    p.xy[i, beyond], p.visible[i, beyond] = np.nan, 0


def _origin(labels: Labels, finding: Finding, removed: np.ndarray) -> None:
    p, i = labels.poses, _row(finding)
    p.xy[i, finding.keypoint], p.visible[i, finding.keypoint] = np.nan, 0


def _twice(labels: Labels, finding: Finding, removed: np.ndarray) -> None:
    removed[_row(finding)] = True


def _box(labels: Labels, finding: Finding, removed: np.ndarray) -> None:
    p, i = labels.poses, _row(finding)
    hull = p[[i]].extent()[0]
    if np.isfinite(hull).all():
        centre, half = (hull[:2] + hull[2:]) / 2, np.maximum((hull[2:] - hull[:2]) / 2 * MARGIN, 1.0)
        p.box[i] = np.concatenate([centre - half, centre + half])
        _clip(labels, finding, removed)


def _clip(labels: Labels, finding: Finding, removed: np.ndarray) -> None:
    p, i = labels.poses, _row(finding)
    size = np.asarray(labels.size[finding.image], dtype=np.float64)
    p.box[i] = np.clip(p.box[i], 0, np.tile(size, 2))


def _area(labels: Labels, finding: Finding, removed: np.ndarray) -> None:
    p, i = labels.poses, _row(finding)
    p.area[i] = share_of_box(p.box[[i]], BOX_AREA_SHARE)[0]


def _image_id(labels: Labels, finding: Finding, removed: np.ndarray) -> None:
    labels.image_id[finding.image] = max(0, int(labels.image_id.max())) + 1


def _instance_id(labels: Labels, finding: Finding, removed: np.ndarray) -> None:
    labels.instance_id[_row(finding)] = max(0, int(labels.instance_id.max())) + 1


#: What is done about the findings of each rule that have a ``fix``, in this order.
MENDS: dict[str, Callable[[Labels, Finding, np.ndarray], None]] = {
    "subject-twice": _twice,
    "keypoint-outside": _outside,
    "keypoint-at-origin": _origin,
    "box-missing": _box,
    "box-outside": _box,
    "box-beyond-image": _clip,
    "area-missing": _area,
    "area-large": _area,
    "image-ids": _image_id,
    "instance-ids": _instance_id,
}


def _row(finding: Finding) -> int:
    assert finding.instance is not None
    return finding.instance


def _copy(labels: Labels) -> Labels:
    p = labels.poses
    columns = (p.xy, p.visible, p.score, p.keypoint_score, p.box, p.area, p.ignore, p.track)
    poses = Poses(*(column.copy() for column in columns))
    return replace(labels, poses=poses, image_id=labels.image_id.copy(), instance_id=labels.instance_id.copy())


def _without(labels: Labels, removed: np.ndarray) -> Labels:
    """The labels without some instances; a subject that has no keypoint left is ignored, as an unlabelled one."""
    p = labels.poses
    p.ignore |= ~p.labelled.any(1)
    if not removed.any():
        return labels
    count = np.bincount(labels.image_of()[~removed], minlength=len(labels))
    start = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    ids, crowd = labels.instance_id[~removed], labels.crowd[~removed]
    extras = None if labels.extras is None else labels.extras.select(labels.image_id, ids)
    return replace(labels, poses=p[~removed], start=start, instance_id=ids, crowd=crowd, extras=extras)
