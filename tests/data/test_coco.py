"""COCO files: against pycocotools, round trips without loss, and messages of broken files."""

import contextlib
import copy
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools.coco import COCO

from kplab.data.formats import coco
from kplab.data.sources.files import FileSource
from kplab.data.split import split
from kplab.errors import DataError
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

PET = Skeleton("pet", ("nose", "left_ear", "right_ear"), ((0, 1), (0, 2)), (0, 2, 1), (0.03, 0.04, 0.04), "made up")


def document() -> dict[str, Any]:
    """A file with what is easily lost: crowds, RLE, captions, other categories, unknown fields, mixed numbers."""
    return {
        "info": {"year": 2020, "odd": [1, 2.5, None]},
        "licenses": [{"id": 4, "name": "BY"}],
        "images": [
            {"id": 7, "file_name": "a/x.jpg", "width": 40, "height": 30, "license": 4, "coco_url": "http://x"},
            {"id": 3, "file_name": "b.jpg", "width": 20, "height": 20, "weather": "rain"},
            {"id": 9, "file_name": "none.jpg", "width": 10, "height": 10},
        ],
        "annotations": [
            {
                "id": 5,
                "image_id": 3,
                "category_id": 2,
                "iscrowd": 0,
                "num_keypoints": 2,
                "area": 30.25,
                "bbox": [1, 2.5, 10, 8],
                "keypoints": [4, 5, 2, 0, 0, 0, 6.25, 7.1, 1],
                "segmentation": [[1, 2, 3.5, 4, 5, 6]],
                "caption": "a cat",
                "track_id": 3,
            },
            {
                "id": 11,
                "image_id": 7,
                "category_id": 2,
                "iscrowd": 1,
                "num_keypoints": 0,
                "area": 100,
                "bbox": [0, 0, 20, 20],
                "keypoints": [0] * 9,
                "segmentation": {"counts": [3, 4], "size": [30, 40]},
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 2,
                "iscrowd": 0,
                "num_keypoints": 0,
                "area": 12,
                "bbox": [5, 5, 4, 4],
                "keypoints": [0] * 9,
            },
            {"id": 6, "image_id": 7, "category_id": 8, "bbox": [1, 1, 2, 2], "area": 4, "iscrowd": 0},
            {
                "id": 1,
                "image_id": 7,
                "category_id": 2,
                "iscrowd": 0,
                "num_keypoints": 3,
                "area": 200.5,
                "bbox": [2, 3, 30, 20],
                "keypoints": [10, 11, 2, 39, 29, 1, 0, 0, 2],
            },
        ],
        "categories": [
            {"id": 8, "name": "bowl"},
            {"id": 2, "name": "pet", "keypoints": ["nose", "right_ear", "left_ear"], "skeleton": [[1, 2]], "odd": True},
        ],
    }


def read(folder: Path, content: Any, **options: Any) -> Labels:
    path = folder / "labels.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return coco.read(path, folder, PET, **options)


def skeleton17() -> Skeleton:
    path = Path(__file__).resolve().parents[2] / "conf" / "skeleton" / "coco17.yaml"
    return Skeleton.from_config(yaml.safe_load(path.read_text()))


def test_reads_by_name_at_pixel_centres(tmp_path: Path) -> None:
    labels = read(tmp_path, document())
    assert labels.instance_id.tolist() == [11, 2, 1, 5]
    assert labels.start.tolist() == [0, 3, 4, 4]
    cat = labels.poses_of(1)
    # the file names nose, right_ear, left_ear; the skeleton nose, left_ear, right_ear
    np.testing.assert_array_equal(cat.xy[0], [[4.5, 5.5], [6.75, 7.6], [np.nan, np.nan]])
    assert cat.visible[0].tolist() == [2, 1, 0]
    assert cat.box[0].tolist() == [1, 2.5, 11, 10.5]
    assert cat.area[0] == 30.25
    assert labels.poses.ignore.tolist() == [True, True, False, False]
    assert labels.crowd.tolist() == [True, False, False, False]
    assert np.isnan(labels.poses.xy[:2]).all()
    assert labels.poses_of(0).visible[2].tolist() == [2, 2, 1], "a keypoint at (0, 0) with visibility 2 is labelled"
    assert any("1 crowds and 1 subjects" in n for n in labels.notes)
    assert any("1 annotations of other categories" in n for n in labels.notes)


