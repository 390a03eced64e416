"""``kplab data check``: exit status, text, JSON, the page, corrected labels, and the page of documents."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from tests.data.check.toy import beetles, permuted, with_copy

from kplab.cli import main
from kplab.data import formats
from kplab.data.check import Dataset, check_dataset, find_rules
from kplab.data.formats import coco
from kplab.runs.run import Run
from kplab.structures.skeleton import Skeleton
from kplab.tasks import compose
from kplab.tasks.evaluation.findings import as_page, of_file, out_of_training, picture
from kplab.tasks.wiring.corrected import write_corrected
from kplab.tasks.wiring.datasets import read_splits


@pytest.fixture
def dataset(tmp_path: Path) -> list[str]:
    """Overrides that name a dataset with an exchanged subject, a copy, and a keypoint at the corner."""
    labels = with_copy(beetles(tmp_path, 60, pixels=True), 5, 0.0)
    permuted(labels, 20, list(labels.skeleton.flip))
    labels.poses.xy[30, 2] = 0.5
    coco.write(labels, tmp_path / "labels.json")
    skeleton = {
        "name": "beetle",
        "keypoints": list(labels.skeleton.keypoints),
        "edges": [[labels.skeleton.keypoints[a], labels.skeleton.keypoints[b]] for a, b in labels.skeleton.edges],
        "flip_pairs": "by_name",
        "sigmas": "uniform",
    }
    folder = tmp_path / "conf" / "dataset"
    folder.mkdir(parents=True)
    source = {
        "_target_": "kplab.data.formats.coco.read",
        "annotations": str(tmp_path / "labels.json"),
        "images": str(tmp_path),
    }
    content = {"name": "beetles", "skeleton": skeleton, "sources": {"all": source}, "split": None}
    (folder / "beetles.yaml").write_text(json.dumps(content))
    return [
        "dataset=beetles", f"hydra.searchpath=[file://{tmp_path}/conf]", f"out={tmp_path}/out", "skip=[balance,limbs]",
    ]  # fmt: skip


def test_errors_give_exit_status_1_and_name_their_places(
    dataset: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", *dataset]) == 1
    out = capsys.readouterr().out
    assert re.search(
        r"error: 1 subjects that are labelled twice: \S+0_005\.png instance 1000 \(same as instance 6", out
    )
    assert re.search(r"warning: 1 subjects with left and right exchanged: \S+0_019\.png instance 20 ", out)
    assert re.search(r"warning: 1 keypoints far outside the box: \S+0_029\.png instance 30 tail ", out)
    assert "2 of level error, 2 of level warning, 0 of level info" in out
    assert main(["data", "check", *dataset, "rules=[left-right-exchanged]"]) == 0, "warnings are no errors"


def test_json_is_all_of_standard_output(dataset: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", *dataset, "json=true"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "out" / "findings.json").read_text())
    assert found["levels"] == {"error": 2, "warning": 2, "info": 0}
    (corner,) = [f for f in found["findings"] if f["rule"] == "keypoint-at-origin"]
    assert (corner["image"], corner["keypoint"], corner["split"]) == ("0_029.png", "tail", "all")
    assert found["rules"]["keypoint-at-origin"]["level"] == "error"


def test_fix_writes_new_files_only(dataset: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (tmp_path / "labels.json").read_bytes()
    assert main(["data", "check", *dataset, f"fix={tmp_path}/fixed"]) == 1
    done = json.loads((tmp_path / "fixed" / "changes.json").read_text())
    assert {(c["rule"], c["instance_id"], c["done"]) for c in done} == {
        ("subject-twice", 1000, "leave out this copy"),
        ("keypoint-at-origin", 30, "make this keypoint unlabelled"),
    }
    fixed = json.loads((tmp_path / "fixed" / "all.json").read_text())
    assert len(fixed["annotations"]) == 60
    assert (tmp_path / "labels.json").read_bytes() == before
    assert main(["data", "check", *dataset, f"fix={tmp_path}/fixed"]) == 2
    assert "exists. fix=FOLDER writes new files only" in capsys.readouterr().err


@pytest.mark.parametrize("own", ["plain_csv", "yolo", "cvat"])
def test_fix_writes_the_format_that_was_read(
    dataset: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], own: str
) -> None:
    """The format's reader finds all labels again, without the copy and the keypoint at the corner."""
    config = tmp_path / "conf" / "dataset" / "beetles.yaml"
    content = json.loads(config.read_text())
    skeleton = Skeleton.from_config(content["skeleton"])
    module, first = formats.load_format(own), formats.keys_of(formats.load_format(own).read)[0].name
    given = tmp_path / {"plain_csv": "given.csv", "yolo": "given", "cvat": "given.xml"}[own]
    module.write(coco.read(tmp_path / "labels.json", tmp_path, skeleton), given)
    source = {"_target_": f"kplab.data.formats.{own}.read", first: str(given), "images": str(tmp_path)}
    if own == "plain_csv":
        source["rename"] = {"TAIL": "tail"}
        given.write_text(given.read_text().replace("tail_", "TAIL_"))
    config.write_text(json.dumps({**content, "sources": {"all": source}}))
    before = read_splits(compose("data check", dataset).dataset)["all"]
    capsys.readouterr()
    assert main(["data", "check", *dataset, f"fix={tmp_path}/fixed"]) == 1
    fixed = tmp_path / "fixed" / ("all" + given.suffix)
    without = "; read without the source's rename" if own == "plain_csv" else ""
    assert f"corrected labels: {fixed} ({own}{without})" in capsys.readouterr().out
    after = module.read(fixed, images=tmp_path, skeleton=skeleton)
    copy = len(before.poses) - len(after.poses)
    (row,) = np.flatnonzero(np.isclose(before.poses.xy, 0.5, atol=1e-3).all(-1).any(1))
    assert copy == 1
    for image in range(60):
        a, b = (labels.poses[labels.start[image] : labels.start[image + 1]] for labels in (before, after))
        expected = a.xy[: len(b)].copy()
        if before.start[image] == row:
            expected[0, 2] = np.nan
        np.testing.assert_allclose(b.xy, expected, atol=1e-4)


