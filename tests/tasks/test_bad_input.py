"""Invalid input ends before any training starts, in one message that names the file and the remedy."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from kplab.cli import main
from kplab.errors import ConfigError, DataError, ModelError
from kplab.runs.run import Run
from kplab.tasks import compose
from kplab.tasks.training.train import train
from kplab.tasks.wiring.datasets import read_splits

Config = Callable[..., DictConfig]
Finished = Callable[..., Run]
Document = dict[str, Any]


def edit(folder: Path, change: Callable[[Document], None]) -> None:
    """Change the annotation file."""
    path = folder / "annotations.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def all_annotations(change: Callable[[Document], None]) -> Callable[[Document], None]:
    """Change every annotation."""

    def every(document: Document) -> None:
        for annotation in document["annotations"]:
            change(annotation)

    return every


def another(document: Document) -> None:
    """A second subject in the first image."""
    document["annotations"].append({**document["annotations"][0], "id": 999})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["annotations"][0].update(id=0), r"annotations\.json.*\b0\b"),
        (lambda d: d["annotations"][1].update(id=1), r"annotations\.json.*\b1\b"),
        (lambda d: d["annotations"][0].update(keypoints=[1.0, 2.0, 2.0]), r"annotations\.json"),
        (lambda d: d["annotations"][0].update(image_id=77), r"annotations\.json.*77"),
        (lambda d: d["images"][0].update(width=99), r"001\.png"),
        (lambda d: d["images"][0].update(file_name="gone.png"), r"gone\.png"),
        (lambda d: d["categories"][0].update(keypoints=["red", "left_green", "purple"]), "purple"),
        (another, r"holds 1 pose per view, but regions 'image' shows up to 2"),
        (all_annotations(lambda a: a.update(keypoints=[0] * 9, num_keypoints=0)), "no keypoint is labelled|labelled"),
    ],
    ids=[
        "id 0",
        "id twice",
        "too few numbers",
        "unknown image",
        "other size",
        "missing",
        "other names",
        "crowded",
        "none",
    ],
)
def test_annotations(config: Config, dotted: Path, change: Callable[[Document], None], message: str) -> None:
    """What the labels show is reported before a run is created."""
    edit(dotted, change)
    with pytest.raises(DataError, match=f"(?s){message}"):
        train(config())
    assert not list(Path(config().runs_dir).glob("*"))


def test_not_a_number_is_refused(config: Config, dotted: Path) -> None:
    """JSON has no NaN, but Python writes it."""
    path = dotted / "annotations.json"
    text = path.read_text()
    first = json.loads(text)["annotations"][0]["keypoints"][0]
    path.write_text(text.replace(str(first), "NaN", 1))
    with pytest.raises(DataError, match=r"annotations\.json"):
        train(config())


def test_keypoints_outside_the_image_are_counted(
    config: Config, dotted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are left out; the terminal and the record give their number."""
    edit(dotted, lambda d: d["annotations"][0]["keypoints"].__setitem__(0, 500.0))
    run = train(config("trainer.max_epochs=1", "test_on=[]"))
    assert run is not None
    assert "1 labelled keypoints of 1 instances lie more than" in capsys.readouterr().out
    assert any("outside their image" in note for note in run.record["notes"])


@pytest.mark.parametrize("damage", ["truncated jpeg", "not an image", "empty"])
def test_unreadable_images(config: Config, dotted: Path, damage: str) -> None:
    """The header of a truncated JPEG is valid; OpenCV would fill the rest with grey."""
    import cv2

    victim = dotted / "images" / "001.png"
    if damage == "truncated jpeg":
        victim = victim.with_suffix(".jpg")
        cv2.imwrite(str(victim), cv2.imread(str(victim.with_suffix(".png"))))
        victim.write_bytes(victim.read_bytes()[:-200])
        edit(dotted, lambda d: d["images"][0].update(file_name="001.jpg"))
    else:
        victim.write_bytes(b"" if damage == "empty" else b"these are no pixels")
    with pytest.raises(DataError, match=re.escape(victim.name)):
        train(config())
    assert not list(Path(config().runs_dir).glob("*"))


