"""Edits, conflicts, saving, kills, and the files of other programs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kplab.apps.annotate.instances import Instance, instances_of, with_instances
from kplab.apps.annotate.journal import Journal
from kplab.apps.annotate.opening import open_project
from kplab.apps.annotate.project import Change, Conflict, Project
from kplab.data.formats import coco
from kplab.errors import ConfigError, DataError
from kplab.tasks import compose

Opened = Callable[[], Project]


def made(*points: tuple[float, float, float], box: tuple[float, float, float, float] | None = None) -> Instance:
    """An instance with the first keypoints."""
    numbers = [v for point in points for v in point]
    return Instance(tuple(numbers + [0.0] * (15 - len(numbers))), box)


def moved(instance: Instance, k: int, x: float, y: float, v: float = 2) -> Instance:
    """An instance with one keypoint elsewhere."""
    numbers = list(instance.xyv)
    numbers[3 * k : 3 * k + 3] = [x, y, v]
    return Instance(tuple(numbers), instance.box, instance.track, instance.crowd)


def move(project: Project, x: float, window: str = "w") -> None:
    """Move the head of the first subject of the first image."""
    before = project.instances(0)["7"]
    project.edit(0, [Change("7", before, moved(before, 0, x, 12.25))], window)


def test_a_move_changes_its_numbers_in_the_file_and_nothing_else(opened: Opened, files) -> None:
    before = files.read()
    project = opened()
    move(project, 33.25)
    project.close()
    after = files.read()
    assert after["annotations"][0]["keypoints"][:3] == [32.75, 11.75, 2]
    expected = json.loads(json.dumps(before))
    expected["annotations"][0]["keypoints"][:3] = [32.75, 11.75, 2]
    assert after == expected
    assert not list(files.labels.parent.glob(".*.journal"))


def test_without_edits_the_file_is_not_touched(opened: Opened, files) -> None:
    before = files.labels.read_bytes(), files.labels.stat().st_mtime_ns
    opened().close()
    assert (files.labels.read_bytes(), files.labels.stat().st_mtime_ns) == before


def test_new_deleted_occluded_and_boxed_instances(opened: Opened, files, skeleton) -> None:
    project = opened()
    first = made((10, 20, 2), (30, 44, 1))
    project.edit(2, [Change("w.1", None, first)])
    project.edit(2, [Change("w.1", first, moved(first, 4, 50, 60, 1))])
    boxed = made(box=(5.5, 6, 25.5, 46))
    project.edit(3, [Change("w.2", None, boxed)])
    project.edit(0, [Change("7", project.instances(0)["7"], None)])
    assert project.counts.tolist() == [0, 0, 1, 0, 0, 0]
    project.close()
    added = {a["image_id"]: a for a in files.read()["annotations"]}
    assert set(added) == {11, 12, 13}, "the crowd stays"
    one = added[12]
    assert one["keypoints"] == [9.5, 19.5, 2, 29.5, 43.5, 1, 0, 0, 0, 0, 0, 0, 49.5, 59.5, 1]
    assert one["num_keypoints"] == 3
    # no box was drawn: the extent (10, 20, 50, 60) about its centre, 1.25 times as large; the area is 0.53 of it
    assert one["bbox"] == [5, 15, 50, 50]
    assert one["area"] == pytest.approx(0.53 * 2500)
    assert added[13]["bbox"] == [5.5, 6, 20, 40]
    again = coco.read(files.labels, files.images, skeleton)
    assert instances_of(again, 2)[str(one["id"])].box is None, "a box that was not drawn is not taken for one"
    assert instances_of(again, 3)[str(added[13]["id"])] == boxed


def test_the_area_follows_the_box(opened: Opened, files) -> None:
    project = opened()
    before = project.instances(0)["7"]
    project.edit(0, [Change("7", before, Instance(before.xyv, (20, 20, 75, 110)))])
    project.close()
    assert files.read()["annotations"][0]["area"] == pytest.approx(1500)  # half as wide as before, of 3000


def test_two_windows_lose_nothing(opened: Opened, files) -> None:
    """Edits of different instances never conflict; of the same one the second window is refused and gets the newer state."""
    project = opened()
    original = project.instances(0)["7"]
    other = made((100, 100, 2))
    project.edit(0, [Change("b.1", None, other)], "b")
    project.edit(0, [Change("7", original, moved(original, 1, 70, 71))], "a")
    newer = project.instances(0)["7"]
    with pytest.raises(Conflict, match="another window"):
        project.edit(0, [Change("7", original, moved(original, 1, 1, 2))], "b")
    # an edit of several instances is accepted or refused as a whole
    with pytest.raises(Conflict):
        project.edit(0, [Change("b.2", None, other), Change("7", original, None)], "b")
    assert project.instances(0) == {"7": newer, "b.1": other}
    # a window that asks again, as its connection broke before the answer, is not refused, and nothing is done twice
    assert not project.edit(0, [Change("7", original, newer)], "a")
    assert len(project.edits) == 2
    project.close()
    assert [a["keypoints"][3:5] for a in files.read()["annotations"] if a["id"] == 7] == [[69.5, 70.5]]


def test_a_second_process_is_refused(opened: Opened, files) -> None:
    project = opened()
    with pytest.raises(DataError, match=rf"is open in another process \(pid {os.getpid()}\)"):
        Journal(files.labels)
    project.close()
    opened().close()


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        (Instance((1.0, 2.0)), "2 numbers, but 5 keypoints have 15"),
        (made((200, 5, 2)), "outside its image of 160 x 120"),
        (made((float("nan"), 5, 2)), "outside its image"),
        (made((10, 5, 3)), "visibility is 0, 1 or 2"),
        (made((10, 5, 0)), "0, 0, 0"),
        (made(), "neither a keypoint nor a box"),
        (made((1, 1, 2), box=(5, 5, 5, 9)), "no area"),
        (made((1, 1, 2), box=(5, 5, float("inf"), 9)), "no area"),
        (Instance(made((1, 1, 2)).xyv, (0, 0, 9, 9), -1, True), "a crowd has no keypoints"),
    ],
)
def test_invalid_instances_are_refused(opened: Opened, instance: Instance, message: str) -> None:
    project = opened()
    with pytest.raises(DataError, match=message):
        project.edit(2, [Change("w.1", None, instance)])
    assert project.instances(2) == {}
    assert not project.edits
    project.close()


@pytest.mark.parametrize("key", ["99", "8", "W.1", "w.1.1", "../x", "", "w." + "1" * 12])
def test_keys_of_other_instances_are_refused(opened: Opened, key: str) -> None:
    project = opened()
    with pytest.raises(DataError, match="no key of an instance"):
        project.edit(0, [Change(key, None, made((1, 1, 2)))])
    with pytest.raises(DataError, match="there is no image 6"):
        project.edit(6, [Change("w.1", None, made((1, 1, 2)))])
    project.edit(0, [Change("w.1", None, made((1, 1, 2)))])
    with pytest.raises(DataError, match="no key of an instance"):
        project.edit(1, [Change("w.1", None, made((1, 1, 2)))])
    project.close()


KILLED = """
import os, sys
from pathlib import Path
from kplab.apps.annotate.journal import Journal
from kplab.apps.annotate.project import Change, Project
from kplab.apps.annotate.instances import Instance
from kplab.apps.annotate.target import Target
from kplab.data.formats import coco
from kplab.structures.skeleton import Skeleton
import json
labels, images, skeleton, when = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4]
journal = Journal(labels)
project = Project(coco.read(labels, images, Skeleton.from_config(skeleton), keep_extras=True), Target.coco(labels), journal)
before = project.instances(0)["7"]
after = Instance((33.25, 12.25, 2.0) + before.xyv[3:], before.box)
new = Instance((50.0, 60.0, 1.0) + (0.0,) * 12)
project.edit(0, [Change("7", before, after)])
project.edit(4, [Change("k.1", None, new)])
if when in ("saved", "saved twice"):
    project.save()
