"""Trainings that end early: each way has its status, its message, and a way to go on."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig

from kplab.cli import main
from kplab.data.datamodule import report_lost_workers
from kplab.errors import RunError
from kplab.models.weights import read_checkpoint
from kplab.runs import table
from kplab.runs.run import Run
from kplab.tasks.runs import colour
from kplab.tasks.training import callbacks
from kplab.tasks.training.checkpoints import state_of
from kplab.tasks.training.train import train
from robustness.families import FAMILIES
from robustness.test_resume import outcome, unequal

Config = Callable[..., DictConfig]


class At(pl.Callback):
    """Calls a function at one batch of one epoch, before it is trained."""

    def __init__(self, epoch: int, batch: int, call: Callable[[], None]) -> None:
        self.place, self.call = (epoch, batch), call

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
        """Call it."""
        if (trainer.current_epoch, index) == self.place:
            self.call()


def only(config: DictConfig) -> Run:
    """The one run that there is."""
    (folder,) = Path(config.runs_dir).iterdir()
    return Run.open(folder)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_that_diverge_in_the_last_step_are_not_saved(family: str, config: Config) -> None:
    """The only step: no later one sees its loss."""
    one_step = [
        "batch_size=8",
        "trainer.max_epochs=1",
        "optimizer.lr=1e30",
        "optimizer.warmup=0",
        "test_on=[]",
        "flip_test=false",
    ]
    with pytest.raises(RunError, match=r"not finite after step 1\. The training diverges"):
        train(config(*FAMILIES[family], *one_step))
    run = only(config())
    assert run.status == "failed"
    assert not (run.folder / "checkpoints" / "last.ckpt").exists()
    assert not (run.folder / "checkpoints" / "best.ckpt").exists()


@pytest.mark.slow
def test_a_loader_process_that_is_killed_ends_in_one_message(
    overrides: list[str], config: Config, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As by a lack of memory."""

    def kill() -> None:
        for process in multiprocessing.active_children():
            os.kill(process.pid or 0, signal.SIGKILL)

    monkeypatch.setattr(callbacks, "progress", lambda: At(1, 0, kill))
    assert main(["train", *overrides, "workers=1", "trainer.max_epochs=50"]) == 2
    error = capfd.readouterr().err
    assert "a process that loads images has ended unexpectedly" in error
    assert "workers=0" in error
    assert "Traceback" not in error
    assert only(config()).status == "failed"


def test_the_end_of_a_loader_process_is_recognised_behind_other_exceptions() -> None:
    """torch raises its error from a signal handler, in code that may catch it."""

    def run() -> None:
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
        except RuntimeError as error:
            raise TypeError("unsupported callable") from error

    with pytest.raises(RunError, match="loads images has ended unexpectedly"), report_lost_workers():
        run()
    with pytest.raises(TypeError, match=r"^other$"), report_lost_workers():
        raise TypeError("other")


def test_ctrl_c_is_stopped_and_says_how_to_go_on(
    overrides: list[str], config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another status than that of a failure, in the record and in the list of runs."""

    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(callbacks, "progress", lambda: At(1, 1, stop))
    assert main(["train", *overrides]) == 130
    run = only(config())
    assert (run.status, run.error, run.cut) == ("stopped", None, "stopped by Ctrl-C")
    assert "error" not in run.record
    assert f"stopped by Ctrl-C. To go on: kplab train resume={run.folder}\n" in capsys.readouterr().err
    (row,) = table.rows(run.folder.parent)
    assert (row["status"], row["error"], row["cut"]) == ("stopped", None, "stopped by Ctrl-C")
    assert colour(row) == "yellow"
    # an older kplab recorded it as an error
    record = json.loads((run.folder / "run.json").read_text())
    del record["cut"]
    (run.folder / "run.json").write_text(json.dumps({**record, "error": "stopped by Ctrl-C"}))
    assert table.row(run.folder) == row


@pytest.mark.slow
def test_a_training_cut_by_time_says_so_resumes_exactly_and_is_reproduced(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The epoch that is cut is not kept: its batches can't be continued exactly."""
    options = ["augment=strong", "trainer.max_epochs=3"]
    whole = train(config(*options))
    late: list[bool] = []
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "progress", lambda: At(1, 0, lambda: late.append(True)))
        patch.setattr(Timer, "time_elapsed", lambda *_: 1e6 if late else 0.0)
        cut = train(config(*options, "trainer.max_time=00:01:00:00"))
    assert cut is not None
    assert (cut.status, cut.record["epochs"]) == ("finished", 1)
    assert cut.record["cut"] == "cut by trainer.max_time after 1 of 3 epochs"
    row = table.row(cut.folder)
    assert (row["error"], row["cut"], colour(row)) == (None, cut.record["cut"], "yellow")
    for name in ("best", "last"):
        checkpoint = read_checkpoint(cut.folder / "checkpoints" / f"{name}.ckpt")
        assert checkpoint["epoch"] == 0
    assert state_of(checkpoint)["epochs"] == 1
    resumed = train(config(*options, f"resume={cut.name}", "trainer.max_time=null"))
    assert whole is not None
    assert resumed is not None
    assert whole.record["cut"] is None
    assert unequal(outcome(whole), outcome(resumed)) == []
    # one that was cut is reproduced up to its last complete epoch, one that was resumed as a whole
    for run in (cut, resumed):
        assert main(["reproduce", f"run={run.folder}"]) == 0
        assert reproduction_of(run)["verdict"] == "identical"
    (resumed.folder / "run.json").write_text(
        json.dumps({**resumed.record, "changed_on_resume": ["trainer.max_epochs"]})
    )
    assert main(["reproduce", f"run={resumed.folder}"]) == 2
    assert "was resumed with other values of trainer.max_epochs" in capsys.readouterr().err


def reproduction_of(run: Run) -> dict[str, Any]:
    """The reproduction of a run beside it."""
    (found,) = (
        content
        for path in run.folder.parent.glob("*/reproduction.json")
        if (content := json.loads(path.read_text()))["reproduces"] == run.name
    )
    return dict(found)