def test_a_split_without_images(config: Config) -> None:
    """Fractions that leave no image for a split."""
    with pytest.raises(DataError, match=r"(?s)\btest\b"):
        train(config("dataset.split.fractions={train: 0.99, test: 0.01}"))


def test_a_manifest_of_other_data(config: Config, dotted: Path) -> None:
    """The manifest of a split names an image that no longer exists."""
    read_splits(config().dataset)
    edit(dotted, lambda d: d.update(images=d["images"][:-1], annotations=d["annotations"][:-1]))
    with pytest.raises(DataError, match=r"016\.png"):
        train(config())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.skeleton.sigmas=[0.1]", "3 keypoints but 1 sigmas"),
        ("dataset.skeleton.flip_pairs=[[red,orange]]", "unknown keypoints: orange"),
    ],
)
def test_skeletons(config: Config, override: str, message: str) -> None:
    """Sigmas and flip pairs must fit the names."""
    with pytest.raises(ConfigError, match=message):
        train(config(override))


def test_unknown_overrides_suggest_the_closest_key(overrides: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """By the command, as a user runs it."""
    assert main(["train", *overrides, "batchsize=3"]) == 2
    assert "Did you mean batch_size" in capsys.readouterr().err


def test_half_written_runs(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without checkpoint, without config, without record."""
    run = finished("trainer.max_epochs=1", "test_on=[]")
    runs = f"runs_dir={run.folder.parent}"
    for victim, message in (
        ("checkpoints", "no checkpoint last.ckpt"),
        ("config.yaml", "config.yaml"),
        ("run.json", "run.json"),
    ):
        path = run.folder / victim
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert main(["predict", f"run={run.name}", "split=test", runs]) == 2
        assert message in capsys.readouterr().err


def test_pretrained_weights_that_are_not_available(config: Config) -> None:
    """An error; never random weights without a message."""
    with pytest.raises(ModelError, match="pretrained=false"):
        train(config("backbone=resnet18", "backbone.pretrained=true"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["augment=mosaic", "augment.mosaic=1.5"], "a probability lies between 0 and 1"),
        (["augment.paste=-1"], "a probability lies between 0 and 1"),
        (["augment.paste_shape=star"], "a shape is hull or box"),
        (["+head.colour=red"], "head: .*unexpected keyword argument 'colour'"),
        (["+neck.colour=red"], "neck: .*unexpected keyword argument 'colour'"),
        (["optimizer.lr=fast"], r"optimizer.lr is 'fast': Expected `float`"),
        (["optimizer.lr=-1"], "optimizer: .*-1"),
        (["trainer.precision=17"], "trainer: .*17"),
        (["trainer=gpu"], "torch .* sees none. Use trainer=cpu"),
        (["size=[70,64]"], "multiples of 32"),
        (["optimizer.lr=1e30"], "the loss is not finite at step .* lower optimizer.lr"),
    ],
)
def test_invalid_options_end_in_one_message(
    overrides: list[str],
    override: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the command, as a user runs it: never a traceback."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert main(["train", *overrides, *override]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_missing_split_is_reported_as_not_scored(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """COCO has no test split, but the default of test_on names one."""
    train(config("trainer.max_epochs=1", "test_on=[dev]"))
    assert "nothing will be scored on 'dev': the dataset has train, val, test" in capsys.readouterr().out


def test_views_that_do_not_fit_the_network(config: Config) -> None:
    """A side that is not a multiple of the largest stride."""
    with pytest.raises(ValueError, match="multiple"):
        train(config("size=[70,64]"))


def test_a_flip_test_that_the_head_does_not_support(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before the training, not after it; and by a prediction with flip_test=true."""
    from kplab.models.heads.base import Head
    from kplab.models.heads.heatmap import HeatmapHead

    monkeypatch.setattr(HeatmapHead, "unflip", Head.unflip)
    with pytest.raises(ConfigError, match=r"'HeatmapHead' has no flip test. Use flip_test=false"):
        train(config())
    assert not list(Path(config().runs_dir).glob("*"))
    run = train(config("flip_test=false", "trainer.max_epochs=1", "test_on=[]"))
    assert run is not None
    runs = f"runs_dir={run.folder.parent}"
    assert main(["predict", f"run={run.name}", "split=test", "flip_test=true", runs]) == 2
    assert "Use flip_test=false" in capsys.readouterr().err
    assert main(["predict", f"run={run.name}", "split=test", runs]) == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["regions=annotated"], "combines whole images, but regions are 'annotated'. Use regions=image"),
        ([], "holds 1 pose per view, but augment.mosaic=0.5 shows subjects of several images in one"),
        (["augment.mosaic=1.5"], "a probability lies between 0 and 1"),
        (["augment.mosaic=0", "augment.paste=0.5"], "augment.paste=0.5 shows subjects of several images in one"),
        (["augment.mosaic=0", "augment.paste=0.5", "regions=annotated"], "augment.paste=0.5 combines whole images"),
    ],
)
def test_mosaics_that_are_not_possible(config: Config, override: list[str], message: str) -> None:
    """Mosaics need whole images, and a head that can represent the subjects of four of them."""
    with pytest.raises(ValueError, match=re.escape(message)):
        train(config("augment=mosaic", "augment.mosaic=0.5", *override))
    assert not list(Path(config().runs_dir).glob("*"))