if when == "saved twice":
    moved = Instance((51.0, 60.0, 1.0) + (0.0,) * 12)
    project.edit(4, [Change("k.1", new, moved)])
    project.edit(4, [Change("k.1", moved, new)])
    project.edit(3, [Change("k.2", None, new)])
    project.save()
    project.edit(3, [Change("k.2", new, None)])
if when == "torn":
    journal.stream.write(b'{"edit": {"image": 10, "chan')
    journal.stream.flush()
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("when", ["unsaved", "saved", "saved twice", "torn"])
def test_nothing_is_lost_by_a_kill(opened: Opened, files, when: str) -> None:
    """The labels are the same, whenever the process is killed."""
    command = [sys.executable, "-c", KILLED, str(files.labels), str(files.images), json.dumps(files.skeleton), when]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    json.loads(files.labels.read_text())
    project = opened()
    assert project.recovered == (6 if when == "saved twice" else 2)
    assert project.instances(0)["7"].xyv[:3] == (33.25, 12.25, 2)
    project.close()
    after = files.read()["annotations"]
    assert [(a["id"], a["image_id"], a["keypoints"][:3]) for a in after] == [
        (7, 10, [32.75, 11.75, 2]), (8, 11, [0, 0, 0]), (9, 14, [49.5, 59.5, 1]),
    ]  # fmt: skip
    assert after[0]["mood"] == "calm"
    assert opened().recovered == 0