def test_fix_states_why_it_writes_coco(dataset: list[str], tmp_path: Path) -> None:
    skeleton = json.loads((tmp_path / "conf" / "dataset" / "beetles.yaml").read_text())["skeleton"]
    labels = coco.read(tmp_path / "labels.json", tmp_path, Skeleton.from_config(skeleton))
    for target, reason in (
        ("kplab.data.formats.panoptic_hand.read", "panoptic_hand can't be written"),
        ("mine.read", "its source is no format of kplab"),
        ("kplab.data.formats.lsp.read", "lsp can't hold 1 subjects beyond the first of 1 images: left out"),
    ):
        node = OmegaConf.create({"sources": {"all": {"_target_": target, "keys": 1}}})
        folder = tmp_path / target
        folder.mkdir()
        (written,) = write_corrected({"all": labels}, node, folder)
        assert (written.path, written.format, written.reason) == (folder / "all.json", "coco", reason)
        assert [p.name for p in folder.iterdir()] == ["all.json"]
        assert str(written) == f"{written.path} (coco, because {reason})"


def test_wrong_names_are_refused_before_images_are_read(dataset: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", *dataset, "rules=[limb-lenght]"]) == 2
    assert "no rule or group of rules is called limb-lenght" in capsys.readouterr().err


def test_the_page_shows_each_finding_and_escapes_names(tmp_path: Path) -> None:
    labels = beetles(tmp_path, 60, pixels=True)
    labels.source.__dict__["names"][20] = "<script>.png"
    (tmp_path / "0_020.png").rename(tmp_path / "<script>.png")
    permuted(labels, 20, list(labels.skeleton.flip))
    labels.poses.area[[3, 4, 5]] = 0
    report = check_dataset(Dataset({"all": labels}), ["identity", "area-missing"])
    page = as_page(report, "findings", pictures=2)
    assert page.count("<img ") == 3
    assert "1 more without a picture" in page
    assert "&lt;script&gt;.png" in page
    assert "<script" not in page


def test_a_picture_shows_the_subject_where_it_is(tmp_path: Path) -> None:
    """A white square at the ringed keypoint is in the ring."""
    labels = beetles(tmp_path, 60)
    x, y = labels.poses.xy[7, 2].round().astype(int)
    image = np.zeros((300, 400, 3), dtype=np.uint8)
    image[y - 8 : y + 8, x - 8 : x + 8] = 255
    Image.fromarray(image).save(labels.path(7))
    (finding,) = [f for f in check_with(labels) if f.keypoint == 2]
    drawn = picture(labels, finding)
    assert drawn is not None
    assert max(drawn.shape[:2]) == 320
    pink = np.argwhere((np.abs(drawn.astype(int) - [230, 60, 140]) < 30).all(-1)).mean(0)
    white = np.argwhere(
        (drawn > 240).all(-1) & (np.abs(np.indices(drawn.shape[:2]).T.swapaxes(0, 1) - pink) < 30).all(-1)
    )
    assert len(white) > 50
    assert np.abs(white.mean(0) - pink).max() < 6


def check_with(labels):  # type: ignore[no-untyped-def]
    from kplab.data.check import Finding

    return [Finding(image=7, instance=7, keypoint=2, split="all")]


def test_documents_list_every_rule(root: Path) -> None:
    """The tables of docs/rules.md are the rules, with their levels and messages."""
    rows = re.findall(
        r"^\| `([a-z-]+)` \| (error|warning|info) \| (.+?) \|", (root / "docs/rules.md").read_text(), re.M
    )
    assert rows == [(r.name, r.level, r.message) for r in find_rules().values()]


@pytest.mark.slow
def test_predictions_of_a_run_are_those_outside_its_training(
    finished: Callable[..., Run], overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A label that is moved far from the prediction is not known to the run; its training split is left out."""
    run = finished()
    dataset = [o for o in overrides if o.startswith(("hydra", "dataset", "runs_dir"))]
    config = compose("data check", [*dataset, f"out={tmp_path}/out", f"runs=[{run.name}]"])
    splits = read_splits(config.dataset)
    found = out_of_training([run.name], Path(config.runs_dir), "dots", splits)
    assert set(found) == {"test"}, "what train predicts by default"
    assert set(found["test"]) == set(splits["test"].image_id.tolist())
    main(["data", "check", *dataset, f"out={tmp_path}/out", f"runs=[{run.name}]", "rules=[model]"])
    assert "of level error" in capsys.readouterr().out
    results = next((run.folder / "predictions").glob("dots-test.json"))
    assert of_file(results, splits).keys() == splits.keys()
    same = {i: p.xy.tolist() for i, p in of_file(results, splits)["test"].items()}
    assert same == {i: p.xy.tolist() for i, p in found["test"].items()}
    command = ["data", "check", *dataset, f"out={tmp_path}/out", f"predictions={results}"]
    assert main([*command, "rules=[model]"]) == 0
    assert main([*command, f"runs=[{run.name}]"]) == 2
    assert "Leave one out" in capsys.readouterr().err
    rows = json.loads(results.read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps([{**row, "image_id": row["image_id"] + 1000} for row in rows]))
    assert main([*command[:-1], f"predictions={other}"]) == 2
    assert "none of the image ids" in capsys.readouterr().err
    for file in (run.folder / "predictions").glob("dots-*"):
        file.unlink()
    assert main(["data", "check", *dataset, f"out={tmp_path}/out", f"runs=[{run.name}]"]) == 2
    assert "no predictions of images of dataset 'dots' outside its training split" in capsys.readouterr().err
