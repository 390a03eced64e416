"""Every rule has a fixture that fails: the rule finds what was planted, there and only there, and nothing in clean data."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.check.toy import BODY, SIZE, beetles, found, permuted, renamed, with_copy

from kplab.data.check import find_rules
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses

#: What a fixture returns: the splits, the expected (image, instance, keypoint) of each finding, and options of the Dataset.
Case = tuple[dict[str, Labels], list[tuple[int | None, int | None, int | None]], dict[str, object]]
CASES: dict[str, Callable[[Path], Case]] = {}
PIXELS = (
    "missing-image", "unreadable-image", "damaged-image", "image-size", "turned-image", "exif-orientation", "dark-image",
    "copied-image", "same-image-in-splits", "near-image-in-splits",
)  # fmt: skip


def case(function: Callable[[Path], Case]) -> Callable[[Path], Case]:
    """Register a fixture under the name of its rule."""
    CASES[function.__name__.replace("_", "-")] = function
    return function


def one(labels: Labels, *place: int | None) -> Case:
    return {"all": labels}, [place], {"deep": False}  # type: ignore[list-item]


def images(folder: Path, *place: int | None) -> tuple[Labels, Case]:
    labels = beetles(folder, 6, pixels=True)
    return labels, ({"all": labels}, [place or (2, None, None)], {})  # type: ignore[list-item]


@case
def missing_image(folder: Path) -> Case:
    labels, expected = images(folder)
    labels.path(2).unlink()
    return expected


@case
def unreadable_image(folder: Path) -> Case:
    labels, expected = images(folder)
    data = labels.path(2).read_bytes()
    labels.path(2).write_bytes(data[: len(data) // 2])
    return expected


@case
def damaged_image(folder: Path) -> Case:
    labels = beetles(folder, 3)
    rng = np.random.default_rng(0)
    for i in range(3):
        picture = Image.fromarray(rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8))
        picture.save(folder / "x.jpg", quality=95)
        (folder / "x.jpg").rename(folder / f"{i}.jpg")
    data = bytearray((folder / "2.jpg").read_bytes())
    del data[len(data) // 2 : len(data) // 2 + 64]
    (folder / "2.jpg").write_bytes(data)
    labels.source.__dict__["names"] = [f"{i}.jpg" for i in range(3)]
    return {"all": labels}, [(2, None, None)], {}


@case
def image_size(folder: Path) -> Case:
    labels, expected = images(folder)
    labels.size[2] = [401, 300]
    return expected


@case
def turned_image(folder: Path) -> Case:
    labels, expected = images(folder)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 400)).save(labels.path(2), exif=exif)
    return expected


@case
def exif_orientation(folder: Path) -> Case:
    labels, expected = images(folder)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", SIZE).save(labels.path(2), exif=exif)
    return expected


@case
def dark_image(folder: Path) -> Case:
    labels, expected = images(folder)
    Image.fromarray(np.full((SIZE[1], SIZE[0]), 4000, dtype=np.uint16)).save(labels.path(2))
    return expected


@case
def copied_image(folder: Path) -> Case:
    labels, expected = images(folder, 4, None, None)
    shutil.copy(labels.path(1), labels.path(4))
    return expected


@case
def same_image_in_splits(folder: Path) -> Case:
    train, test = beetles(folder, 5, 1, pixels=True), beetles(folder, 5, 2, pixels=True)
    shutil.copy(train.path(0), test.path(3))
    return {"train": train, "test": test}, [(3, None, None)], {}


@case
def near_image_in_splits(folder: Path) -> Case:
    train, test = beetles(folder, 5, 1, pixels=True), beetles(folder, 5, 2, pixels=True)
    with Image.open(train.path(0)) as image:
        smaller = image.resize((200, 150)).convert("RGB")
    smaller.save(folder / "again.jpg", quality=60)
    with Image.open(folder / "again.jpg") as image:
        image.resize(SIZE).save(test.path(3))
    return {"train": train, "test": test}, [(3, None, None)], {}


@case
def group_in_splits(folder: Path) -> Case:
    train, test = beetles(folder, 5, 1), beetles(folder, 5, 2)
    train.group[:], test.group[:] = "video1", ["video2", "video1", "video1", "video2", "video2"]
    return {"train": train, "test": test}, [(1, None, None)], {"deep": False}


@case
def keypoint_outside(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.xy[5, 3] = [-2, 100]
    return one(labels, 5, 5, 3)


@case
def keypoint_on_edge(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.xy[5, 3] = [400.5, 100]
    return one(labels, 5, 5, None)


@case
def keypoint_at_origin(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.xy[5, 3] = 0.5
    return one(labels, 5, 5, 3)


@case
def box_missing(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.box[5] = [10, 10, 10, 40]
    return one(labels, 5, 5, None)


@case
def area_missing(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.area[5] = 0
    return one(labels, 5, 5, None)


@case
def box_outside(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.box[5] = [400, 10, 450, 40]
    return one(labels, 5, 5, None)


@case
def box_beyond_image(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.box[5, 2] = 450
    return one(labels, 5, 5, None)


@case
def box_small(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.box[5] = [10, 10, 13, 40]
    return one(labels, 5, 5, None)


@case
def box_large(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.xy[5] = labels.poses.xy[5].mean(0) + BODY / 20
    labels.poses.box[5] = [100, 100, 220, 220]
    return one(labels, 5, 5, None)


@case
def keypoints_outside_box(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.box[5] += 120
    return one(labels, 5, 5, None)


@case
def area_large(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.area[5] *= 3
    return one(labels, 5, 5, None)


@case
def area_small(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.area[5] /= 100
    return one(labels, 5, 5, None)


@case
def keypoints_in_one_place(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.xy[5] = [50, 60]
    return one(labels, 5, 5, None)


@case
def keypoint_misplaced(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.xy[5, 3] += 200
    return one(labels, 5, 5, 3)


@case
def limb_length(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.xy[5, 5] = 2.2 * labels.poses.xy[5, 5] - 1.2 * labels.poses.xy[5, 2]
    return one(labels, 5, 5, 5)


@case
def limb_angle(folder: Path) -> Case:
    labels = beetles(folder)
    # the foot on the other side of the tail's end, in line with the body: a limb of the same length
    p = labels.poses.xy[5]
    along = (p[2] - p[1]) / np.linalg.norm(p[2] - p[1])
    p[5] = p[2] + along * np.linalg.norm(p[5] - p[2])
    return one(labels, 5, 5, 2)


@case
def pose_outlier(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.xy[5] = 150 + np.random.default_rng(0).uniform(-60, 60, (7, 2))
    return one(labels, 5, 5, None)


@case
def keypoint_order(folder: Path) -> Case:
    labels = beetles(folder)
    permuted(labels, 5, [1, 2, 3, 4, 5, 6, 0])
    return one(labels, 5, 5, None)


@case
def keypoints_coincide(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.xy[5, 6] = labels.poses.xy[5, 3]
    return one(labels, 5, 5, 6)


@case
def keypoint_far_from_box(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.xy[5, 1] += 200
    return one(labels, 5, 5, 1)


@case
def left_right_appearance(folder: Path) -> Case:
    """Right feet and ears are white; the positions of subject 5 are as before."""
    labels = beetles(folder, 30, pixels=True)
    labels.poses.xy[:] = np.round(labels.poses.xy)
    for i in range(len(labels)):
        picture = np.full((SIZE[1], SIZE[0], 3), 90, dtype=np.uint8)
        for k in (4, 6) if i != 5 else (3, 5):
            x, y = labels.poses.xy[i, k].astype(int)
            picture[y - 4 : y + 5, x - 4 : x + 5] = 255
        Image.fromarray(picture).save(folder / str(labels.names[i]))
    return {"all": labels}, [(5, 5, None)], {}


@case
def left_right_exchanged(folder: Path) -> Case:
    labels = beetles(folder)
    permuted(labels, 5, list(labels.skeleton.flip))
    return one(labels, 5, 5, None)


@case
def pair_exchanged(folder: Path) -> Case:
    labels = beetles(folder, 160)
    permuted(labels, 5, [0, 1, 2, 3, 4, 6, 5])
    return one(labels, 5, 5, 5)


@case
def sides_scrambled(folder: Path) -> Case:
    """The feet of all subjects, which are near their ears here."""
    labels = beetles(folder)
    ears, feet = labels.poses.xy[:, 3:5], labels.poses.xy[:, 5:]
    labels.poses.xy[:, 5:] = ears + 0.3 * (feet - ears)
    for i in range(len(labels.poses)):
        permuted(labels, i, [0, 1, 2, 3, 4, 6, 5])
    return one(labels, None, None, 3)


@case
def counted_from_one(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.xy[5, 3] = [400.5, 100]
    return one(labels, None, None, None)


@case
def axes_exchanged(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.xy[5] = BODY / 4 + [300, 40]
    labels.poses.box[5] = [290, 20, 310, 60]
    labels.poses.xy[5] = labels.poses.xy[5, :, ::-1]
    return one(labels, 5, 5, None)


@case
def subject_twice(folder: Path) -> Case:
    return one(with_copy(beetles(folder), 5, 1.0), 5, 6, None)


@case
def track_twice(folder: Path) -> Case:
    labels = with_copy(beetles(folder), 5, 100.0)
    labels.poses.track[5:7] = 3
    return one(labels, 5, 6, None)


@case
def track_jump(folder: Path) -> Case:
    labels = beetles(folder, 60)
    labels.group[:] = "video"
    labels.poses.track[:] = 0
    labels.poses.xy[:] = (
        BODY + [100, 100] + np.arange(60)[:, None, None] * [2, 1] + np.sin(np.arange(420)).reshape(60, 7, 1)
    )
    labels.poses.xy[30] += [150, 0]
    return one(labels, 30, 30, None)


@case
def no_labels(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses = Poses.make(np.full((80, 7, 2), np.nan), ignore=np.ones(80, dtype=bool))
    return one(labels, None, None, None)


@case
def too_many_poses(folder: Path) -> Case:
    labels = with_copy(beetles(folder), 5, 50.0)
    return {"all": labels}, [(5, None, None)], {"deep": False, "max_poses": 1}


@case
def keypoint_never_labelled(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.xy[:, 2], labels.poses.visible[:, 2] = np.nan, 0
    return one(labels, None, None, 2)


@case
def name_repeated(folder: Path) -> Case:
    names = ("nose", "neck", "tail", "left_ear", "right_ear", "left_foot", "Left Foot")
    return one(renamed(beetles(folder), keypoints=names), None, None, 6)


@case
def flip_pairs(folder: Path) -> Case:
    labels = renamed(beetles(folder), flip=(0, 1, 2, 6, 5, 4, 3))
    return {"all": labels}, [(None, None, k) for k in (3, 4, 5, 6)], {"deep": False}


@case
def flip_geometry(folder: Path) -> Case:
    """Names don't tell the sides here."""
    labels = renamed(beetles(folder), flip=(0, 1, 2, 6, 5, 4, 3), keypoints=tuple("abcdefg"))
    return {"all": labels}, [(None, None, k) for k in (3, 4, 5, 6)], {"deep": False}