def test_a_file_that_another_program_changed_is_not_overwritten(opened: Opened, files) -> None:
    project = opened()
    move(project, 30)
    changed = {**files.read(), "info": {"by": "another program"}}
    files.labels.write_text(json.dumps(changed))
    with pytest.raises(DataError, match="changed by another program and is not overwritten"):
        project.close()
    assert files.read() == changed
    # nor does the next process apply the edits to it
    with pytest.raises(DataError, match=r"1 edits of a process that was killed are not in it"):
        opened()
    assert files.read() == changed


def test_a_failing_save_keeps_the_edits(opened: Opened, files, monkeypatch: pytest.MonkeyPatch) -> None:
    project = opened()
    move(project, 30)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "labels.json")

    with monkeypatch.context() as patch:
        patch.setattr("kplab.apps.annotate.journal.replacing", full)
        with pytest.raises(OSError, match="No space"):
            project.close()
    assert project.fault
    assert "no space left on the disk" in project.fault
    again = opened()
    assert again.recovered == 1
    again.close()
    assert files.read()["annotations"][0]["keypoints"][0] == 29.5


def test_an_edit_that_can_not_be_written_is_not_applied(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    project = opened()
    before = project.instances(0)["7"]
    size = (project.journal.folder / "edits.jsonl").stat().st_size

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("kplab.apps.annotate.journal.os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            move(project, 30)
    assert project.instances(0)["7"] == before
    assert (project.journal.folder / "edits.jsonl").stat().st_size == size
    project.close()


def test_edits_are_saved_soon(opened: Opened, files) -> None:
    project = opened()
    project.start_saving()
    move(project, 30)
    for _ in range(100):
        if not project.unsaved:
            break
        time.sleep(0.05)
    assert files.read()["annotations"][0]["keypoints"][0] == 29.5
    project.close()


# ---------------------------------------------------------------- opening


def test_a_dataset_is_saved_to_its_own_file(files, tmp_path: Path) -> None:
    project = open_project(files.config("dataset=bugs"))
    move(project, 20)
    project.close()
    document = files.read()
    assert document["annotations"][0]["keypoints"][0] == 19.5
    assert document["annotations"][0]["mood"] == "calm"


def test_or_to_another_one_that_can_be_continued(files, tmp_path: Path) -> None:
    before = files.labels.read_bytes()
    out = tmp_path / "other.json"
    for x in (20, 21):
        project = open_project(files.config("dataset=bugs", f"out={out}"))
        move(project, x)
        project.close()
        assert json.loads(out.read_text())["annotations"][0]["keypoints"][0] == x - 0.5
    assert files.labels.read_bytes() == before


def test_new_labels_of_a_folder_grow_with_it(files, tmp_path: Path) -> None:
    out = tmp_path / "new.json"
    shutil.move(files.images / "frame0.png", tmp_path / "later.png")
    options = (f"images={files.images}", "skeleton=bug", f"out={out}")
    project = open_project(files.config(*options))
    assert len(project) == 5
    project.edit(0, [Change("w.1", None, made((10, 20, 2)))])
    project.close()
    shutil.move(tmp_path / "later.png", files.images / "frame0.png")
    project = open_project(files.config(*options))
    assert list(project.base.names) == [f"frame{i}.png" for i in (1, 2, 3, 4, 5, 0)]
    assert project.counts.tolist() == [1, 0, 0, 0, 0, 0]
    project.edit(5, [Change("w.1", None, made((30, 20, 2)))])
    project.close()
    document = json.loads(out.read_text())
    names = {i["id"]: i["file_name"] for i in document["images"]}
    assert [(names[a["image_id"]], a["keypoints"][0]) for a in document["annotations"]] == [
        ("frame1.png", 9.5), ("frame0.png", 29.5),
    ]  # fmt: skip


def test_frames_of_a_video_have_their_true_numbers(files, tmp_path: Path, skeleton) -> None:
    import av

    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264rgb", rate=10, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for i in range(30):
            picture = np.full((48, 64, 3), 8 * i, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    out = tmp_path / "clip.json"
    project = open_project(files.config(f"images={tmp_path}/clip.mp4", "frames=[3,30,9]", "skeleton=bug", f"out={out}"))
    assert list(project.base.names) == ["000003.png", "000012.png", "000021.png"]
    assert [int(project.base.read(i).mean().round()) for i in range(3)] == [24, 96, 168]
    project.edit(1, [Change("w.1", None, made((10, 20, 2)))])
    project.close()
    again = coco.read(out, project.base.source.root, skeleton)
    assert again.names[again.image_of()].tolist() == ["000012.png"]
    with pytest.raises(ConfigError, match=r"\[0,30,10\]: .* has 30 frames"):
        open_project(files.config(f"images={tmp_path}/clip.mp4", "frames=[0,31,1]", "skeleton=bug", f"out={out}"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "name labels to edit"),
        (["dataset=bugs", "images=x"], "not both"),
        (["images=x"], "skeleton=NAME"),
        (["dataset=bugs", "source=val"], "no source 'val'. It has: all"),
        (["dataset=bugs", "skeleton=bug"], "Leave them out"),
        (["dataset=bugs", "annotator=a/b"], "letters, digits"),
        (["dataset=bugs", "out=x.csv"], "ends with .json"),
        (["dataset=flies", "source=test"], "can't be written back"),
        (["dataset=flies"], "Name one: source=train|test"),
    ],
)
def test_mistakes_are_stated(files, tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("|", r"\|")):
        open_project(files.config(*overrides))


def test_deeplabcut_tables_are_written_back(files, tmp_path: Path) -> None:
    """Numbers that were not edited stay to the last digit, in the csv and in the h5 file."""
    folder = tmp_path / "project" / "labeled-data" / "a"
    files.make_images(folder, 2)
    columns = pd.MultiIndex.from_product(
        [["me"], ["head", "tail"], ["x", "y"]], names=["scorer", "bodyparts", "coords"]
    )
    index = pd.MultiIndex.from_tuples([("labeled-data", "a", f"frame{i}.png") for i in range(2)])
    values = np.array([[10.123456789, 20.2, 30.3, 40.4], [50.5, 60.6, np.nan, np.nan]])
    table = pd.DataFrame(values, index=index, columns=columns)
    table.to_csv(folder / "CollectedData_me.csv")
    table.to_hdf(folder / "CollectedData_me.h5", key="df_with_missing", mode="w")
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "tables.yaml").write_text(
        "name: tables\nskeleton: {name: two, keypoints: [head, tail], sigmas: uniform}\nsources:\n"
        f"  all: {{_target_: kplab.data.formats.dlc.read, project: {tmp_path}/project}}\nsplit: null\n"
    )
    project = open_project(compose("annotate", [f"hydra.searchpath=[file://{tmp_path}/conf]", "dataset=tables"]))
    key, before = next(iter(project.instances(1).items()))
    assert before.box is None, "made from the keypoints"
    after = Instance((*before.xyv[:3], 70.25, 80.25, 2.0))
    project.edit(1, [Change(key, before, after)])
    hidden = Instance((*before.xyv[:3], 70.25, 80.25, 1.0))
    with pytest.raises(DataError, match="holds no 'occluded'"):
        project.edit(1, [Change(key, after, hidden)])
    project.close()
    expected = values.copy()
    expected[1, 2:] = [69.75, 79.75]
    written = pd.read_csv(folder / "CollectedData_me.csv", header=[0, 1, 2], index_col=[0, 1, 2])
    assert np.array_equal(written.to_numpy(), expected)
    assert np.array_equal(pd.read_hdf(folder / "CollectedData_me.h5").to_numpy(), expected)
    assert not list(tmp_path.glob(".*.journal"))


@pytest.mark.parametrize("factor", [1.0, 1.2, 1.25])
def test_boxes_of_keypoints_follow_them(files, skeleton, factor: float) -> None:
    """A file in which other programs have written boxes around the keypoints; they keep their factor."""
    document = files.read()
    document["annotations"][0]["bbox"] = [75.5 - 45 * factor, 65.5 - 35 * factor, 90 * factor, 70 * factor]
    files.labels.write_text(json.dumps(document))
    labels = coco.read(files.labels, files.images, skeleton)
    before = instances_of(labels, 0)["7"]
    assert before.box is None
    moved_ = with_instances(labels, {0: {"7": moved(before, 4, 10.5, 100.5)}})
    assert moved_.poses.box[0] == pytest.approx(
        [65.5 - 55 * factor, 65.5 - 35 * factor, 65.5 + 55 * factor, 65.5 + 35 * factor]
    )
    assert moved_.poses.area[0] == pytest.approx(3000 * 110 / 90)


def test_a_box_that_is_only_near_the_keypoints_was_drawn(files, skeleton) -> None:
    document = files.read()
    document["annotations"][0]["bbox"] = [30.5, 30.5, 90.5, 70]
    files.labels.write_text(json.dumps(document))
    assert instances_of(coco.read(files.labels, files.images, skeleton), 0)["7"].box == (30.5, 30.5, 121, 100.5)


def test_instances_of_labels_and_back(files, skeleton) -> None:
    """Images that are given back unchanged give the same labels."""
    labels = coco.read(files.labels, files.images, skeleton, keep_extras=True)
    again = with_instances(labels, {i: instances_of(labels, i) for i in range(len(labels))})
    assert again.digest() == labels.digest()
    assert again.instance_id.tolist() == labels.instance_id.tolist()
