"""A training that is killed and resumed equals one that was never killed, for every family."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import lightning.pytorch as pl
import pytest
import torch
from omegaconf import DictConfig

from kplab.errors import DataError
from kplab.models.weights import read_checkpoint
from kplab.runs.run import Run
from kplab.tasks.inference.predict import predict_split
from kplab.tasks.training import callbacks
from kplab.tasks.training.checkpoints import Checkpoints, state_of
from kplab.tasks.training.train import train
from robustness.families import COMMON, FAMILIES

Config = Callable[..., DictConfig]


class Killed(BaseException):
    """The end of a process, which no handler sees."""


class KillAt(pl.Callback):
    """Kill at one batch of one epoch."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.place = (epoch, batch)

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
        """Kill before the batch is trained."""
        if (trainer.current_epoch, index) == self.place:
            raise Killed


def nothing(*_: Any, **__: Any) -> None:
    """Do nothing, as a process that is killed."""


def killed(config: DictConfig, monkeypatch: pytest.MonkeyPatch, epoch: int = 1, batch: int = 1) -> Run:
    """A training that is killed: the files are those of that moment, since nothing is written afterwards."""
    before = set(Path(config.runs_dir).glob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "progress", lambda: KillAt(epoch, batch))
        patch.setattr(Run, "close", nothing)
        patch.setattr(Checkpoints, "on_exception", nothing)
        with pytest.raises(Killed):
            train(config)
    (folder,) = set(Path(config.runs_dir).glob("*")) - before
    return Run.open(folder)


def outcome(run: Run) -> dict[str, Any]:
    """All that must be equal: both checkpoints, predictions and scores."""
    found: dict[str, Any] = {}
    for name in ("best", "last"):
        checkpoint = read_checkpoint(run.folder / "checkpoints" / f"{name}.ckpt")
        found[name] = checkpoint["epoch"], state_of(checkpoint)
        found |= {f"{name} {key}": value for key, value in checkpoint["state_dict"].items()}
    for path in sorted((run.folder / "predictions").glob("dots-test*.json")):
        if path.name.endswith("test.json"):
            found[path.name] = path.read_text()
    for path in sorted((run.folder / "scores").glob("dots-*.json")):
        if not path.name.endswith(".record.json"):
            found[f"scores {path.name}"] = json.dumps(json.loads(path.read_text())["summary"])
    return found


def unequal(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What differs between two outcomes."""
    assert one.keys() == other.keys()
    return [
        key
        for key, value in one.items()
        if not (torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key])
    ]


def check_resumes_exactly(
    config: Config, monkeypatch: pytest.MonkeyPatch, family: list[str], loading: list[str]
) -> None:
    """Compare a training that is killed and resumed, loading its images in some way, with one that is neither."""
    options = [*family, *COMMON, "trainer.max_epochs=3"]
    whole = train(config(*options))
    first = killed(config(*options, *loading), monkeypatch)
    # whatever was drawn before in this process makes no difference
    torch.manual_seed(99)
    resumed = train(config(*options, *loading, f"resume={first.name}"))
    assert whole is not None
    assert resumed is not None
    assert unequal(outcome(whole), outcome(resumed)) == []


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_killed_training_resumes_exactly(family: str, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    check_resumes_exactly(config, monkeypatch, FAMILIES[family], [])


@pytest.mark.slow
def test_a_killed_training_resumes_exactly_with_loader_processes(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They load batches ahead, before Lightning sets the epoch."""
    check_resumes_exactly(config, monkeypatch, [], ["workers=1"])


@pytest.mark.slow
def test_a_training_killed_between_its_two_checkpoints_resumes_exactly(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best checkpoint is one epoch newer than the last one."""
    options = [*COMMON, "trainer.max_epochs=3", "monitor=val/loss"]
    whole = train(config(*options))

    def die(self: Checkpoints, trainer: pl.Trainer, module: Any) -> None:
        if trainer.current_epoch == 1:
            raise Killed
        plain(self, trainer, module)

    plain = Checkpoints.on_train_epoch_end
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_epoch_end", die)
        first = killed(config(*options), patch, epoch=99)
    epochs = [read_checkpoint(first.folder / "checkpoints" / f"{name}.ckpt")["epoch"] for name in ("best", "last")]
    assert epochs == [1, 0]
    resumed = train(config(*options, f"resume={first.name}"))
    assert whole is not None
    assert resumed is not None
    assert unequal(outcome(whole), outcome(resumed)) == []


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_resumed_run_keeps_the_best_checkpoint(epoch: int, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a learning rate of 0 no epoch is better than the first one, also after a kill in the next one."""
    options = ["optimizer.lr=0", "trainer.max_epochs=4", "monitor=val/AP", "test_on=[]"]
    first = killed(config(*options), monkeypatch, epoch=epoch)
    resumed = train(config(*options, f"resume={first.name}"))
    assert resumed is not None
    assert read_checkpoint(resumed.folder / "checkpoints" / "best.ckpt")["epoch"] == 0
    assert read_checkpoint(resumed.folder / "checkpoints" / "last.ckpt")["epoch"] == 3


def test_a_training_stopped_in_its_first_epoch_starts_from_the_beginning(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its weights can predict; but half an epoch can't be continued exactly."""

    class Stop(KillAt):
        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
            if index == 1:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "progress", lambda: Stop(0, 1))
        with pytest.raises(KeyboardInterrupt, match="no complete epoch"):
            train(config("augment=strong"))
    (folder,) = Path(config().runs_dir).iterdir()
    assert predict_split(Run.open(folder), "test").is_file()
    resumed, whole = train(config("augment=strong", f"resume={folder.name}")), train(config("augment=strong"))
    assert "starts from the beginning" in capsys.readouterr().out
    assert resumed is not None
    assert whole is not None
    assert unequal(outcome(whole), outcome(resumed)) == []


def test_a_training_is_not_resumed_on_other_data(
    config: Config, dotted: Path, finished: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that has changed under its name is named, and nothing is trained."""
    run = finished("trainer.max_epochs=1", "test_on=[]")
    image = dotted / "images" / "003.png"
    picture = cv2.imread(str(image))
    picture[5, 5] = 255 - picture[5, 5]
    cv2.imwrite(str(image), picture)
    with pytest.raises(DataError, match=r"(?s)other data.*003\.png: another image.*train anew without resume"):
        train(config("trainer.max_epochs=2", "test_on=[]", f"resume={run.name}"))
    assert [p.name for p in run.folder.parent.iterdir()] == [run.name]