@pytest.mark.parametrize("part", ["train", "val"])
def test_agrees_with_pycocotools_on_real_files(real_data: Path, part: str) -> None:
    folder = real_data / "coco_mini"
    path = folder / "annotations" / f"person_keypoints_{part}2017.json"
    labels = coco.read(path, folder / f"{part}2017", skeleton17())
    with contextlib.redirect_stdout(io.StringIO()):
        oracle = COCO(str(path))
    assert sorted(oracle.imgs) == sorted(labels.image_id.tolist())
    assert sorted(oracle.anns) == sorted(labels.instance_id.tolist())
    for i in range(len(labels)):
        image = oracle.imgs[int(labels.image_id[i])]
        assert (image["width"], image["height"]) == tuple(labels.size[i])
        poses = labels.poses_of(i)
        ids = labels.instance_id[labels.start[i] : labels.start[i + 1]]
        assert sorted(oracle.getAnnIds(imgIds=[image["id"]])) == sorted(ids.tolist())
        for row, number in enumerate(ids):
            ann = oracle.anns[int(number)]
            triplets = np.array(ann["keypoints"], dtype=float).reshape(-1, 3)
            assert poses.ignore[row] == (ann["iscrowd"] == 1 or ann["num_keypoints"] == 0)
            np.testing.assert_array_equal(poses.visible[row], triplets[:, 2])
            np.testing.assert_array_equal(np.nan_to_num(poses.xy[row] - 0.5), triplets[:, :2] * (triplets[:, 2:] > 0))
            assert poses.area[row] == ann["area"]
            np.testing.assert_allclose(poses.box[row], oracle_box(ann), atol=1e-9)


def oracle_box(ann: dict[str, Any]) -> list[float]:
    x, y, w, h = ann["bbox"]
    return [x, y, x + w, y + h]


@pytest.mark.parametrize("part", ["train", "val"])
def test_real_files_return_unchanged(real_data: Path, tmp_path: Path, part: str) -> None:
    folder = real_data / "coco_mini"
    path = folder / "annotations" / f"person_keypoints_{part}2017.json"
    labels = coco.read(path, folder / f"{part}2017", skeleton17(), keep_extras=True)
    assert json.loads(coco.write(labels, tmp_path / "out.json").read_text()) == json.loads(path.read_text())


def test_round_trip_keeps_every_field_and_number(tmp_path: Path) -> None:
    labels = read(tmp_path, document(), keep_extras=True)
    assert json.loads(coco.write(labels, tmp_path / "out.json").read_text()) == document()


