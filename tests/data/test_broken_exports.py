"""Known broken exports are recognised by name, and mended or refused with the reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.data.formats._spots import PET, SIZE
from tests.data.test_formats import made, read

from kplab.config import conf_dir
from kplab.data.formats import coco, dlib, labelme, labelstudio, lsp, plain_csv, yolo
from kplab.errors import DataError
from kplab.structures.skeleton import Skeleton
from kplab.tasks.wiring.conversion import remarks


def coco17() -> Skeleton:
    return Skeleton.from_config(yaml.safe_load((conf_dir() / "skeleton" / "coco17.yaml").read_text()))


def change(path: Path, **fields: Any) -> None:
    """Set fields of all annotations of a COCO file."""
    content = json.loads(path.read_text())
    for one in content["annotations"]:
        one.update(fields)
    path.write_text(json.dumps(content))


def test_annotation_ids_that_are_all_zero_are_numbered_anew(tmp_path: Path) -> None:
    arguments = {**made("coco", tmp_path), "keep_extras": False}
    whole = coco.read(**arguments)
    change(arguments["annotations"], id=0)
    with pytest.raises(DataError, match=r"all annotation ids are 0, or read with renumber=true"):
        coco.read(**arguments)
    mended = coco.read(**arguments, renumber=True)
    assert mended.instance_id.tolist() == [1, 2, 3, 4]
    assert "4 annotations are numbered anew" in mended.notes
    np.testing.assert_array_equal(mended.poses.xy, whole.poses.xy)
    with pytest.raises(DataError, match="keep_extras"):
        coco.read(**{**arguments, "keep_extras": True}, renumber=True)


def test_image_ids_from_zero_keep_their_annotations(tmp_path: Path) -> None:
    arguments = {**made("coco", tmp_path), "keep_extras": False}
    whole = coco.read(**arguments)
    content = json.loads(arguments["annotations"].read_text())
    for image in content["images"]:
        image["id"] -= 10
    for one in content["annotations"]:
        one["image_id"] -= 10
    arguments["annotations"].write_text(json.dumps(content))
    with pytest.raises(DataError, match="add 1 to every image id"):
        coco.read(**arguments)
    mended = coco.read(**arguments, renumber=True)
    np.testing.assert_array_equal(mended.start, whole.start)
    np.testing.assert_array_equal(mended.poses.xy, whole.poses.xy)


def test_a_wrong_number_of_keypoints_is_counted_anew(tmp_path: Path) -> None:
    arguments = made("coco", tmp_path)
    change(arguments["annotations"], num_keypoints=1)
    labels = coco.read(**arguments)
    assert "4 annotations state another num_keypoints than they have: counted anew" in labels.notes
    assert labels.poses.labelled.sum() == 10


def test_nested_keypoints_are_one_list(tmp_path: Path) -> None:
    arguments = {**made("coco", tmp_path), "keep_extras": False}
    whole = coco.read(**arguments)
    content = json.loads(arguments["annotations"].read_text())
    for one in content["annotations"]:
        one["keypoints"] = [one["keypoints"][i : i + 3] for i in (0, 3, 6)]
    arguments["annotations"].write_text(json.dumps(content))
    found = coco.read(**arguments)
    assert found.notes == ["the keypoints of 4 annotations are lists of x, y, visibility: taken as one list each"]
    np.testing.assert_array_equal(found.poses.xy, whole.poses.xy)


def test_a_file_without_names_is_read_in_order_only_where_it_is_asked_for(tmp_path: Path) -> None:
    arguments = {**made("coco", tmp_path), "keep_extras": False}
    whole = coco.read(**arguments)
    content = json.loads(arguments["annotations"].read_text())
    content["categories"][0]["keypoints"] = []
    arguments["annotations"].write_text(json.dumps(content))
    with pytest.raises(DataError, match="in_order=true"):
        coco.read(**arguments)
    found = coco.read(**arguments, in_order=True)
    np.testing.assert_array_equal(found.poses.xy, whole.poses.xy[:, [0, 2, 1]])  # the example names right_ear first
    assert coco.names(arguments["annotations"], in_order=True).keypoints == ("point00", "point01", "point02")


def test_five_columns_are_boxes_without_keypoints(tmp_path: Path) -> None:
    arguments = made("yolo", tmp_path)
    (tmp_path / "labels" / "2.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DataError, match=r"2\.txt: five columns: these are boxes without keypoints"):
        yolo.read(**arguments)


def test_classes_that_are_all_zero_are_noted(tmp_path: Path) -> None:
    arguments = made("yolo", tmp_path)
    config = tmp_path / "pets.yaml"
    config.write_text(config.read_text().replace("names: {0: pet}", "names: {0: cat, 1: dog}"))
    (note,) = yolo.read(**arguments).notes
    assert note.startswith("all rows have class 0, although the dataset names 2 classes")


def test_pixels_in_place_of_fractions_and_the_other_way_round(tmp_path: Path) -> None:
    arguments = made("yolo", tmp_path / "a")
    (tmp_path / "a" / "labels" / "2.txt").write_text("0 12 8 20 12 " + "11 7 2 4 14 2 18 1 2\n")
    with pytest.raises(DataError, match=r"2\.txt, row 1: numbers up to 20 are pixels, in place of fractions"):
        yolo.read(**arguments)
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    header = ["image,width,height," + ",".join(f"{n}_{c}" for n in PET.keypoints for c in "xy")]
    rows = [f"{i}.png,640,480," + ",".join(f"{v:.4f}" for v in rng.uniform(0, 1, 6)) for i in range(10)]
    (tmp_path / "b.csv").write_text("\n".join(header + rows) + "\n")
    with pytest.raises(DataError, match=r"b\.csv: all 30 keypoints lie within the first pixel .* fractions 0\.\.1"):
        plain_csv.read(tmp_path / "b.csv", tmp_path / "pictures", PET)
    found = plain_csv.read(tmp_path / "b.csv", tmp_path / "pictures", PET, pixels="fraction")
    first = np.array(rows[0].split(",")[3:], dtype=float).reshape(3, 2)
    np.testing.assert_allclose(found.poses.xy[0], first * [640, 480])


def test_points_that_count_from_one_are_noted_and_read(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    rows = ["image,width,height,nose_x,nose_y,left_ear_x,left_ear_y,right_ear_x,right_ear_y"]
    rows += ["0.png,20,10,1,1,20,10,5,5", "1.png,20,10,3,4,2,9,20,3"]
    (tmp_path / "b.csv").write_text("\n".join(rows) + "\n")
    labels = plain_csv.read(tmp_path / "b.csv", tmp_path / "pictures", PET)
    (remark,) = remarks(labels)
    assert remark.startswith("1 splits whose points count from 1: 2 keypoints: points lie within one pixel beyond")
    mended = plain_csv.read(tmp_path / "b.csv", tmp_path / "pictures", PET, pixels="index from 1")
    np.testing.assert_array_equal(mended.poses.xy[0], [[0.5, 0.5], [19.5, 9.5], [4.5, 4.5]])
    assert not remarks(mended)
    labels.poses.xy[0, 0] = 0.5, 3.5
    assert not remarks(labels), "a point in the first column shows that points count from 0"


def test_a_scrambled_order_of_left_and_right_is_named(real_data: Path) -> None:
    folder = real_data / "coco_mini"
    labels = coco.read(folder / "annotations" / "person_keypoints_train2017.json", folder / "train2017", coco17())
    assert not remarks(labels)
    order = np.arange(17)
    order[[7, 8]] = 8, 7  # the elbows
    scrambled = replace(labels, poses=labels.poses.permute_keypoints(order))
    (remark,) = remarks(scrambled)
    assert remark.startswith("1 left-right scrambled orders: ")
    assert "elbow" in remark
    config = yaml.safe_load((conf_dir() / "skeleton" / "lsp14.yaml").read_text())
    people = lsp.read(real_data / "lspet_1000", Skeleton.from_config(config))
    assert not remarks(people), "people in difficult poses, who cross their limbs"


def label_me(folder: Path, shapes: list[dict[str, Any]]) -> dict[str, Any]:
    content = {"shapes": shapes, "imagePath": "a.png", "imageWidth": SIZE[0], "imageHeight": SIZE[1]}
    (folder / "a.json").write_text(json.dumps(content))
    return {"folder": folder, "skeleton": PET}


def point(label: str, x: float, y: float, **more: Any) -> dict[str, Any]:
    return {"label": label, "points": [[x, y]], "shape_type": "point", **more}


def box(x0: float, y0: float, x1: float, y1: float, **more: Any) -> dict[str, Any]:
    return {"label": "pet", "points": [[x0, y0], [x1, y1]], "shape_type": "rectangle", **more}


def test_keypoints_without_a_parent_box(tmp_path: Path) -> None:
    """They belong to the smallest box around them; with several boxes and none around them they are refused."""
    shapes = [box(0, 0, 10, 10), box(2, 2, 6, 6), point("nose", 4, 4), point("nose", 8, 8)]
    labels = labelme.read(**label_me(tmp_path, shapes))
    np.testing.assert_array_equal(labels.poses.xy[:, 0], [[8, 8], [4, 4]])
    with pytest.raises(
        DataError, match=r"a\.json: keypoints without a parent box: left_ear lie in none of the 2 boxes"
    ):
        labelme.read(**label_me(tmp_path, [*shapes, point("left_ear", 20, 12)]))
    alone = labelme.read(**label_me(tmp_path, [point("nose", 4, 4), point("left_ear", 20, 12)]))
    assert len(alone.poses) == 1
    with pytest.raises(DataError, match="a subject has two points 'nose'"):
        labelme.read(**label_me(tmp_path, [point("nose", 4, 4), point("nose", 9, 9)]))


def test_hidden_points_of_labelme_and_x_anylabeling(tmp_path: Path) -> None:
    shapes = [point("nose", 4, 4, flags={"occluded": True}), point("left_ear", 5, 5, difficult=True)]
    labels = labelme.read(**label_me(tmp_path, [*shapes, point("right_ear", 6, 6, flags={"occluded": False})]))
    assert labels.poses.visible.tolist() == [[1, 1, 2]]


def test_a_key_point_of_label_studio_that_names_a_missing_parent(tmp_path: Path) -> None:
    arguments = made("labelstudio", tmp_path)
    path = arguments["annotations"]
    content = json.loads(path.read_text())
    results = content[2]["annotations"][0]["result"]
    content[2]["annotations"][0]["result"] = [r for r in results if r["type"] != "rectanglelabels"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="names a parent that the task lacks"):
        labelstudio.read(**arguments)


def test_json_min_of_label_studio_is_named(tmp_path: Path) -> None:
    path = tmp_path / "min.json"
    path.write_text(json.dumps([{"image": "a.png", "kp": [], "annotator": 1}]))
    with pytest.raises(DataError, match="JSON-MIN"):
        labelstudio.read(path, tmp_path, PET)


def test_xml_with_a_document_type_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Entities of a file's own could read other files, or grow without end."""
    arguments = made("dlib", tmp_path)
    path = arguments["annotations"]
    text = path.read_text()
    bomb = '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'
    for encoding in ("utf-8", "utf-16"):
        declared = text.replace("ISO-8859-1'?>", f"{encoding}'?>{bomb}")
        path.write_bytes(declared.encode(encoding))
        with pytest.raises(DataError, match="document type"):
            dlib.read(**arguments)


@pytest.mark.parametrize("name", ["labelme", "labelstudio", "cvat", "dlib", "plain_csv", "mpii"])
def test_images_outside_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    arguments = made(name, tmp_path / "x" / "y")
    for path in (tmp_path / "x" / "y").rglob("*"):
        if path.is_file() and path.suffix in (".json", ".xml", ".csv"):
            text = path.read_text().replace("a/1.png", "../../1.png").replace("1.png", "../../1.png")
            path.write_text(text)
    with pytest.raises(DataError, match="outside this folder"):
        read(name, arguments)
