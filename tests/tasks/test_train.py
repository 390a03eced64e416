"""Training learns, repeats to the bit, resumes exactly, and fails with clear messages."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from kplab.errors import ConfigError, RunError
from kplab.runs.run import Run
from kplab.structures.predictions import Predictions
from kplab.tasks.training import callbacks, checkpoints
from kplab.tasks.training.sweep import sweep
from kplab.tasks.training.train import train, trained
from kplab.tasks.wiring.datasets import read_split

Config = Callable[..., DictConfig]
Finished = Callable[..., Run]
#: A training that must repeat to the bit.
AUGMENTED = ["augment=strong", "trainer.max_epochs=4"]


def weights(run: Run, name: str = "last") -> dict[str, torch.Tensor]:
    """A checkpoint's weights."""
    return torch.load(run.folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_writes_all_its_files_and_records(config: Config) -> None:
    """Config, curves, checkpoints, predictions and scores; hashes of data and split; status and duration."""
    run = train(config())
    assert run is not None
    record = Run.open(run.folder).record
    assert record["status"] == "finished"
    assert record["seconds"] > 0
    assert record["precision"] in ("32-true", "bf16-mixed")
    assert set(record["dataset"]) == {"name", "train", "val", "test"}
    assert len(record["split"]["sha256"]) == 64
    assert record["threads"] == torch.get_num_threads()
    assert record["counts"] == {"train": [8, 8], "val": [4, 4], "test": [4, 4]}
    curves = pd.read_csv(run.folder / "curves.csv")
    assert sorted(set(curves["epoch"])) == [1, 2]
    assert {"epoch", "train/loss_epoch", "val/loss", "val/mean_px", "val/AP"} <= set(curves)
    assert OmegaConf.load(run.folder / "config.yaml").dataset.name == "dots"
    for name in (
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "scores/dots-test.images.csv",
        "predictions/dots-test.record.json",
        "scores/dots-test.record.json",
    ):
        assert (run.folder / name).is_file()
    speed = json.loads((run.folder / "predictions" / "dots-test.card.json").read_text())
    assert speed["images_per_s"] == pytest.approx(4 / speed["seconds"], rel=0.01)
    card = json.loads((run.folder / "scores" / "dots-test.json").read_text())["card"]
    assert card["flip_test"] is True
    assert card["boxes"] == "whole image"
    assert len(card["truth_hash"]) == len(card["predictions_hash"]) == 64


@pytest.mark.slow
def test_the_same_config_gives_the_same_bits(config: Config, finished: Finished) -> None:
    """Weights and predictions; another seed gives other weights."""
    one = finished(*AUGMENTED)
    two, other = (train(config(*AUGMENTED, f"seed={seed}")) for seed in (0, 1))
    assert two
    assert two.folder != one.folder
    assert other
    assert same(weights(one), weights(two))
    predictions = [(r.folder / "predictions" / "dots-test.json").read_bytes() for r in (one, two)]
    assert predictions[0] == predictions[1]
    assert not same(weights(one), weights(other))


def newest(config: DictConfig) -> Run:
    """The run that was started last, whatever its status."""
    return max((Run.open(p) for p in Path(config.runs_dir).iterdir()), key=lambda run: run.record["process"]["written"])


class StopAfter(pl.Callback):
    """Ctrl-C at one batch of one epoch."""

    def __init__(self, epoch: int, batch: int = 0) -> None:
        self.epoch, self.batch = epoch, batch

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
        """Stop in the middle of an epoch."""
        if (trainer.current_epoch, index) == (self.epoch, self.batch):
            raise KeyboardInterrupt


def interrupted(config: DictConfig, monkeypatch: pytest.MonkeyPatch, epoch: int, batch: int = 0) -> Run:
    """A training that is stopped by Ctrl-C."""
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "progress", lambda: StopAfter(epoch, batch))
        with pytest.raises(KeyboardInterrupt):
            train(config)
    return newest(config)