def test_predicting_a_folder_without_images(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error: there is nothing to predict."""
    run = finished("trainer.max_epochs=1", "test_on=[]")
    assert main(["predict", f"run={run.name}", f"source={tmp_path}/split.json", f"runs_dir={run.folder.parent}"]) == 2
    assert "no image found" in capsys.readouterr().err


def test_datasets_that_lack_a_part(overrides: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What a dataset's own file may lack or misspell."""
    for change, message in (
        ("~dataset.sources", "dataset 'dots' has no sources"),
        ("~dataset.skeleton", "dataset 'dots' has no skeleton"),
        ("+dataset.split.gaps=3", "split: got an unexpected keyword argument 'gaps'"),
        ("~dataset.split.manifest", "split: missing a required argument: 'manifest'"),
        ("dataset.split.manifest=/proc/here/mine.json", "/proc/here/mine.json: the split cannot be written"),
        ("+dataset.sources.all.colour=3", "kplab.data.formats.coco.read has no key 'colour'. Its keys:"),
    ):
        assert main(["data", *overrides[:2], change, f"out={tmp_path}"]) == 2
        assert message in capsys.readouterr().err


def test_evaluation_settings_are_checked_before_training(config: Config) -> None:
    """A misspelt normaliser would else show in the first validation."""
    for change, message in (
        ("dataset.evaluation.pck_normalizer=red-gren", "pck_normalizer: 'red-gren' is not a pair of keypoints"),
        ("+dataset.evaluation.nme_pair=eyes", "nme_pair: 'eyes' is not a pair"),
        ("+dataset.evaluation.max_det=3", "unexpected keyword argument 'max_det'"),
        ("+dataset.evaluation.max_dets=0", "max_dets is 0"),
        ("dataset.evaluation.pck_thresholds=[]", "pck_thresholds are"),
        ("dataset.evaluation.pck_thresholds=3", "pck_thresholds is 3, but must be a list"),
        ("dataset.evaluation.auc_range=[3,1]", "auc_range is"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            train(config(change))
    assert not list(Path(config().runs_dir).glob("*"))


def test_a_split_without_any_instance_is_refused(config: Config, dotted: Path) -> None:
    """No keypoint and no box: an error of the data, and no crash of its checks."""
    edit(dotted, lambda d: d.update(annotations=[]))
    with pytest.raises(DataError, match=r"no labelled keypoint in .* images and 0 instances"):
        train(config())


def test_a_composed_config_holds_no_path_of_the_machine() -> None:
    """Its hash is the same everywhere."""
    from omegaconf import OmegaConf

    assert str(Path.home()) not in OmegaConf.to_yaml(compose("train", ["dataset=mouse"]))
