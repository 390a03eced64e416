"""``kplab reproduce``: the same run to the bit, data that have changed are named, and so is the first difference."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from kplab.cli import main
from kplab.data.split import Manifest
from kplab.runs import provenance
from kplab.runs.environment import AGREES, DIFFERS, UNKNOWN, checks
from kplab.runs.provenance import file_sha256
from kplab.runs.records import read_record
from kplab.runs.run import Run
from kplab.tasks.training.reproduce import code_of
from kplab.tasks.training.train import train
from kplab.tasks.wiring.datasets import read_splits
from kplab.tasks.wiring.identity import find_run
from kplab.tasks.wiring.models import build_model

Config = Callable[..., DictConfig]
Finished = Callable[..., Run]
#: A training with all that could make it differ: augmentation, loader processes, averaged weights.
SHORT = ("augment=light", "workers=2", "trainer.max_epochs=2")
EXEMPLAR = ("model=exemplar", "flip_test=false", "model.max_poses=1")


@pytest.fixture
def run(finished: Finished) -> Run:
    """A finished run."""
    return finished(*SHORT)


def result(run: Run) -> tuple[Run, dict[str, Any]]:
    """The one reproduction of a run beside it, and its content."""
    (path,) = run.folder.parent.glob("*/reproduction.json")
    read_record(path)
    return Run.open(path.parent), json.loads(path.read_text())


def only_runs(run: Run, *others: Run) -> bool:
    """Whether the folder has no further run: nothing was trained."""
    return {path.name for path in run.folder.parent.iterdir()} == {run.name, *(other.name for other in others)}


def test_a_run_is_reproduced_to_the_bit(run: Run, config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Also with another number of threads at hand: the run's own is set."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert main(["reproduce", f"run={run.folder}"]) == 0
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    new, found = result(run)
    assert new.record["reproduces"] == found["reproduces"] == run.name
    assert (found["verdict"], found["first_difference"]) == ("identical", None)
    assert {part["what"]: part["state"] for part in found["parts"]} == dict.fromkeys(
        ["curves", "best.ckpt", "last.ckpt", "predictions dots-test", "scores dots-test"], "identical"
    )
    assert {check["what"]: check["state"] for check in found["environment"]}.items() >= {
        "threads": AGREES, "data": AGREES, "packages": AGREES, "device": AGREES, "processes": AGREES
    }.items()  # fmt: skip
    assert "verdict: identical, to the bit" in capsys.readouterr().out
    assert main(["runs", f"runs_dir={run.folder.parent}"]) == 0
    assert f"{new.name}: reproduces {run.name}: identical" in capsys.readouterr().out
    # a benchmark goes on with the run itself
    same = find_run(config(*SHORT))
    assert same is not None
    assert same.name == run.name


def change_image(dotted: Path, name: str) -> Path:
    """Change one pixel of an image."""
    path = dotted / "images" / name
    image = cv2.imread(str(path))
    image[5, 5] = 255 - image[5, 5]
    cv2.imwrite(str(path), image)
    return path


def change_label(dotted: Path, image_id: int) -> Path:
    """Move one keypoint by a pixel."""
    path = dotted / "annotations.json"
    document = json.loads(path.read_text())
    (annotation,) = (a for a in document["annotations"] if a["image_id"] == image_id)
    annotation["keypoints"][0] += 1.0
    path.write_text(json.dumps(document))
    return path


def test_changed_data_are_refused_with_the_names_of_the_files(
    run: Run, config: Config, dotted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image, a label, a split; not a label file of other bytes with the same labels. Nothing is trained."""
    read_splits(config().dataset)  # writes the split
    command = ["reproduce", f"run={run.folder}"]
    labels, split, image = dotted / "annotations.json", dotted / "split.json", dotted / "images" / "003.png"
    originals = {path: path.read_bytes() for path in (labels, split, image)}

    def refusal() -> str:
        assert main(command) == 2
        text = capsys.readouterr().err
        for path, content in originals.items():
            path.write_bytes(content)
        assert only_runs(run)
        return text.split("can't be reproduced:\n")[1]

    change_image(dotted, "003.png")
    assert refusal() == f"  {image}: another image (split train)\nRestore them. Nothing has been trained.\n"
    labels.write_text(labels.read_text().replace(", ", ",  "))  # no change of the labels
    change_label(dotted, 5)
    assert refusal().startswith(f"  {labels}: 1 image with other labels: 005.png\n")
    parts = json.loads(split.read_text())["parts"]
    one, two = parts["train"][0], parts["test"][0]
    exchanged = split.read_text().replace(one, "x").replace(two, one).replace("x", two)
    stated = json.loads(exchanged)["sha256"]
    content = {key: value for key, value in json.loads(exchanged).items() if key != "sha256"}
    split.write_text(exchanged.replace(stated, Manifest(**content).sha256()))
    text = refusal()
    assert text.startswith(f"  {split}: 2 images in another split: ")
    assert f"{one} (from train to test)" in text
    # a run of an older kplab knows the labels only
    record = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps({k: v for k, v in record.items() if k != "data_sha256"}))
    change_label(dotted, 5)
    assert refusal().startswith(f"  {labels}: other labels or other images in split ")