@pytest.mark.slow
def test_ctrl_c_closes_the_record_and_resuming_is_exact(
    config: Config, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in epoch 3 of 4, resumed, and equal to the bit to a training that was never stopped."""
    stopped = interrupted(config(*AUGMENTED), monkeypatch, epoch=2, batch=1)
    assert stopped.status == "stopped"
    assert (stopped.error, stopped.cut) == (None, "stopped by Ctrl-C")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = train(config(*AUGMENTED, f"resume={stopped.name}"))
    whole = finished(*AUGMENTED)
    assert resumed
    assert resumed.record["parent"] == stopped.name
    assert same(weights(resumed), weights(whole))
    assert (resumed.folder / "scores" / "dots-test.json").is_file()


@pytest.mark.slow
def test_a_resumed_run_keeps_its_best_score(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a learning rate of 0 the first epoch stays the best, also after a resume."""
    options = ["optimizer.lr=0", "trainer.max_epochs=4", "monitor=val/AP"]
    stopped = interrupted(config(*options), monkeypatch, epoch=2, batch=1)
    resumed = train(config(*options, f"resume={stopped.name}"))
    assert resumed
    kept = resumed.folder / "checkpoints"
    assert torch.load(kept / "best.ckpt", weights_only=True)["epoch"] == 0
    assert torch.load(kept / "last.ckpt", weights_only=True)["epoch"] == 3
    # a run with no epoch left is predicted and scored
    again = train(config(*options, f"resume={resumed.name}"))
    assert again
    assert same(weights(again), weights(resumed))
    assert (again.folder / "scores" / "dots-test.json").is_file()


def test_ctrl_c_in_the_first_epoch_leaves_a_checkpoint(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run can predict with it."""
    from kplab.tasks.inference.predict import predict_split

    stopped = interrupted(config(), monkeypatch, epoch=0, batch=1)
    assert predict_split(stopped, "test").is_file()


def test_resume_refuses_another_config(config: Config, finished: Finished) -> None:
    """A run is resumed with the config that it began with."""
    run = finished("trainer.max_epochs=1", "test_on=[]")
    with pytest.raises(RunError, match="batch_size is 4 in that run and 2 in this command"):
        train(config("batch_size=2", f"resume={run.name}"))
    for change in ("ema=0.5", "window=[32,32]", "monitor=val/AP"):
        with pytest.raises(RunError, match=f"{change.split('=')[0]} is .* in that run and "):
            train(config(change, f"resume={run.name}"))
    (run.folder / "checkpoints" / "last.ckpt").write_bytes(b"broken")
    with pytest.raises(RunError, match=r"damaged.*best\.ckpt is complete"):
        train(config(f"resume={run.name}"))
    (run.folder / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(RunError, match=r"no checkpoints/last\.ckpt"):
        train(config(f"resume={run.name}"))


def test_too_little_disk_space_is_refused_before_training(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message gives the space needed and the space that is free."""
    usage = type("Usage", (), {"free": 10_000})()
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ConfigError, match="MiB are needed for checkpoints"):
        train(config())
    assert newest(config()).status == "failed"


def test_a_disk_that_fills_up_closes_the_record(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second checkpoint cannot be written: the record gives the error, and the first can still be read."""
    plain = torch.save
    calls = []

    def full(content: Any, stream: Any) -> None:
        calls.append(stream.name)
        if len(calls) > 2:
            stream.write(b"some of it")
            raise OSError(errno.ENOSPC, "No space left on device", stream.name)
        plain(content, stream)

    monkeypatch.setattr(checkpoints.torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        train(config("trainer.max_epochs=3"))
    run = newest(config())
    assert run.status == "failed"
    assert run.error is not None
    assert "no space left" in run.error
    assert weights(run)
    assert sorted(p.name for p in (run.folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_finished_run_is_used_again(config: Config, finished: Finished) -> None:
    """Same config: same run. Another config: a new run."""
    one = finished("trainer.max_epochs=1")
    assert trained(config("trainer.max_epochs=1")).folder == one.folder
    assert trained(config("trainer.max_epochs=1", "seed=5")).folder != one.folder


def test_early_stopping_and_best(config: Config) -> None:
    """Training ends when nothing gets better; the best checkpoint is not the last one."""
    run = train(config("optimizer.lr=1e-9", "optimizer.warmup=0", "trainer.max_epochs=30", "patience=2", "ema=null"))
    assert run is not None
    assert run.record["epochs"] < 30


def test_predictions_read_back_as_they_were_written(finished: Finished) -> None:
    """The half-pixel conversion and missing points survive writing and reading."""
    run = finished("trainer.max_epochs=1")
    labels = read_split(OmegaConf.load(run.folder / "config.yaml").dataset, "test")
    path = run.folder / "predictions" / "dots-test.json"
    found = Predictions.read(path, labels.skeleton)
    assert set(found.poses) == {int(i) for i in labels.image_id}
    first = found.poses[int(labels.image_id[0])]
    first.xy[0, 1], first.visible[0, 1], first.keypoint_score[0, 1] = np.nan, 0, 0.0
    again = Predictions.read(found.write(path.with_name("again.json")), labels.skeleton).poses[int(labels.image_id[0])]
    np.testing.assert_allclose(again.xy, first.xy, atol=1e-6)
    assert (again.visible == first.visible).all()


def command(*args: str) -> list[str]:
    """kplab in a process of its own."""
    return [sys.executable, "-m", "kplab.cli", *args]


@pytest.mark.slow
def test_one_crashed_job_does_not_stop_a_sweep(
    overrides: list[str], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The first of two diverges; the other finishes, and the sweep reports which failed."""
    with pytest.raises(ConfigError, match=r"these runs failed:\n.*optimizer.lr=1e.?30"):
        sweep([*overrides, "optimizer.lr=1e30,1e-3", "trainer.max_epochs=4", "test_on=[]"])
    assert "1 of 2 runs finished" in capfd.readouterr().out
    statuses = sorted(Run.open(p).status for p in (tmp_path / "runs").iterdir())
    assert statuses == ["failed", "finished"]
    errors = [Run.open(p).error for p in (tmp_path / "runs").iterdir() if Run.open(p).status == "failed"]
    assert "not finite" in str(errors[0])


@pytest.mark.slow
def test_two_processes_train_together(overrides: list[str], tmp_path: Path) -> None:
    """ddp_cpu: one record, one set of files, and validation counts every image once."""
    done = subprocess.run(
        command("train", *overrides, "trainer=ddp_cpu"), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (run,) = [Run.open(p) for p in (tmp_path / "runs").iterdir()]
    assert run.status == "finished"
    assert run.record["processes"] == 2
    assert run.record["steps"] == 2  # 8 images, 2 processes of 4, 2 epochs
    assert (run.folder / "scores" / "dots-test.json").is_file()


@pytest.mark.slow
def test_sigint_of_the_real_command(overrides: list[str], tmp_path: Path) -> None:
    """A user's Ctrl-C: exit status 130, one line, record closed."""
    args = command("train", *overrides, "trainer.max_epochs=2000", "validate_every=2000")
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})
    try:
        deadline = time.time() + 120
        while time.time() < deadline and not list(tmp_path.glob("runs/*/checkpoints/last.ckpt")):
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err[-2000:]
    assert "stopped by Ctrl-C" in err
    (run,) = [Run.open(p) for p in (tmp_path / "runs").iterdir()]
    assert (run.status, run.error, run.cut) == ("stopped", None, "stopped by Ctrl-C")


def test_the_progress_bar_fits_80_columns_and_counts_epochs_from_1(config: Config) -> None:
    """With the time left of the whole training; lines of epochs are printed above it."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80, legacy_windows=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "progress", lambda: callbacks.Bar(every=0, console=console))
        assert train(config("test_on=[]")) is not None
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())  # type: ignore[attr-defined]
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert max(map(len, lines)) <= 80
    assert any(re.search(r"^epoch 1/2 +loss \S+ +.* left .*2/2$", line) for line in lines), lines
    assert any(line.startswith("epoch 2/2") for line in lines)
    assert not any("epoch 0" in line for line in lines)


def test_lines_of_a_training(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Signs of life within an epoch, epochs from 1, at most 80 columns, and the values of a validation once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "progress", lambda: callbacks.Lines(every=0))
        run = train(config("test_on=[]", "trainer.max_epochs=4", "validate_every=2"))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert lines[0].startswith("epoch 1/4  step 1/2  loss ")
    assert max(map(len, lines)) <= 80
    ends = [line for line in lines if " step " not in line]
    assert [line.split()[1] for line in ends] == ["1/4", "2/4", "3/4", "4/4"]
    assert ["val/AP" in line for line in ends] == [False, True, False, True]
    assert run is not None
    assert (run.folder / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_wandb_is_silent(config: Config, tmp_path: Path) -> None:
    """Nothing is printed for a run that is logged offline; in a process of its own, as wandb prints when it ends too."""
    script = (
        "import sys; from omegaconf import OmegaConf; from pathlib import Path\n"
        "from kplab.tasks.wiring.training import build_loggers\n"
        "(logger,) = build_loggers(OmegaConf.load(sys.argv[1]), Path(sys.argv[2]), 'tiny')\n"
        "logger.log_metrics({'loss': 1.0}, step=1); logger.finalize('success')\n"
    )
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(config("logger=wandb_offline")))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "config.yaml"), str(tmp_path)]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=300, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def test_a_training_without_validation_keeps_its_last_checkpoint(config: Config, tmp_path: Path) -> None:
    """No validation split, and fewer epochs than `validate_every`: the last weights are kept, and scored."""
    split = [
        f"dataset.split.manifest={tmp_path}/two.json",
        "~dataset.split.fractions.val",
        "dataset.split.fractions.train=0.75",
    ]
    run = train(config(*split, "validate_every=7"))
    assert run is not None
    assert (run.folder / "checkpoints" / "last.ckpt").is_file()
    assert (run.folder / "scores" / "dots-test.json").is_file()
