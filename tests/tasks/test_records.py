"""Files of a run are checked against their records before they are read, and every output reads the table of metrics."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf

from kplab.cli import main
from kplab.errors import RunError, ScoreError
from kplab.metrics import metric as table
from kplab.metrics.metric import Evidence, Metric
from kplab.metrics.score import Scores
from kplab.runs.provenance import file_sha256
from kplab.runs.records import read_record
from kplab.runs.run import Run
from kplab.tasks.evaluation.benchmarks import write
from kplab.tasks.evaluation.pictures import see_predictions
from kplab.tasks.training.train import train

Config = Callable[..., DictConfig]
EXEMPLAR = ["model=exemplar", "flip_test=false", "model.max_poses=1"]


def test_changed_files_are_refused(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Predictions by `evaluate`, scores by `compare`, `runs` and pictures; another system's file needs no record."""
    run = train(config(*EXEMPLAR))
    assert run is not None
    runs = f"runs_dir={tmp_path}/runs"
    predictions, scores = (run.folder / kind / "dots-test.json" for kind in ("predictions", "scores"))
    record = read_record(predictions)
    assert set(record["sha256"]) == {"dots-test.json", "dots-test.card.json"}
    checkpoint = run.folder / "checkpoints" / "last.ckpt"
    assert record["made_from"]["checkpoint"] == {"file": "last.ckpt", "sha256": file_sha256(checkpoint)}
    assert record["made_from"]["config"]["sha256"] == file_sha256(run.folder / "config.yaml")
    made_from = read_record(scores)["made_from"]
    assert made_from["predictions"]["sha256"] == file_sha256(predictions)
    assert made_from["truth"]["sha256"] == json.loads(scores.read_text())["card"]["truth_hash"]
    assert len(read_record(scores)["sha256"]) == 5
    assert not list(run.folder.rglob("record.json"))

    # a second run with the same scores, so that there is something to compare
    other = tmp_path / "runs" / "2000_other"
    shutil.copytree(run.folder, other)
    compare = ["compare", f"runs=[{run.folder},{other}]", "resamples=20", f"out={tmp_path}/compared"]
    assert main(compare) == 0
    files = read_record(tmp_path / "compared" / "comparison.json")["sha256"]
    assert {"comparison.json", "comparison.values.csv", "intervals.png"} <= set(files)

    scores.write_bytes(scores.read_bytes().replace(b'"AP"', b'"ap"'))
    capsys.readouterr()
    assert main(compare) == 2
    assert f"{scores}: has changed since it was written" in capsys.readouterr().err
    assert main(["runs", runs]) == 0
    assert "dots-test.json: has changed since" in capsys.readouterr().out
    with pytest.raises(RunError, match=r"dots-test\.json: has changed since"):
        see_predictions(run, "test", tmp_path / "pictures", 1)
    assert main(["evaluate", f"run={run.folder}", "split=test", "pictures=1"]) == 0, "scores anew"
    assert main(compare) == 0

    predictions.write_bytes(predictions.read_bytes() + b" ")
    capsys.readouterr()
    assert main(["evaluate", f"run={run.folder}", "split=test"]) == 2
    assert f"{predictions}: has changed since it was written" in capsys.readouterr().err
    theirs = tmp_path / "theirs.json"
    theirs.write_bytes(predictions.read_bytes())
    evaluate = ["evaluate", f"predictions={theirs}", f"hydra.searchpath=[file://{tmp_path}/conf]", "dataset=dots"]
    assert main([*evaluate, "split=test"]) == 0
    written = tmp_path / "theirs.scores.json"
    assert read_record(written)["made_from"]["predictions"] == {"file": "theirs.json", "sha256": file_sha256(theirs)}
    assert Scores.read(written).card["predictions_hash"] == file_sha256(theirs)
    # a card that is not of this file
    theirs.with_suffix(".card.json").write_bytes(predictions.with_suffix(".card.json").read_bytes())
    capsys.readouterr()
    assert main([*evaluate, "split=test"]) == 2
    assert f"{theirs}: is not the file that its card describes" in capsys.readouterr().err


def test_tables_of_two_evaluations_of_a_run_are_not_mixed(config: Config) -> None:
    run = train(config(*EXEMPLAR, "test_on=[val,test]"))
    assert run is not None
    scores = run.folder / "scores"
    shutil.copy(scores / "dots-val.keypoints.parquet", scores / "dots-test.keypoints.parquet")
    with pytest.raises(ScoreError, match=r"dots-test.keypoints.parquet is of evaluation \w+, but dots-test.json of"):
        Scores.read(scores / "dots-test.json")


def p90(evidence: Evidence) -> float:
    """The 90th percentile of pixel errors."""
    return float(np.nanpercentile(evidence["error_px"], 90))


def test_an_added_metric_is_a_monitor_and_a_column_of_a_benchmark(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row and one function; scores and comparisons: tests/metrics/test_metric.py."""
    row = Metric("p90_px", "p90 px", 1, False, "keypoint", p90)
    monkeypatch.setattr(table, "METRICS", (*table.METRICS, row))
    run = train(config("monitor=val/p90_px", "patience=2", "optimizer.lr=0"))
    assert run is not None
    logged = pd.read_csv(run.folder / "curves.csv")["val/p90_px"].dropna()
    assert len(logged) == 2
    assert (run.folder / "checkpoints" / "best.ckpt").is_file()
    assert "p90_px" in capsys.readouterr().out
    options = {"out": f"{tmp_path}/table", "runs_dir": f"{tmp_path}/runs", "data": "dots", "split": "test"}
    write({"heatmap": run}, OmegaConf.create(options))
    summary = json.loads((run.folder / "scores" / "dots-test.json").read_text())["summary"]
    line = pd.read_csv(tmp_path / "table" / "table.csv").iloc[0]
    assert line["p90_px"].startswith(f"{summary['p90_px']:.1f} [")
    assert set(read_record(tmp_path / "table" / "table.md")["made_from"]) == {"comparison"}
    capsys.readouterr()
    assert main(["runs", f"runs_dir={tmp_path}/runs"]) == 0
    shown = capsys.readouterr().out
    assert "p90 px" in shown
    assert f"{summary['p90_px']:.1f}" in shown


@pytest.mark.slow
def test_resume_alone_goes_on_with_the_config_of_the_run(config: Config, tmp_path: Path) -> None:
    """Longer than the run was; and what would make it another training is refused before anything is written."""
    begun = train(config("trainer.max_epochs=1", "test_on=[]", "seed=3"))
    assert begun is not None
    resume = ["train", f"resume={begun.name}", f"runs_dir={tmp_path}/runs"]
    assert main([*resume, "seed=4"]) == 2
    assert len(list((tmp_path / "runs").iterdir())) == 1
    assert main([*resume, "trainer.max_epochs=3", "test_on=[test]"]) == 0
    (resumed,) = [run for p in (tmp_path / "runs").iterdir() if (run := Run.open(p)).name != begun.name]
    assert (resumed.record["parent"], resumed.record["epochs"], resumed.record["seed"]) == (begun.name, 3, 3)
    assert (resumed.folder / "scores" / "dots-test.json").is_file()
    assert resumed.record["changed_on_resume"] == ["trainer.max_epochs"]