def by_id(entries: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {entry["id"]: entry for entry in entries}


def test_parts_of_a_split_keep_every_field(tmp_path: Path) -> None:
    """Captions, segments, unknown fields, annotations of other categories: all that belongs to a part's images."""
    for name in ("a/x.jpg", "b.jpg", "none.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    labels = read(tmp_path, document(), keep_extras=True)
    parts = split(labels, tmp_path / "split.json", {"train": 0.6, "test": 0.4}, by="image")
    source, images, annotations = document(), [], []
    for name, part in parts.items():
        out = json.loads(coco.write(part, tmp_path / f"{name}.json").read_text())
        assert {k: v for k, v in out.items() if k not in ("images", "annotations")} == {
            k: v for k, v in source.items() if k not in ("images", "annotations")
        }
        ids = {image["id"] for image in out["images"]}
        assert by_id(out["images"]) == {i: e for i, e in by_id(source["images"]).items() if i in ids}
        assert out["annotations"] == [a for a in source["annotations"] if a["image_id"] in ids]
        images += out["images"]
        annotations += out["annotations"]
    assert len(parts) == 2
    assert by_id(images) == by_id(source["images"])
    assert by_id(annotations) == by_id(source["annotations"])


def test_an_instance_moved_from_another_part_keeps_its_fields(tmp_path: Path) -> None:
    labels = read(tmp_path, document(), keep_extras=True)
    cat, extras = labels.select([1]), labels.extras
    assert extras is not None
    moved = replace(labels.select([2]), poses=cat.poses, instance_id=cat.instance_id, crowd=cat.crowd)
    moved.start = np.array([0, 1])
    moved.extras = extras.select([9], [5])
    (annotation,) = json.loads(coco.write(moved, tmp_path / "out.json").read_text())["annotations"]
    assert annotation == {**document()["annotations"][0], "image_id": 9}


def test_tracks_are_read_changed_and_taken_away(tmp_path: Path) -> None:
    labels = read(tmp_path, document(), keep_extras=True)
    assert labels.poses.track.tolist() == [-1, -1, -1, 3]
    labels.poses.track[:] = [0, -1, 8, -1]
    expected = document()
    expected["annotations"][0]["track_id"] = None
    expected["annotations"][1]["track_id"] = 0
    expected["annotations"][4]["track_id"] = 8
    path = coco.write(labels, tmp_path / "out.json")
    assert json.loads(path.read_text()) == expected
    assert coco.read(path, tmp_path, PET).poses.track.tolist() == [0, -1, 8, -1]
    labels.extras = None
    fresh = json.loads(coco.write(labels, tmp_path / "fresh.json").read_text())["annotations"]
    assert [a.get("track_id", "none") for a in fresh] == [0, "none", 8, "none"]


def test_track_ids_that_are_no_integers_are_kept_as_extras(tmp_path: Path) -> None:
    content = document()
    for annotation, value in zip(content["annotations"], ("a", 1.5, None, [2], -7), strict=True):
        annotation["track_id"] = value
    labels = read(tmp_path, content, keep_extras=True)
    assert labels.poses.track.tolist() == [-1] * 4
    assert any(n.startswith("2 annotations have a track_id that is not an integer") for n in labels.notes)
    assert json.loads(coco.write(labels, tmp_path / "out.json").read_text()) == content


def test_write_changes_only_what_changed(tmp_path: Path) -> None:
    labels = read(tmp_path, document(), keep_extras=True)
    row = labels.instance_id.tolist().index(5)
    labels.poses.xy[row, 1] += 1  # left_ear, third in the file
    labels.poses.area[row] = 31
    labels.poses.ignore[labels.instance_id == 1] = True
    expected = document()
    expected["annotations"][0]["keypoints"][6:8] = [7.25, 8.1]
    expected["annotations"][0]["area"] = 31
    expected["annotations"][4]["iscrowd"] = 1
    assert json.loads(coco.write(labels, tmp_path / "out.json").read_text()) == expected


def test_write_takes_instances_away_and_adds_new_ones(tmp_path: Path) -> None:
    labels = read(tmp_path, document(), keep_extras=True)
    source = labels.extras
    more = Poses.make(np.array([[[2.5, 3.5], [np.nan, np.nan], [4.5, 5.5]]]), box=np.array([[1, 1, 6, 6.0]]))
    labels = make_labels(
        PET,
        labels.source,
        labels.image_id,
        labels.size,
        list(labels.group),
        Poses.concat([labels.poses[[0, 3]], more]),
        np.array([0, 1, 2]),
        np.array([11, 5, 20]),
        box_source="annotation",
        area_source="annotation",
        extras=source,
    )
    out = json.loads(coco.write(labels, tmp_path / "out.json").read_text())
    assert out["images"] == document()["images"]
    assert [a["id"] for a in out["annotations"]] == [5, 11, 6, 20]
    new = out["annotations"][-1]
    assert new["keypoints"] == [2, 3, 2, 4, 5, 2, 0, 0, 0], "the order of the file's category"
    assert (new["category_id"], new["bbox"], new["num_keypoints"]) == (2, [1, 1, 5, 5], 2)


@given(
    hnp.arrays(np.float64, (2, 3, 2), elements=st.floats(-0.5, 19.5)),
    hnp.arrays(np.uint8, (2, 3), elements=st.integers(0, 2)),
)
def test_fresh_files_read_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, xy: np.ndarray, v: np.ndarray
) -> None:
    folder = tmp_path_factory.mktemp("fresh")
    visible = v.copy()
    visible[:, 0] = 2
    box = np.array([[0, 0, 20, 20], [1, 2, 3.5, 9.25]])
    poses = Poses.make(xy + 0.5, visible, box=box, area=np.array([10.5, 3.25]))
    size = np.array([[20, 20], [20, 20]])
    how = {"box_source": "annotation", "area_source": "annotation"}
    image_of = np.array([1, 1])
    labels = make_labels(
        PET,
        FileSource(folder, ["a.png", "b.png"]),
        np.array([1, 2]),
        size,
        ["v", "v"],
        poses,
        image_of,
        np.array([4, 9]),
        **how,
    )
    again = coco.read(coco.write(labels, folder / "out.json"), folder, PET)
    np.testing.assert_allclose(again.poses.xy, labels.poses.xy, atol=1e-9)
    np.testing.assert_array_equal(again.poses.visible, labels.poses.visible)
    np.testing.assert_array_equal(again.poses.box, labels.poses.box)
    np.testing.assert_array_equal(again.poses.area, labels.poses.area)
    assert (again.instance_id.tolist(), again.start.tolist(), list(again.group)) == ([4, 9], [0, 0, 2], ["v", "v"])


def test_missing_boxes_and_areas_are_filled_and_said(tmp_path: Path) -> None:
    content = document()
    del content["annotations"][0]["area"], content["annotations"][4]["bbox"], content["annotations"][4]["area"]
    labels = read(tmp_path, content)
    assert labels.area_source == "annotation; 0.53 x box where absent (2)"
    assert labels.box_source == "annotation; keypoint extent x 1 where absent (1)"
    assert labels.poses_of(1).area[0] == pytest.approx(0.53 * 10 * 8)
    assert labels.poses_of(0).box[2].tolist() == [0.5, 0.5, 39.5, 29.5]
    assert any("2 annotations have no positive area" in n for n in labels.notes)
    assert any("1 annotations have no box" in n for n in labels.notes)
    assert read(tmp_path, content, area="box").area_source == "0.53 x box"


def test_keypoints_outside_are_unlabelled_and_counted(tmp_path: Path) -> None:
    content = document()
    # the image is 20 x 20: index 20.4 is 0.9 px outside, index 20.6 is 1.1 px outside
    content["annotations"][0]["keypoints"] = [20.4, 5, 2, 20.6, 5, 2, -1.6, 4, 1]
    labels = read(tmp_path, content, keep_extras=True)
    assert labels.poses_of(1).visible[0].tolist() == [2, 0, 0]
    assert any(n.startswith("2 labelled keypoints of 1 instances lie more than 1 px outside") for n in labels.notes)
    assert json.loads(coco.write(labels, tmp_path / "out.json").read_text()) == content


def test_groups_come_from_video_ids(real_data: Path, tmp_path: Path) -> None:
    content = document()
    content["images"][0]["video_id"] = content["images"][1]["video_id"] = 12
    assert list(read(tmp_path, content).group) == ["12", "12", "none.jpg"]
    folder = real_data / "mmpose_samples" / "posetrack18"
    path = folder / "annotations" / "test_posetrack18_val.json"
    names = json.loads(path.read_text())["categories"][0]["keypoints"]
    free = Skeleton("track", tuple(names), (), tuple(range(len(names))), (0.05,) * len(names), "made up")
    labels = coco.read(path, folder, free)
    assert set(labels.group) == {i["vid_id"] for i in json.loads(path.read_text())["images"]}


def test_all_categories_of_one_skeleton_are_read(real_data: Path) -> None:
    config = Path(__file__).resolve().parents[2] / "conf" / "skeleton" / "ap10k17.yaml"
    folder = real_data / "mmpose_samples" / "ap10k"
    labels = coco.read(folder / "test_ap10k.json", folder, Skeleton.from_config(yaml.safe_load(config.read_text())))
    assert len(labels) == len(labels.poses) == 2


def test_names_may_be_mapped(tmp_path: Path) -> None:
    content = document()
    content["categories"][1]["keypoints"][0] = "snout"
    labels = read(tmp_path, content, rename={"snout": "nose"}, keep_extras=True)
    assert labels.poses_of(1).xy[0, 0].tolist() == [4.5, 5.5]
    assert json.loads(coco.write(labels, tmp_path / "out.json").read_text()) == content


def edited(where: str, key: Any, value: Any) -> dict[str, Any]:
    content = copy.deepcopy(document())
    content[where][0][key] = value
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not json", "not whole JSON"),
        (json.dumps(document())[:-40], "not whole JSON"),
        (json.dumps(edited("annotations", "area", float("nan"))), "NaN and Infinity are not JSON"),
        ([], "not a COCO keypoint file"),
        ({"images": [], "annotations": []}, "missing required field `categories`"),
        (edited("annotations", "keypoints", [1, 2, 2, 3, 4, 2]), "expected 9 keypoint numbers .* annotation 5 has 6"),
        (edited("annotations", "keypoints", [["x", 2, 2], [3, 4, 2], [1, 2, 2]]), "as one flat list"),
        (edited("annotations", "keypoints", [1, 2, 3, 3, 4, 2, 0, 0, 0]), "visibility other than 0, 1 or 2"),
        (edited("annotations", "id", 0), "takes 0 for 'no match'. Number them from 1: add 1 to every annotation id"),
        (edited("annotations", "id", -4), "add 5 to every annotation id"),
        (edited("annotations", "id", 11), "annotation ids occur twice: 11"),
        (edited("annotations", "image_id", 44), "annotation 5 of image 44"),
        (edited("annotations", "bbox", [1, 2, -3, 4]), "boxes are not x, y, width, height"),
        (edited("annotations", "bbox", [1, 2, 3]), "boxes are not x, y, width, height"),
        (edited("images", "id", 3), "image ids occur twice: 3"),
        (edited("images", "file_name", "b.jpg"), "images are listed twice: b.jpg"),
        (edited("images", "width", 0), "without a positive width and height: a/x.jpg"),
        (edited("categories", "keypoints", ["nose", "tail"]), "lacks left_ear, right_ear, and has unknown tail"),
    ],
)
def test_a_broken_file_is_named_with_its_fault(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read(tmp_path, content)
    assert "labels.json" in str(caught.value)


def test_infinite_coordinates_are_refused(tmp_path: Path) -> None:
    text = json.dumps(document()).replace("6.25", "1e999")
    with pytest.raises(DataError, match=r"labels\.json"):
        read(tmp_path, text)


def test_missing_files_folders_and_categories_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json: no such annotation file"):
        coco.read(tmp_path / "gone.json", tmp_path, PET)
    read(tmp_path, document())
    with pytest.raises(DataError, match=r"pictures: no such image folder"):
        coco.read(tmp_path / "labels.json", tmp_path / "pictures", PET)
    with pytest.raises(DataError, match=r"no category is called 'dog' .categories: bowl, pet"):
        read(tmp_path, document(), category="dog")
    with pytest.raises(DataError, match="area='box2' is unknown"):
        read(tmp_path, document(), area="box2")


def test_detection_files_are_refused(real_data: Path) -> None:
    folder = real_data / "coco_mini"
    with pytest.raises(DataError, match="no category names any keypoints"):
        coco.read(folder / "annotations" / "instances_val2017.json", folder / "val2017", skeleton17())


def test_written_files_satisfy_pycocotools(tmp_path: Path) -> None:
    labels = read(tmp_path, document())
    path = coco.write(labels, tmp_path / "fresh.json")
    with contextlib.redirect_stdout(io.StringIO()):
        oracle = COCO(str(path))
    assert oracle.anns[5]["keypoints"] == [4, 5, 2, 6.25, 7.1, 1, 0, 0, 0]
    assert [oracle.anns[i]["iscrowd"] for i in (11, 2, 1, 5)] == [1, 0, 0, 0]
    assert oracle.cats[1]["keypoints"] == list(PET.keypoints)
    assert oracle.cats[1]["skeleton"] == [[1, 2], [1, 3]]
    assert msgspec.json.decode(path.read_bytes())["images"][1]["file_name"] == "b.jpg"


@pytest.mark.parametrize(
    ("where", "key", "value", "words"),
    [
        (
            "annotations",
            "bbox",
            [1, 2, 2e9, 5],
            "1 boxes extend beyond their image by more than its own side: annotation 5",
        ),
        ("annotations", "bbox", [-30, 2, 40, 5], "boxes extend beyond their image .*annotation 5"),
        ("annotations", "area", 441, "1 areas are larger than their image: annotation 5.*area=box"),
        ("images", "id", 2**63, r"Expected `int` <= 9223372036854775807 - at `\$.images"),
        ("annotations", "image_id", 2**64, r"Expected `int` <= 9223372036854775807 - at `\$.annotations"),
        ("annotations", "num_keypoints", 10**400, r"labels\.json: not a"),
        ("images", "file_name", "a\x00b", "file_name that no file can have"),
        ("images", "file_name", "", "file_name that no file can have"),
    ],
)
def test_numbers_beyond_every_image_are_refused(tmp_path: Path, where: str, key: str, value: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(tmp_path, edited(where, key, value))


def test_areas_are_not_checked_where_they_are_not_used(tmp_path: Path) -> None:
    assert read(tmp_path, edited("annotations", "area", 1e12), area="box").poses.area[-1] < 400


def test_a_box_somewhat_beyond_its_image_is_counted(tmp_path: Path) -> None:
    labels = read(tmp_path, edited("annotations", "bbox", [1, 2.5, 22, 8]))
    assert any("1 boxes extend beyond their image by more than 10% of its side: kept" in note for note in labels.notes)
    assert not any("beyond" in note for note in read(tmp_path, document()).notes)


def test_large_track_ids_are_kept_as_extras(tmp_path: Path) -> None:
    labels = read(tmp_path, edited("annotations", "track_id", 2**63))
    assert labels.poses.track.max() == -1
    assert any("1 annotations have a track_id that is not an integer" in note for note in labels.notes)


def test_bytes_that_are_not_utf8_are_refused_in_fields_that_are_not_used(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_bytes(json.dumps(document()).encode().replace(b"a cat", b"a \xff"))
    with pytest.raises(DataError, match=r"labels\.json: not whole JSON"):
        coco.read(tmp_path / "labels.json", tmp_path, PET, keep_extras=True)


def test_instances_that_are_listed_twice_are_refused_or_counted(tmp_path: Path) -> None:
    content = document()
    first = content["annotations"][0]
    others = [{**first, "id": 100 + i, "keypoints": [1 + i, 2, 2, 0, 0, 0, 9, 9, 2]} for i in range(3)]
    content["annotations"] += others
    assert not any("same keypoints" in note for note in read(tmp_path, content).notes)
    content["annotations"].append({**others[0], "id": 200})
    assert any("2 instances have the same keypoints as another" in note for note in read(tmp_path, content).notes)
    content["annotations"] += [{**a, "id": 300 + i} for i, a in enumerate(others[1:])]
    with pytest.raises(DataError, match=r"labels\.json: 6 of \d labelled instances have the same keypoints.*lists its"):
        read(tmp_path, content)


def test_groups_may_be_a_part_of_the_file_name(tmp_path: Path) -> None:
    content = document()
    assert list(read(tmp_path, content, group="folder").group) == ["a", ".", "."]
    assert list(read(tmp_path, content, group="^.").group) == ["a", "b", "n"]
    assert list(read(tmp_path, content, group=r"(\w+)\.jpg").group) == ["x", "b", "none"]
    labels = read(tmp_path, content, group="folder", keep_extras=True)
    assert json.loads(coco.write(labels, tmp_path / "out.json").read_text()) == content
    with pytest.raises(DataError, match=r"finds no group in 2 of 3 file names: b\.jpg, none\.jpg"):
        read(tmp_path, content, group="a/")
    with pytest.raises(DataError, match=r"group='\(' is not a regular expression"):
        read(tmp_path, content, group="(")


def test_images_without_a_video_among_others_are_counted(tmp_path: Path) -> None:
    assert not any("name no video" in note for note in read(tmp_path, document()).notes)
    content = document()
    content["images"][0]["video_id"] = 12
    assert any("2 of 3 images name no video" in note for note in read(tmp_path, content).notes)
