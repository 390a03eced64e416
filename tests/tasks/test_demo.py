"""The demo: two trainings that differ in one option, their comparison, and pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from kplab.cli import main
from kplab.config import plain
from kplab.errors import RunError
from kplab.tasks import compose, demo
from kplab.tasks.training.together import train_together


def test_the_two_trainings_differ_in_one_option() -> None:
    """In nothing but the option that the comparison is about."""
    one, other = (
        plain(compose("train", ["experiment=heatmap_demo", f"{demo.DIFFERENCE}={choice}"])) for choice in demo.CHOICES
    )
    assert {key for key in one if one[key] != other[key]} == {demo.DIFFERENCE}


@pytest.mark.slow
def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a few images and for one epoch; the pictures are beside the runs, and a second demo trains nothing."""
    short = ["trainer.max_epochs=1", "dataset.images=24", "workers=0", "trainer=cpu", "trainer.precision=32-true"]
    quoted = ",".join(f"'{override}'" for override in [*short, f"dataset.folder={tmp_path}/data"])
    command = ["demo", f"runs_dir={tmp_path}/runs", f"overrides=[{quoted}]"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "=== comparison" in printed
    for choice in demo.CHOICES:
        name = f"demo_{demo.DIFFERENCE}-{choice}"
        assert (tmp_path / "demo" / f"{name}-typical.png").is_file()
        assert name in printed.partition("=== comparison")[2]
    assert list((tmp_path / "demo" / "comparison").glob("*.png"))
    runs = sorted((tmp_path / "runs").iterdir())
    assert main(command) == 0
    assert sorted((tmp_path / "runs").iterdir()) == runs


@pytest.mark.slow
def test_a_training_that_fails_is_named_after_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match=r"trainings failed.*: b \(exit status 2\)\.$"):
        train_together({"b": ["experiment=none_of_them"]})
    assert "b | kplab train: " in capsys.readouterr().out
