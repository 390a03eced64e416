"""Corrections: what is safe is corrected and listed, and everything else stays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.data.check.toy import beetles, permuted, with_copy

from kplab.data.check import Dataset, check_dataset
from kplab.data.check.finding import find_rules
from kplab.data.check.mend import MENDS, mend
from kplab.data.formats import coco
from kplab.structures.labels import Labels


def damaged(folder: Path) -> Labels:
    """Labels with each fault that can be corrected, and one that can't."""
    labels = with_copy(beetles(folder), 5, 0.0)  # instance row 6 is the copy
    p = labels.poses
    p.xy[10, 3] = [-50, 100]
    p.xy[11, 2] = 0.5
    p.box[12] = [10, 10, 10, 10]
    p.box[13] = [500, 10, 600, 50]
    p.box[14, 2] = 480
    p.area[15] = 0
    p.area[16] = 1e6
    labels.image_id[17] = labels.image_id[18]
    labels.instance_id[19] = 0
    permuted(labels, 20, list(labels.skeleton.flip))
    return labels


def test_what_is_safe_is_corrected_and_listed(tmp_path: Path) -> None:
    labels = damaged(tmp_path)
    before = labels.poses.xy.copy()
    report = check_dataset(Dataset({"all": labels}, deep=False))
    fixed, done = mend(report)
    after = check_dataset(Dataset({"all": fixed["all"]}, deep=False), skip=["files", "limbs"])
    assert {entry["rule"] for entry in done} == set(MENDS)
    assert not [f for f in after.findings if f.fix]
    assert {f.rule for f in after.findings if f.level != "info"} == {"left-right-exchanged"}
    assert len(fixed["all"].poses) == len(labels.poses) - 1
    assert (labels.poses.xy[~np.isnan(before)] == before[~np.isnan(before)]).all(), "the input is not changed"


def test_nothing_else_changes(tmp_path: Path) -> None:
    labels = damaged(tmp_path)
    fixed, done = mend(check_dataset(Dataset({"all": labels}, deep=False)))
    touched = {entry["instance_id"] for entry in done}
    where = {int(i): row for row, i in enumerate(fixed["all"].instance_id)}
    for row, id_ in enumerate(labels.instance_id.tolist()):
        if id_ not in touched:
            for column in ("xy", "visible", "box", "area"):
                old, new = getattr(labels.poses, column)[row], getattr(fixed["all"].poses, column)[where[id_]]
                np.testing.assert_array_equal(old, new)


def test_corrected_labels_are_written_and_read_again(tmp_path: Path) -> None:
    fixed, _ = mend(check_dataset(Dataset({"all": damaged(tmp_path)}, deep=False)))
    path = coco.write(fixed["all"], tmp_path / "fixed.json")
    again = coco.read(path, tmp_path, fixed["all"].skeleton)
    np.testing.assert_allclose(again.poses.xy, fixed["all"].poses.xy, atol=0.01)
    assert (again.poses.visible == fixed["all"].poses.visible).all()


def test_every_correction_belongs_to_a_rule() -> None:
    assert set(MENDS) <= set(find_rules())
