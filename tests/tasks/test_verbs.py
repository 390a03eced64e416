"""Predict, evaluate and compare meet in files only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig

from kplab.cli import main
from kplab.metrics.compare import CardMismatch
from kplab.metrics.score import Scores
from kplab.runs.run import Run
from kplab.structures.poses import Poses
from kplab.tasks.compare import compare_runs
from kplab.tasks.pictures import around, caption, ranked
from kplab.tasks.train import train

Config = Callable[..., DictConfig]


@pytest.fixture
def run(config: Config) -> Run:
    """A trained run."""
    made = train(config("trainer.max_epochs=12"))
    assert made is not None
    return made


def test_new_images_give_results_table_and_overlays(run: Run, dotted: Path, tmp_path: Path) -> None:
    """The same image, labelled or not, gives the same pose; the csv is in continuous pixels, the JSON in COCO's."""
    out = tmp_path / "out"
    assert main(["predict", f"run={run.folder}", f"images={dotted}/images/*.png", f"out={out}"]) == 0
    rows = json.loads((out / "predictions.json").read_text())
    table = pd.read_csv(out / "keypoints.csv")
    assert len(rows) == 16
    assert len(table) == 16 * 3
    first = table[table["file"] == "001.png"].sort_index()
    np.testing.assert_allclose(first["x"].to_numpy() - 0.5, np.array(rows[0]["keypoints"])[0::3], atol=1e-5)
    overlays = sorted((out / "overlays").glob("*.png"))
    assert len(overlays) == 16
    drawn, plain = cv2.imread(str(overlays[0])), cv2.imread(str(dotted / "images" / "001.png"))
    assert drawn.shape[0] >= plain.shape[0]
    labelled = json.loads((run.folder / "predictions" / "dots-test.json").read_text())
    card = json.loads((run.folder / "predictions" / "dots-test.card.json").read_text())
    by_name = {row["keypoints"][0] for row in rows}
    assert all(any(abs(row["keypoints"][0] - x) < 1e-3 for x in by_name) for row in labelled)
    assert card["boxes"] == "whole image"


def test_evaluating_again_gives_the_same_scores(run: Run) -> None:
    """Scores are a function of the files."""
    path = run.folder / "scores" / "dots-test.json"
    before = path.read_text()
    path.unlink()
    assert main(["evaluate", f"run={run.folder}"]) == 0
    assert json.loads(path.read_text())["summary"] == json.loads(before)["summary"]


def test_truth_as_predictions_is_perfect(dotted: Path, overrides: list[str], tmp_path: Path) -> None:
    """A COCO results file of any system can be scored; the truth itself has AP 1 and error 0."""
    document = json.loads((dotted / "annotations.json").read_text())
    results = [
        {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 1.0}
        for a in document["annotations"]
    ]
    search = overrides[0]
    from kplab.config import compose
    from kplab.tasks import build

    labels = build.one_split(compose("train", overrides).dataset, "test")
    ids = {int(i) for i in labels.image_id}
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps([r for r in results if r["image_id"] in ids]))
    assert main(["evaluate", search, f"predictions={path}", "dataset=dots", "split=test"]) == 0
    summary = json.loads((tmp_path / "theirs.scores.json").read_text())["summary"]
    assert summary["AP"] == 1.0
    assert summary["mean_px"] < 1e-6


def test_compare_and_its_refusal(config: Config, run: Run, tmp_path: Path) -> None:
    """Intervals and figures; scores of other conditions are refused by the line that differs, unless told to."""
    other = train(config("trainer.max_epochs=2", "name=other", "seed=1"))
    assert other is not None
    result, out = compare_runs([run, other], resamples=200)
    assert {"AP", "mean_px"} <= set(result.values["metric"])
    assert (out / "comparison.json").is_file()
    assert len(list(out.glob("*.png"))) >= 3
    difference = result.differences.set_index("metric").loc["mean_px"]
    assert difference["low"] <= difference["difference"] <= difference["high"]
    assert main(["evaluate", f"run={other.folder}", "settings.pck_thresholds=[3]"]) == 0
    with pytest.raises(CardMismatch, match="pck_thresholds"):
        compare_runs([run, other], resamples=50)


def test_compare_needs_no_data(config: Config, run: Run, dotted: Path) -> None:
    """Score files hold all that a comparison wants."""
    other = train(config("trainer.max_epochs=1", "name=other"))
    assert other is not None
    shutil.rmtree(dotted)
    compare_runs([run, other], resamples=50)


def test_runs_lists_them_newest_first(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Status and main scores; AP never without the pixel error."""
    assert main(["runs", f"runs={run.folder.parent}"]) == 0
    out = capsys.readouterr().out
    assert run.name in out
    assert "finished" in out
    assert "mean px" in out


def test_data_draws_every_split(overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """kplab data."""
    assert main(["data", overrides[0], "dataset=dots", f"out={tmp_path}/pictures"]) == 0
    assert "dots train: 8 images, 8 labelled instances" in capsys.readouterr().out
    assert len(list((tmp_path / "pictures").glob("dots-*.png"))) == 3


def test_pictures_tell_of_what_was_missed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Typical and worst images; an image in which a subject was missed is worse than any in which all were found."""
    scores = Scores.read(run.folder / "scores" / "dots-test.json")
    scores.per_image.loc[1, ["n_matched", "n_missed", "mean_px"]] = [0, 1, np.nan]
    scores.per_image.loc[2, "n_instances"] = 0
    assert list(ranked(scores))[-1] == scores.per_image.loc[1, "image_id"]
    assert len(ranked(scores)) == len(scores.per_image) - 1
    assert caption(scores.per_image.loc[1]) == "1 missed"
    capsys.readouterr()
    assert main(["evaluate", f"run={run.folder}", "split=test", "pictures=2", f"runs={run.folder.parent}"]) == 0
    said = capsys.readouterr().out
    for kind in ("typical", "worst"):
        assert (run.folder / "pictures" / f"tiny-{kind}.png").is_file()
        assert f"tiny-{kind}.png" in said


def test_pictures_are_cut_to_the_subjects() -> None:
    """With a quarter of the longer side around them, and never beyond the image."""
    boxes = np.array([[40.0, 40.0, 60.0, 50.0], [70.0, 45.0, 80.0, 60.0], [np.nan] * 4])
    poses = Poses.make(np.full((3, 1, 2), 50.0), box=boxes)
    assert around(poses, np.array([200, 100])) == (30, 30, 90, 70)
    assert around(poses, np.array([85, 65])) == (30, 30, 85, 65)
    assert around(Poses.empty(1), np.array([85, 65])) == (0, 0, 85, 65)
