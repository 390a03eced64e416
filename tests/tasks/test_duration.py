"""Trainings of a given duration, with a clock of the test: their length, and that they equal a training of that length."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from kplab.cli import main
from kplab.errors import ConfigError, RunError
from kplab.models.weights import read_checkpoint
from kplab.runs.run import Run
from kplab.tasks.training import callbacks, duration
from kplab.tasks.training.optimize import adamw_trapezoid
from kplab.tasks.training.train import train

Config = Callable[..., DictConfig]
Clock = Callable[..., None]
OPTIONS = ["optimizer=adamw_trapezoid", "optimizer.warmup=2", "trainer.max_epochs=4", "duration=10"]


def test_trapezoid_rises_stays_and_falls() -> None:
    optimizer, schedule = adamw_trapezoid(nn.Linear(2, 2), 100, lr=0.1, warmup=4, falling=0.4, final=0.01)
    seen = []
    for _ in range(101):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert seen[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1], abs=1e-12)
    assert seen[4:61] == pytest.approx([0.1] * 57, abs=1e-12)
    assert [seen[61], seen[80], seen[100]] == pytest.approx([0.1 * 0.97525, 0.1 * 0.505, 0.001], abs=1e-12)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return read_checkpoint(run.folder / "checkpoints" / "last.ckpt")["state_dict"]


def equal(one: Run, other: Run) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Stop(pl.Callback):
    """Ends a training after some epochs, as Ctrl-C does."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Stop."""
        if trainer.current_epoch == self.epochs:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("seconds", "epochs"),
    [
        ([1.0], 10),  # faster than estimated
        ([5.0], 2),  # slower
        ([1.0, 1.0, 2.0], 6),  # 10, 10, and then 6
        ([1.0] * 6 + [0.1], 10),  # what happens while it falls does not change it
        ([100.0], 2),  # the first epoch has the full learning rate
    ],
)
def test_a_training_takes_its_duration_and_equals_one_of_that_length(
    seconds: list[float], epochs: int, config: Config, clock: Clock
) -> None:
    clock(seconds)
    run = train(config(*OPTIONS))
    assert run is not None
    assert (run.record["epochs"], run.record["schedule_epochs"], run.cut) == (epochs, epochs, None)
    fixed = train(config(*OPTIONS, "duration=null", f"trainer.max_epochs={epochs}"))
    assert fixed is not None
    assert equal(run, fixed)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 5])
def test_it_is_resumed_and_reproduced_to_the_bit(
    stop: int, config: Config, clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped while the number of epochs is open, and while the learning rate falls; time of the first part counts."""
    clock([1.0, 1.0, 2.0])
    whole = train(config(*OPTIONS))
    assert whole is not None
    clock([1.0, 1.0, 2.0])
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "progress", lambda: Stop(stop))
        with pytest.raises(KeyboardInterrupt):
            train(config(*OPTIONS))
    (stopped,) = {path.name for path in whole.folder.parent.glob("*_*")} - {whole.name}
    clock([1.0, 1.0, 2.0][stop:] or [2.0])
    resumed = train(config(*OPTIONS, f"resume={stopped}"))
    assert resumed is not None
    assert resumed.record["epochs"] == whole.record["epochs"] == 6
    assert equal(whole, resumed)
    # at any speed
    clock([0.01])
    assert main(["reproduce", f"run={resumed.folder}"]) == 0
    (path,) = whole.folder.parent.glob("*/reproduction.json")
    assert json.loads(path.read_text())["verdict"] == "identical"
    assert "verdict: identical, to the bit" in capsys.readouterr().out


@pytest.mark.slow
def test_a_training_of_a_duration_can_be_extended_by_epochs_only(config: Config, clock: Clock) -> None:
    """An extension that would have no effect is refused, and an extended run has another schedule than its config states."""
    clock([5.0])
    run = train(config(*OPTIONS))
    assert run is not None
    for change in ("trainer.max_epochs=6", "duration=60"):
        with pytest.raises(RunError, match=r"give duration=null trainer\.max_epochs=NUMBER"):
            train(config(*OPTIONS, f"resume={run.name}", change))
    longer = train(config(*OPTIONS, f"resume={run.name}", "duration=null", "trainer.max_epochs=4"))
    assert longer is not None
    assert longer.record["epochs"] == 4
    assert set(longer.record["changed_on_resume"]) == {"duration"}


def test_a_record_without_the_number_of_epochs_can_not_be_repeated(config: Config) -> None:
    made = config(*OPTIONS)
    duration.repeated(made, {"schedule_epochs": 7})
    assert (made.duration, made.trainer.max_epochs) == (None, 7)
    for record in ({}, {"schedule_epochs": "7"}, {"schedule_epochs": 0}):
        with pytest.raises(RunError, match="schedule_epochs"):
            duration.repeated(config(*OPTIONS), record)


@pytest.mark.parametrize(
    ("every", "validation", "epochs"),
    [
        (3, 0.0, 10),  # validated: 3, 6, 9, 10
        (4, 1.0, 8),  # 8 + 2 * 1 = 10 seconds
        (1, 1.0, 5),
        (2, 2.0, 5),  # 2, 4, 5: 11 seconds; four epochs take 8
    ],
)
def test_validations_count_and_the_last_epoch_has_one(
    every: int, validation: float, epochs: int, config: Config, clock: Clock
) -> None:
    clock([1.0], validation)
    run = train(config(*OPTIONS, f"validate_every={every}"))
    assert run is not None
    assert run.record["epochs"] == epochs
    assert validated(run) == sorted({*range(every, epochs + 1, every), epochs})


def test_the_last_of_any_number_of_epochs_is_validated(config: Config) -> None:
    run = train(config("trainer.max_epochs=5", "validate_every=2"))
    assert run is not None
    assert validated(run) == [2, 4, 5]


def test_without_a_monitor_the_last_weights_are_used(config: Config) -> None:
    """There are validations, but no best checkpoint; early stopping needs a metric."""
    run = train(config("monitor=null"))
    assert run is not None
    assert validated(run) == [1, 2]
    assert [p.name for p in (run.folder / "checkpoints").iterdir()] == ["last.ckpt"]
    assert (run.folder / "scores" / "dots-test.json").is_file()
    with pytest.raises(ConfigError, match=r"patience is 3, but monitor is null"):
        config("monitor=null", "patience=3")


def validated(run: Run) -> list[int]:
    """The epochs with a validation, from 1."""
    curves = pd.read_csv(run.folder / "curves.csv")
    return [int(e) for e in curves.epoch[curves["val/mean_px"].notna()]]


@pytest.mark.parametrize("options", [["optimizer=adamw_cosine"], ["optimizer.frozen_until={backbone: 0.3}"]])
def test_a_schedule_that_depends_on_the_length_is_refused(options: list[str], config: Config) -> None:
    """Before there is a run."""
    made = config(*OPTIONS, *options)
    with pytest.raises(ConfigError, match=r"optimizer=adamw_trapezoid"):
        train(made)
    assert not Path(made.runs_dir).exists()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["duration=0"], "duration is 0"),
        (["duration=soon"], "duration.*soon"),
        (["duration=10", "trainer.max_epochs=-1"], "a first estimate"),
        (["duration=10", "augment.mosaic=0.5"], "augment.mosaic_off=0"),
    ],
)
def test_faults_of_the_config_are_named(options: list[str], fault: str, config: Config) -> None:
    with pytest.raises(ConfigError, match=fault):
        config(*options)
