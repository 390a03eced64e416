"""The benchmark trains what is missing, resumes what was stopped, and skips what is finished."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from kplab import cli
from kplab.errors import ConfigError
from kplab.tasks import compose
from kplab.tasks.benchmark import main
from kplab.tasks.evaluation import benchmarks
from kplab.tasks.evaluation.benchmarks import overrides_of


@pytest.fixture
def command(overrides: list[str], tmp_path: Path) -> list[str]:
    """Two families on a tiny dataset that no family has an experiment for."""
    keep = [o for o in overrides if o.startswith(("hydra.", "size", "batch", "workers", "logger", "trainer"))]
    shorter = [*keep, "optimizer.lr=1e-3", "neck.channels=16", "validate_every=1"]
    return [
        "data=dots", "families=[centernet,yolo]", f"runs_dir={tmp_path}/runs", f"out={tmp_path}/table",
        f"overrides={json.dumps(shorter)}",
    ]  # fmt: skip


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the command of each training in this process, which has torch loaded already."""

    def run(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert arguments[:3] == [sys.executable, "-m", "kplab.cli"]
        assert options == {"check": False}
        return subprocess.CompletedProcess(arguments, cli.main(arguments[3:]))

    monkeypatch.setattr(benchmarks, "subprocess", SimpleNamespace(run=run))


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_finished_trainings_are_not_repeated(
    command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main(command)
    table = pd.read_csv(tmp_path / "table" / "table.csv")
    assert table["family"].tolist() == ["centernet", "yolo"]
    for family, run in zip(table["family"], table["run"], strict=True):
        scores = json.loads((tmp_path / "runs" / run / "scores" / "dots-test.json").read_text())["summary"]
        row = table[table["family"] == family].iloc[0]
        assert float(row["AP"].split()[0]) == pytest.approx(scores["AP"], abs=6e-4)
        assert row["found"] + row["missed"] == 4
    assert "| centernet |" in (tmp_path / "table" / "table.md").read_text()
    before = sorted(p.name for p in (tmp_path / "runs").iterdir())
    # one of them is stopped in its last epoch
    stopped = tmp_path / "runs" / str(table["run"][1]) / "run.json"
    record = json.loads(stopped.read_text())
    stopped.write_text(json.dumps({**record, "status": "failed", "error": "stopped"}))
    capfd.readouterr()
    main(command)
    said = capfd.readouterr().out
    assert f"1/2 centernet: done already, {table['run'][0]}" in said
    assert f"resume={stopped.parent}" in said
    added = sorted({p.name for p in (tmp_path / "runs").iterdir()} - set(before))
    assert len(added) == 1
    assert json.loads((tmp_path / "runs" / added[0] / "run.json").read_text())["parent"] == stopped.parent.name
    main(command)
    assert f"2/2 yolo: done already, {added[0]}" in capfd.readouterr().out


def test_unknown_families_are_refused_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"family .yollo. has neither .* yolo"):
        main(["data=flies", "families=[openpose,yollo]", f"runs_dir={tmp_path}"])
    assert not list(tmp_path.iterdir())


def test_the_experiment_of_a_dataset_takes_precedence() -> None:
    config = compose("benchmark", ["data=flies", "runs_dir=r"])
    assert overrides_of("yolo", config)[0] == "experiment=yolo_flies"
    config = compose("benchmark", ["data=lsp", "runs_dir=r"])
    assert overrides_of("yolo", config)[:2] == ["experiment=yolo_synthetic", "dataset=lsp"]
    assert overrides_of("simcc", config)[0] == "experiment=simcc_lsp"