def test_other_weights_of_a_backbone_are_refused(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record of a run has the file that its backbone started from."""
    file = tmp_path / "backbone.pth"
    options = (f"backbone.checkpoint={file}", "trainer.max_epochs=1")
    weights = build_model(config()).backbone.net.state_dict()
    torch.save(weights, file)
    run = train(config(*options))
    assert run is not None
    digest = file_sha256(file)
    assert run.record["backbone_weights"] == {"backbone": {"source": "file", "file": "backbone.pth", "sha256": digest}}
    assert "backbone starts from file (backbone.pth)" in capsys.readouterr().out
    weights["conv1.weight"][0] += 1e-3
    torch.save(weights, file)
    assert main(["reproduce", f"run={run.folder}"]) == 2
    error = capsys.readouterr().err
    assert (
        f"backbone: the training started from file (backbone.pth, SHA-256 {digest[:12]}…), and would now from" in error
    )
    assert file_sha256(file)[:12] in error
    assert only_runs(run)


def test_tampered_curves_are_different_from_their_epoch_on(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = run.folder / "curves.csv"
    lines = path.read_text().splitlines()
    column = lines[0].split(",").index("train/loss_epoch")
    (row,) = (i for i, line in enumerate(lines) if line.startswith("2,") and line.split(",")[column])
    cells = lines[row].split(",")
    cells[column] = repr(float(cells[column]) * 1.01)
    lines[row] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    assert main(["reproduce", f"run={run.folder}"]) == 1
    _, found = result(run)
    assert found["verdict"] == "different"
    assert found["first_difference"].startswith("curves: epoch 2, train/loss_epoch: ")
    states = {part["what"]: part["state"] for part in found["parts"]}
    assert states.pop("curves") == "different"
    assert set(states.values()) == {"identical"}
    assert "verdict: different (tolerance: keypoints 0.01 px" in capsys.readouterr().out


def test_runs_that_can_not_be_reproduced_are_refused(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is trained, with what to do."""
    command = ["reproduce", f"run={run.folder}"]
    record, config = (run.folder / "run.json").read_text(), (run.folder / "config.yaml").read_text()
    best, predictions = run.folder / "checkpoints" / "best.ckpt", run.folder / "predictions" / "dots-test.json"

    def refused(message: str, *more: str, **entries: Any) -> None:
        (run.folder / "run.json").write_text(json.dumps({**json.loads(record), **entries}))
        assert main([*command, *more]) == 2
        assert message in capsys.readouterr().err
        (run.folder / "run.json").write_text(record)

    refused("is failed, and only finished runs are reproduced", status="failed")
    refused("was resumed with other values of trainer.max_epochs", changed_on_resume=["trainer.max_epochs"])
    refused("was cut in its first epoch", cut="cut by trainer.max_time", epochs=0)
    refused("a reproduction trains what the run did", 'overrides=["optimizer.lr=1"]')
    refused("tolerances.scores is -1", "tolerances.scores=-1")
    refused(
        "strict=true, but these differ: commit.", "strict=true", code={**json.loads(record)["code"], "commit": "0" * 40}
    )
    (run.folder / "config.yaml").write_text(config.replace("seed: 0", "seed: 1"))
    refused("is not the config that the run was trained with")
    (run.folder / "config.yaml").write_text(config)
    kept = best.read_bytes()
    best.write_bytes((best.with_name("last.ckpt")).read_bytes() + b"x")
    refused("best.ckpt: is not the file that the training of")
    best.write_bytes(kept)
    assert main(["predict", f"run={run.folder}", "split=test", "flip_test=false"]) == 0
    refused("was predicted again with flip_test False, and a reproduction predicts as the training did")
    predictions.write_text("[]")
    refused("dots-test.json: has changed since it was written")
    assert only_runs(run)


def test_the_code_of_a_run_is_named_and_not_used(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands to get it are printed; a text that is no commit is not."""
    commit = "12ab" * 10
    (run.folder / "git.patch").write_text("a patch")
    run.record["code"] = {"commit": commit, "patch_sha256": "0" * 64}
    text = code_of(run)
    assert f"worktree add --detach {Path(os.environ.get('KPLAB_WORKSPACE', Path.cwd()))}" in text
    assert f"{commit}\n" in text
    assert f"apply {run.folder}/git.patch" in text
    run.record["code"] = {"commit": "$(reboot)"}
    assert "reboot" not in code_of(run)


def test_runs_on_detected_boxes_are_reproduced_from_another_place(
    finished: Finished, dotted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both runs and the data were moved; boxes that were predicted again are refused. Without gradients, this is quick."""
    detector = finished(*EXEMPLAR, "test_on=[val,test]")
    run = finished(*EXEMPLAR, "regions=detected", f"detector_run={detector.folder}")
    moved, data = tmp_path / "elsewhere", tmp_path / "data"
    run.folder.parent.rename(moved)
    dotted.rename(data)
    run, detector = Run.open(moved / run.name), Run.open(moved / detector.name)
    where = [
        f"dataset.sources.all.{key}={data}/{name}"
        for key, name in (("annotations", "annotations.json"), ("images", "images"))
    ]
    where.append(f"dataset.split.manifest={data}/split.json")
    command = ["reproduce", f"run={run.folder}", f"overrides={json.dumps(where)}"]
    assert main(command) == 0
    new, found = result(run)
    assert found["verdict"] == "identical"
    assert Path(str(OmegaConf.load(new.folder / "config.yaml").detector_run)) == detector.folder
    assert new.record["detections"] == run.record["detections"]
    path = detector.folder / "predictions" / "dots-test.json"
    path.write_text(path.read_text().replace("1", "2"))
    record = path.with_name("dots-test.record.json")
    content = json.loads(record.read_text())
    content["sha256"][path.name] = file_sha256(path)
    record.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(command) == 2
    assert f"{detector.folder}: other predicted boxes of split test" in capsys.readouterr().err


def test_an_older_run_is_reproduced_as_far_as_its_record_goes(finished: Finished) -> None:
    """Without hashes of images and checkpoints, and with keys that its config lacks."""
    run = finished(*EXEMPLAR)
    record = json.loads((run.folder / "run.json").read_text())
    new = ("data_sha256", "checkpoints", "curves_counted_from", "detections", "cut", "threads", "precision", "device")
    config = OmegaConf.load(run.folder / "config.yaml")
    del config["window_anywhere"]
    text = OmegaConf.to_yaml(config)
    (run.folder / "config.yaml").write_text(text)
    (run.folder / "data.json").unlink()
    old = {key: value for key, value in record.items() if key not in new}
    (run.folder / "run.json").write_text(json.dumps({**old, "config_sha256": provenance.sha256(text)}))
    shutil.rmtree(run.folder / "scores")
    assert main(["reproduce", f"run={run.folder}"]) == 0
    _, found = result(run)
    states = {check["what"]: check["state"] for check in found["environment"]}
    assert {states[what] for what in ("threads", "precision", "device", "data")} == {UNKNOWN}
    assert {part["what"]: part["state"] for part in found["parts"]} == {
        "last.ckpt": "identical", "predictions dots-test": "identical", "scores dots-test": "not compared"
    }  # fmt: skip


def test_the_environment_is_compared_line_by_line() -> None:
    then = {
        "code": {"commit": "a" * 40, "patch_sha256": None},
        "lock_sha256": "b" * 64,
        "packages": {"torch": "2.0", "numpy": "2.0"},
        "hardware": {"cpu": "one", "host": "here"},
        "device": "cpu",
        "precision": "32-true",
        "threads": 2,
        "processes": 1,
    }
    assert {check.state for check in checks(then, then)} == {AGREES}
    now = {
        **then,
        "code": {"commit": "a" * 40, "patch_sha256": "c" * 64},
        "packages": {"torch": "2.1", "numpy": "2.0"},
        "hardware": {"cpu": "one", "host": "there", "gpus": ["large"]},
        "threads": 1,
    }
    found = {check.what: check for check in checks(then, now)}
    assert {what for what, check in found.items() if check.state == DIFFERS} == {
        "changes",
        "packages",
        "GPUs",
        "threads",
    }
    assert found["packages"].text == "torch 2.0 in the run, 2.1 now"
    assert found["threads"].text == "2 in the run, 1 now"
    assert {check.state for check in checks({}, now) if check.what != "GPUs"} == {UNKNOWN}
    assert {check.state for check in checks({"code": 3, "packages": [], "hardware": "x"}, now)} == {UNKNOWN}
