"""What is loaded, scored, compared and drawn is what its records and cards describe."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import DictConfig

import kplab
from kplab.cli import main
from kplab.errors import DataError, RunError, ScoreError
from kplab.runs.provenance import file_sha256
from kplab.runs.records import read_record, record_path
from kplab.runs.run import Run
from kplab.runs.table import row
from kplab.structures.predictions import Predictions, card_path
from kplab.tasks.evaluation.files import read_curves
from kplab.tasks.evaluation.pictures import see_predictions
from kplab.tasks.inference.assembly import files_of
from kplab.tasks.training.curves import draw_curves
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


def test_a_checkpoint_that_was_replaced_is_refused(
    run: Run, finished: Finished, config: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    """By prediction, by the Python interface, as a detector, and to resume from; unless it is named as a file."""
    path = run.folder / "checkpoints" / "last.ckpt"
    assert run.record["checkpoints"] == {"last.ckpt": file_sha256(path)}
    shutil.copy(finished(*EXEMPLAR, "seed=7").folder / "checkpoints" / "last.ckpt", path)
    path.write_bytes(path.read_bytes() + b" ")
    predict = ["predict", f"run={run.folder}", "split=test"]
    for more in ([], ["checkpoint=last"]):
        assert main([*predict, *more]) == 2
        assert f"{path}: is not the file that the training of {run.name} wrote" in capsys.readouterr().err
    with pytest.raises(RunError, match="is not the file that the training"):
        _ = kplab.load(run).model
    detected = finished(*EXEMPLAR, "regions=detected", f"detector_run={run.folder}")
    assert main(["predict", f"run={detected.folder}", f"source={run.folder.parents[1]}/dots/images"]) == 2
    assert "is not the file that the training" in capsys.readouterr().err
    assert main(["train", f"resume={run.folder}"]) == 2
    assert "is not the file that the training" in capsys.readouterr().err
    assert main([*predict, f"checkpoint={path}"]) == 0


def test_the_last_checkpoint_takes_no_best_ones_place_unasked(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished("trainer.max_epochs=2")
    assert set(run.record["checkpoints"]) == {"best.ckpt", "last.ckpt"}
    (run.folder / "checkpoints" / "best.ckpt").unlink()
    assert main(["predict", f"run={run.folder}", "split=test"]) == 2
    assert "best.ckpt is missing" in capsys.readouterr().err
    assert main(["predict", f"run={run.folder}", "split=test", "checkpoint=last"]) == 0


def test_scores_of_earlier_predictions_are_not_compared_or_shown(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until they are evaluated; the same predictions made again are no change."""
    one, two = finished("trainer.max_epochs=2"), finished(*EXEMPLAR)
    compare = ["compare", f"runs=[{one.folder},{two.folder}]", "split=test", "resamples=20", "force=true"]
    assert main(["predict", f"run={one.folder}", "split=test"]) == 0
    assert main(compare) == 0
    assert row(one.folder)["scores"].keys() == {"dots-test"}
    assert main(["predict", f"run={one.folder}", "split=test", "flip_test=false"]) == 0
    capsys.readouterr()
    assert main(compare) == 2
    remedy = f"kplab evaluate run={one.name} split=test"
    assert f"the scores are outdated: predictions/dots-test.json is another file than was scored. Run: {remedy}\n" in (
        capsys.readouterr().err
    )
    with pytest.raises(RunError, match="outdated"):
        kplab.compare([one, two], "test", force=True)
    shown = row(one.folder)
    assert (shown["scores"], shown["error"]) == ({}, None)
    assert main(["runs", f"runs_dir={one.folder.parent}"]) == 0
    assert f"{one.name}: scores dots-test are outdated: " in capsys.readouterr().out
    assert main(["evaluate", f"run={one.folder}", "split=test"]) == 0
    assert main(compare) == 0
    assert row(one.folder)["scores"].keys() == {"dots-test"}
    # scores without their predictions stay: they hold all that a comparison needs
    (one.folder / "predictions" / "dots-test.json").unlink()
    assert main(compare) == 0


def test_epochs_of_curves_are_counted_from_1_also_those_of_older_runs(finished: Finished) -> None:
    """An older kplab counted from 0 in the file, which its record does not state."""
    run = finished("trainer.max_epochs=2")
    path = run.folder / "curves.csv"
    new = pd.read_csv(path)
    assert sorted(set(new["epoch"])) == [1, 2]
    curves = kplab.load(run).curves()
    pd.testing.assert_frame_equal(curves, new)
    new.assign(epoch=new["epoch"] - 1).to_csv(path, index=False)
    del run.record["curves_counted_from"]
    run.save()
    pd.testing.assert_frame_equal(kplab.load(run).curves(), curves)
    assert draw_curves(run) is not None
    path.write_text("epoch,train/loss\nmany,1\n")
    with pytest.raises(RunError, match=r"curves\.csv: can't be read as curves"):
        read_curves(run)


def test_a_run_of_an_older_kplab_works_with_every_verb(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    """Its record lacks the hashes of data and checkpoints."""
    run, other = finished("trainer.max_epochs=2"), finished(*EXEMPLAR)
    record = json.loads((run.folder / "run.json").read_text())
    for key in ("checkpoints", "data_sha256", "curves_counted_from", "detections", "cut"):
        record.pop(key)
    (run.folder / "run.json").write_text(json.dumps(record))
    (run.folder / "data.json").unlink()
    assert kplab.load(str(run.folder)).model.max_poses == 1
    assert main(["predict", f"run={run.folder}", "split=test"]) == 0
    assert main(["evaluate", f"run={run.folder}"]) == 0
    assert main(["compare", f"runs=[{run.folder},{other.folder}]", "resamples=20", "force=true"]) == 0
    assert main(["runs", f"runs_dir={run.folder.parent}"]) == 0
    assert run.name in capsys.readouterr().out
