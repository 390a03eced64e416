"""What is scored, compared and drawn is what its records and cards describe."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

import kplab
from kplab.cli import main
from kplab.errors import DataError, RunError, ScoreError
from kplab.runs.provenance import file_sha256
from kplab.runs.records import read_record, record_path
from kplab.runs.run import Run
from kplab.structures.predictions import Predictions, card_path
from kplab.tasks.evaluation.pictures import see_predictions
from kplab.tasks.inference.assembly import files_of
from kplab.tasks.wiring.datasets import read_split
from kplab.tasks.wiring.nodes import load_config

Finished = Callable[..., Run]
EXEMPLAR = ("model=exemplar", "flip_test=false", "model.max_poses=1")
BOTH = (*EXEMPLAR, "test_on=[val,test]")


@pytest.fixture
def run(finished: Finished) -> Run:
    """A finished run of an exemplar with predictions and scores of two splits, which takes no training."""
    return finished(*BOTH)


def put_truth(path: Path, run: Run) -> None:
    """Write the truth in place of predictions, and leave the card and the record as they are."""
    labels = read_split(load_config(run).dataset, "test")
    truth = {i: poses for i, poses in labels.by_image().items()}
    kept = {p: p.read_bytes() for p in (card_path(path), record_path(path)) if p.exists()}
    Predictions(labels.skeleton, truth, {}, files_of(labels)).write(path)
    for place, content in kept.items():
        place.write_bytes(content)


def test_truth_in_place_of_predictions_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """By the verb, by the Python interface, and by pictures; without a record the card still refuses it."""
    path = run.folder / "predictions" / "dots-test.json"
    put_truth(path, run)
    loaded = kplab.load(run)
    evaluate = ["evaluate", f"run={run.folder}", "split=test"]
    assert main(evaluate) == 2
    assert f"{path}: has changed since it was written" in capsys.readouterr().err
    for use in (
        lambda: kplab.evaluate(path, loaded, "test"),
        lambda: loaded.predictions("test"),
        lambda: see_predictions(run, "test", run.folder / "pictures", 1),
    ):
        with pytest.raises(RunError, match="has changed since it was written"):
            use()
    record_path(path).unlink()
    assert main(evaluate) == 2
    assert f"{path}: has no record" in capsys.readouterr().err
    with pytest.raises(RunError, match="has no record"):
        loaded.predictions("test")
    with pytest.raises(DataError, match="is not the file that its card describes"):
        kplab.evaluate(path, loaded, "test")
    card_path(path).unlink()
    assert kplab.evaluate(path, loaded, "test").summary["AP"] == 1, "another system's file has neither record nor card"


def test_a_card_of_other_predictions_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run.folder / "predictions"
    shutil.copy(folder / "dots-val.card.json", folder / "dots-test.card.json")
    assert main(["evaluate", f"run={run.folder}", "split=test"]) == 2
    assert "dots-test.card.json: has changed since" in capsys.readouterr().err
    for name in ("dots-test.json", "dots-val.card.json"):
        shutil.copy(folder / name, run.folder / name.replace("val", "test"))
    with pytest.raises(DataError, match="is not the file that its card describes"):
        kplab.evaluate(run.folder / "dots-test.json", kplab.load(run), "test")


def test_the_record_of_another_file_is_refused(run: Run) -> None:
    """It would vouch for a file that still exists, not for the one that is read."""
    for kind, ending in (("predictions", ".card.json"), ("scores", ".json")):
        folder = run.folder / kind
        shutil.copy(record_path(folder / "dots-val.json"), record_path(folder / "dots-test.json"))
        assert (folder / f"dots-val{ending}").is_file()
        with pytest.raises(RunError, match=r"is not the record of dots-test.json, but of .*dots-val"):
            read_record(folder / "dots-test.json")


@pytest.mark.parametrize("table", ["instances.parquet", "keypoints.parquet", "images.csv", "matches.npz", "json"])
def test_tables_of_another_evaluation_are_refused(run: Run, table: str) -> None:
    """Also where a record was written anew for the mixture, which then has the hashes of its files."""
    folder = run.folder / "scores"
    path = folder / "dots-test.json"
    mixed = folder / f"dots-test.{table}"
    mixed = path if table == "json" else mixed
    shutil.copy(folder / mixed.name.replace("test", "val"), mixed)
    with pytest.raises(RunError, match=f"{mixed.name}: has changed since"):
        kplab.load(run).scores("test")
    record = json.loads(record_path(path).read_text())
    record["sha256"][mixed.name] = file_sha256(mixed)
    record_path(path).write_text(json.dumps(record))
    with pytest.raises(ScoreError, match="of evaluation"):
        kplab.load(run).scores("test")


def test_pictures_need_scores_of_the_same_predictions(run: Run) -> None:
    """Their captions are errors of the drawn poses."""
    folder, out = run.folder / "scores", run.folder / "pictures"
    assert len(see_predictions(run, "test", out, 1)) == 2
    for path in folder.glob("dots-val*"):
        content = path.read_bytes().replace(b"dots-val", b"dots-test")
        (folder / path.name.replace("val", "test")).write_bytes(content)
    assert kplab.load(run).scores("test").card["split"] == "val"
    with pytest.raises(RunError, match=r"the scores are of other predictions. Run: kplab evaluate"):
        see_predictions(run, "test", out, 1)


def test_predictions_of_another_run_are_refused(
    run: Run, finished: Finished, config: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    """A run whose folder was renamed keeps its predictions."""
    renamed = Run.open(run.folder.rename(run.folder.with_name("2000_renamed")))
    assert main(["evaluate", f"run={renamed.folder}", "split=test"]) == 0
    other = finished(*EXEMPLAR, "seed=7")
    for path in (renamed.folder / "predictions").glob("dots-test.*"):
        shutil.copy(path, other.folder / "predictions" / path.name)
    capsys.readouterr()
    assert main(["evaluate", f"run={other.folder}", "split=test"]) == 2
    assert f"was made by run {run.name}, which has another config" in capsys.readouterr().err
