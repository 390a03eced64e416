"""``kplab data`` with actions: convert, skeleton and formats, as they are typed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.data.formats._spots import PET
from tests.data.test_formats import made

from kplab.cli import main
from kplab.data import formats
from kplab.data.formats import coco, plain_csv, yolo
from kplab.structures.skeleton import Skeleton


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A COCO file with two subjects in its first image, tracks and areas."""
    made("coco", tmp_path / "in")
    return tmp_path / "in" / "labels.json"


def convert(pets: Path, *arguments: str) -> int:
    return main(["data", "convert", f"from={pets}", f"read.images={pets.parent}/images", *arguments])


def test_losses_are_stated_with_counts(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(pets, f"to={tmp_path}/out", "format_to=yolo", "write.copy=true") == 0
    out = capsys.readouterr().out
    assert "(coco): 3 images, 4 subjects, 3 keypoints" in out
    assert "yolo can't hold 4 areas: made from the boxes when read" in out
    assert "yolo can't hold 4 tracks: not written" in out
    assert "boxes" not in out.replace("from the boxes", "")
    assert f"wrote {tmp_path}/out/data.yaml and 3 more files (yolo)" in out
    found = yolo.read(tmp_path / "out", PET)
    whole = coco.read(pets, pets.parent / "images", PET)
    by_name = {str(n): found.poses_of(i).xy for i, n in enumerate(found.names)}
    for i, name in enumerate(whole.names):
        np.testing.assert_allclose(by_name[str(name)], whole.poses_of(i).xy, atol=yolo.HOLDS.precision)


def test_subjects_are_only_left_out_where_it_is_asked_for(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.csv"
    assert convert(pets, f"to={target}", "format_to=lightning_pose") == 2
    message = capsys.readouterr().err
    assert "1 subjects beyond the first of 1 images: left out" in message
    assert "lossy=true" in message
    assert not target.exists()
    assert convert(pets, f"to={target}", "format_to=lightning_pose", "lossy=true") == 0
    assert len(target.read_text().splitlines()) == 6
    assert convert(pets, f"to={target}", "format_to=lightning_pose", "lossy=true") == 2
    assert "exists. Name a new file" in capsys.readouterr().err


def test_there_and_back_changes_nothing(pets: Path, tmp_path: Path) -> None:
    """A plain table holds all that COCO does, but for fields of its own."""
    table, again = tmp_path / "in" / "images" / "a.csv", tmp_path / "again.json"
    assert convert(pets, f"to={table}", "format_to=plain_csv") == 0
    assert main(["data", "convert", f"from={table}", f"to={again}", "format_to=coco"]) == 0
    whole = coco.read(pets, pets.parent / "images", PET)
    found = coco.read(again, pets.parent / "images", PET)
    for column in ("xy", "visible", "box", "area", "track"):
        np.testing.assert_array_equal(getattr(found.poses, column), getattr(whole.poses, column), err_msg=column)
    assert list(found.names) == list(whole.names)


@pytest.mark.parametrize("name", formats.find_formats())
def test_every_format_recognises_its_own_files_alone(name: str, tmp_path: Path) -> None:
    arguments = made(name, tmp_path)
    first = formats.keys_of(formats.load_format(name).read)[0].name
    assert formats.recognised(Path(arguments[first])) == [name]
    assert formats.recognised(tmp_path / "images" / "nothing") == []
    found = formats.load_format(name).names(Path(arguments[first])).keypoints
    expected = arguments["skeleton"].keypoints
    assert set(found) == set(expected) if formats.load_format(name).HOLDS.names else len(found) == len(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["format_to=yolo9"], "format_to is 'yolo9'. Use one of: coco, "),
        ([], "its ending does not state a format. Name it with format_to="),
        (["format_to=yolo", "format_from=dlcc"], "format_from is 'dlcc'. Use one of: "),
        (["format_to=yolo", "read.colour=1"], "read.… of format coco: has no key 'colour'. Its keys:"),
        (["format_to=yolo", "write.colour=1"], "write.… of format yolo: has no key 'colour'. Its keys:"),
        (["format_to=mpii"], "MPII has 16 joints of its own"),
        (["colour=1"], "unknown override 'colour'"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], message: str, pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(pets, f"to={tmp_path}/out", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_files_of_no_format_or_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert main(["data", "convert", f"from={tmp_path}/a.json", f"to={tmp_path}/b", "format_to=yolo"]) == 2
    assert "no format is recognised. Name it with format_from=: coco" in capsys.readouterr().err
    assert main(["data", "convert", f"from={tmp_path}/c.json", f"to={tmp_path}/b", "format_to=yolo"]) == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_unknown_actions_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "covert"]) == 2
    assert "kplab data has no action 'covert'. Actions: check, convert, formats, " in capsys.readouterr().err
    assert main(["data", "convert", "--cfg", "from=x", "to=y"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["from"] == "x"


def test_a_skeleton_is_shown_and_then_written(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "skeleton", f"from={pets}", f"out={tmp_path}/conf", "name=pet"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "1 pairs that a mirror image exchanges, guessed from the names: left_ear / right_ear" in out
    assert "1 keypoints without a partner: nose" in out
    assert "the file states no edges" in out
    assert not (tmp_path / "conf").exists()
    assert main([*command, "confirm=true"]) == 0
    path = tmp_path / "conf" / "pet.yaml"
    skeleton = Skeleton.from_config(yaml.safe_load(path.read_text()))
    assert skeleton.keypoints == ("nose", "right_ear", "left_ear")
    assert skeleton.flip == (0, 2, 1)
    assert "not measured" in skeleton.sigma_source
    assert main([*command, "confirm=true"]) == 2
    assert "exists. Choose another name" in capsys.readouterr().err
    assert main([*command, "sigmas=[0.1,0.1]"]) == 2
    assert "3 keypoints but 2 sigmas" in capsys.readouterr().err


def test_the_list_and_the_table_of_formats(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    assert main(["data", "formats"]) == 0
    listed = capsys.readouterr().out
    assert main(["data", "--formats"]) == 0
    assert capsys.readouterr().out == listed
    assert all(f"\n{name} (" in f"\n{listed}" for name in formats.all_formats())
    assert main(["data", "formats", "table=true"]) == 0
    table = capsys.readouterr().out
    assert table in (root / "docs" / "formats.md").read_text(), "docs/formats.md: run kplab data formats table=true"
    assert plain_csv.HOLDS.groups