@case
def sigmas(folder: Path) -> Case:
    return one(renamed(beetles(folder), sigmas=(0.03, 0.03, 0.3, 0.03, 0.03, 0.03, 0.03)), None, None, 2)


@case
def edges(folder: Path) -> Case:
    return one(renamed(beetles(folder), edges=((0, 1), (1, 2), (2, 1))), None, None, None)


@case
def image_ids(folder: Path) -> Case:
    labels = beetles(folder)
    labels.image_id[5] = labels.image_id[2]
    return one(labels, 5, None, None)


@case
def instance_ids(folder: Path) -> Case:
    labels = beetles(folder)
    labels.instance_id[5] = 0
    return one(labels, 5, 5, None)


@case
def keypoint_rare(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.xy[3:, 2], labels.poses.visible[3:, 2] = np.nan, 0
    return one(labels, None, None, 2)


@case
def side_balance(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.xy[:40, 6], labels.poses.visible[:40, 6] = np.nan, 0
    return one(labels, None, None, 5)


@case
def scale(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.box[:50, 2:] = labels.poses.box[:50, :2] + 20
    return one(labels, None, None, None)


@case
def pose_spread(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.xy[:] = BODY + 150 + np.arange(80)[:, None, None]
    return one(labels, None, None, None)


@case
def visibility(folder: Path) -> Case:
    labels = beetles(folder)
    labels.poses.visible[:] = 2
    labels.poses.visible[0, 0], labels.poses.xy[0, 0] = 0, np.nan
    return one(labels, None, None, None)


def predicted(labels: Labels) -> dict[int, Poses]:
    """Predictions with an error of about a pixel."""
    xy = labels.poses.xy + np.random.default_rng(1).normal(0, 1, labels.poses.xy.shape)
    p = Poses.make(xy, score=np.full(len(xy), 0.9), keypoint_score=np.full(xy.shape[:2], 0.9))
    return {int(labels.image_id[i]): p[[i]] for i in range(len(labels))}


def against(labels: Labels, predictions: dict[int, Poses], *place: int | None) -> Case:
    return {"all": labels}, [place], {"deep": False, "predictions": {"all": predictions}}  # type: ignore[list-item]


@case
def model_contradicts(folder: Path) -> Case:
    labels = beetles(folder)
    predictions = predicted(labels)
    labels.poses.xy[5, 2] += 30
    return against(labels, predictions, 5, 5, 2)


@case
def model_left_right(folder: Path) -> Case:
    labels = beetles(folder)
    predictions = predicted(labels)
    permuted(labels, 5, list(labels.skeleton.flip))
    return against(labels, predictions, 5, 5, None)


@case
def model_finds_more(folder: Path) -> Case:
    labels = beetles(folder)
    predictions = predicted(labels)
    second = Poses.make(BODY[None] + 700, score=np.array([0.8]))
    predictions[6] = Poses.concat([predictions[6], second])
    return against(labels, predictions, 5, None, None)


@case
def model_misses(folder: Path) -> Case:
    labels = beetles(folder)
    predictions = predicted(labels)
    predictions[6] = Poses.empty(7)
    return against(labels, predictions, 5, 5, None)


def test_every_rule_has_a_fixture() -> None:
    assert set(CASES) == set(find_rules())


@pytest.mark.parametrize("name", list(CASES))
def test_a_planted_fault_is_found(name: str, tmp_path: Path) -> None:
    splits, expected, options = CASES[name](tmp_path)
    findings = found(name, splits, **options)
    assert sorted(map(str, [(f.image, f.instance, f.keypoint) for f in findings])) == sorted(map(str, expected))
    assert {f.level for f in findings} == {find_rules()[name].level}


def test_clean_labels_have_no_findings(tmp_path: Path) -> None:
    """Of all rules, with images and predictions, in two splits of different images."""
    from kplab.data.check import Dataset, check_dataset

    splits = {"train": beetles(tmp_path, 60, 1, pixels=True), "test": beetles(tmp_path, 40, 2, pixels=True)}
    predictions = {name: predicted(labels) for name, labels in splits.items()}
    report = check_dataset(Dataset(splits, predictions=predictions))
    assert [report.place(f) for f in report.findings] == []
    assert len(report.rules) == len(find_rules())
