"""Predict, evaluate and compare exchange files only."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from kplab.cli import main
from kplab.errors import ScoreError
from kplab.metrics.compare import CardMismatch
from kplab.metrics.score import Scores
from kplab.runs.run import Run
from kplab.structures.poses import Poses
from kplab.tasks.evaluation.comparison import compare_runs
from kplab.tasks.evaluation.overview import spread
from kplab.tasks.evaluation.pictures import around, caption, ranked
from kplab.tasks.wiring.datasets import read_split

Finished = Callable[..., Run]


@pytest.fixture
def run(finished: Finished) -> Run:
    """A trained run."""
    return finished("trainer.max_epochs=12")


@pytest.fixture
def other(finished: Finished) -> Run:
    """A run of another training."""
    return finished("trainer.max_epochs=2", "name=other", "seed=1")


def test_new_images_give_results_table_and_overlays(run: Run, dotted: Path, tmp_path: Path) -> None:
    """The same image, labelled or not, gives the same pose; csv and JSON have the same numbers, and state their convention."""
    out = tmp_path / "out"
    assert main(["predict", f"run={run.folder}", f"source={dotted}/images/*.png", f"out={out}"]) == 0
    rows = json.loads((out / "predictions.json").read_text())
    table = pd.read_csv(out / "keypoints.csv")
    assert len(rows) == 16
    assert len(table) == 16 * 3
    first = table[table["file"] == "001.png"].sort_index()
    for axis, name in enumerate(("x_pixel_index", "y_pixel_index")):
        assert first[name].tolist() == rows[0]["keypoints"][axis::3]
    new = json.loads((out / "predictions.card.json").read_text())
    assert new["pixel_convention"].startswith("keypoints: pixel indices, the centre of the first pixel is (0, 0)")
    overlays = sorted((out / "overlays").glob("*.png"))
    assert len(overlays) == 16
    drawn, plain = cv2.imread(str(overlays[0])), cv2.imread(str(dotted / "images" / "001.png"))
    assert drawn.shape[0] >= plain.shape[0]
    labelled = json.loads((run.folder / "predictions" / "dots-test.json").read_text())
    card = json.loads((run.folder / "predictions" / "dots-test.card.json").read_text())
    by_name = {row["keypoints"][0] for row in rows}
    assert all(any(abs(row["keypoints"][0] - x) < 1e-3 for x in by_name) for row in labelled)
    assert card["boxes"] == "whole image"


def test_images_of_equal_names_have_separate_overlays(run: Run, dotted: Path, tmp_path: Path) -> None:
    """Subfolders, equal stems, and a name that looks like a path; pictures of an earlier prediction are removed."""
    folder, out = tmp_path / "new", tmp_path / "out"
    image = cv2.imread(str(dotted / "images" / "001.png"))
    names = ("a/x.png", "a/x.jpg", "b/x.png", "a_x.png", "a/b/x.png")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), image)
    assert main(["predict", f"run={run.folder}", f"source={folder}", f"out={out}"]) == 0
    drawn = {p.relative_to(out / "overlays").as_posix() for p in (out / "overlays").rglob("*.png")}
    assert drawn == {"a/x.png.png", "a/x.jpg.png", "b/x.png", "a_x.png", "a/b/x.png"}
    assert set(pd.read_csv(out / "keypoints.csv")["file"]) == set(names)
    assert main(["predict", f"run={run.folder}", f"source={folder}/b", f"out={out}"]) == 0
    assert [p.name for p in (out / "overlays").rglob("*.png")] == ["x.png"]


def test_images_of_every_kind_are_predicted(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Grey, with alpha, 16 bits, rotated by EXIF, one pixel; files that are no images are counted."""
    from PIL import Image

    folder = tmp_path / "kinds"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    plain, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6
    plain.convert("L").save(folder / "grey.png")
    plain.convert("RGBA").save(folder / "alpha.png")
    plain.convert("CMYK").save(folder / "cmyk.jpg")
    plain.save(folder / "turned.JPG", exif=exif)
    plain.crop((0, 0, 1, 1)).save(folder / "one.png")
    cv2.imwrite(str(folder / "deep.png"), pixels[..., 0].astype(np.uint16) * 257)
    plain.convert("P").save(folder / "palette.gif")
    (folder / "notes.txt").write_text("mine")
    assert main(["predict", f"run={run.folder}", f"source={folder}", f"out={tmp_path}/out"]) == 0
    said = capsys.readouterr().out
    assert "2 files are no images or videos of a known kind and are left out (.gif, .txt)" in said
    assert "6 images, 6 poses, 6 overlays" in said
    assert "1 images have an EXIF orientation: turned upright, and coordinates are on the upright image" in said
    assert cv2.imread(str(next((tmp_path / "out" / "overlays").glob("turned*")))).shape[0] >= 70


def test_invalid_predictions_are_refused(
    run: Run, dotted: Path, overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the model runs, where possible; keypoints are never given the names of another skeleton."""
    text = (tmp_path / "conf" / "dataset" / "dots.yaml").read_text()
    (tmp_path / "conf" / "dataset" / "others.yaml").write_text(
        text.replace("[red", "[rot").replace("name: dots", "name: o")
    )
    document = (dotted / "annotations.json").read_text()
    whole = (dotted / "images" / "001.png").read_bytes()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "a.png").write_bytes(whole[:-10])
    predict = ["predict", overrides[0], f"run={run.folder}"]
    images = f"source={dotted}/images"
    for more, message in (
        ([f"source={tmp_path}/cut"], "a.png: the PNG is truncated"),
        ([images, f"out={dotted}/annotations.json"], "can't be made"),
        ([images, "regions=annotated"], "regions=… is for split=NAME"),
        ([images, "dataset=dots"], "dataset=… is for split=NAME"),
        ([images, "batch_size=0"], "batch_size is 0"),
        ([images, "device=abacus"], "Use device=cpu or device=auto"),
        (["split=test", "regions=boxes"], "Use image, annotated or detected"),
        (["split=test", f"out={tmp_path}"], "out=DIR is for new images"),
        ([f"source={dotted}/a=b,c"], "wants quotes of its own"),
    ):
        assert main([*predict, *more]) == 2, more
        assert message in capsys.readouterr().err
    (dotted / "split.json").unlink()
    (dotted / "annotations.json").write_text(document.replace('"red"', '"rot"'))
    assert main([*predict, "split=test", "dataset=others"]) == 2
    assert "Predict it as new images" in capsys.readouterr().err
    assert main(["predict", f"run={tmp_path}/cut", images]) == 2
    assert f"{tmp_path}/cut: not a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: r[0]["keypoints"].__setitem__(0, float("nan")),
            r"keypoints holds a value that is not a finite number",
        ),
        (lambda r: r[0].update(score=float("inf")), r"score holds a value that is not a finite number"),
        (lambda r: r[0].update(score="high"), r"score holds a value that is not a finite number"),
        (lambda r: r[0].pop("score"), "result 0 lacks score"),
        (lambda r: r[0].pop("keypoints"), "result 0 lacks keypoints"),
        (lambda r: r[0].update(keypoints=[1, 2, 2]), "has 3 keypoint numbers, but skeleton 'dots' needs 9"),
        (lambda r: r[0].update(image_id=999), "1 of . predicted images are not in the truth"),
        (lambda r: r[0].update(image_id="1.jpg"), "has image_id '1.jpg'"),
        (lambda r: r[0].update(bbox=[1, 2]), "bbox has 2 numbers"),
        (lambda r: r[0].update(bbox=[1, 2, 3, 4]), "Give every prediction a box, or none"),
        (lambda r: r.insert(0, 3), "result 0 lacks image_id, keypoints, score"),
    ],
)
def test_results_files_of_other_programs_are_checked(
    dotted: Path, overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, message: str
) -> None:
    """Values that are not numbers are refused, and nothing is left out without a message."""
    from kplab.tasks import compose

    ids = read_split(compose("train", overrides).dataset, "test").image_id
    results = [{"image_id": int(i), "category_id": 1, "keypoints": [5.0, 5.0, 1.0] * 3, "score": 0.5} for i in ids]
    change(results)
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(results))
    assert main(["evaluate", overrides[0], f"predictions={path}", "dataset=dots", "split=test"]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert str(path) in said


@pytest.mark.parametrize("text", ["", "hello", '{"images": []}'], ids=["empty", "text", "annotations"])
def test_a_file_that_is_no_results_file_is_refused(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """The likeliest mistake is to name the annotations in place of the predictions."""
    path = tmp_path / "theirs.json"
    path.write_text(text)
    assert main(["evaluate", overrides[0], f"predictions={path}", "dataset=dots", "split=test"]) == 2
    assert str(path) in capsys.readouterr().err


def test_half_written_files_of_a_run_are_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Predictions, scores and config, by the verb that reads them."""
    name = f"run={run.folder}"
    scores = run.folder / "scores" / "dots-test.json"
    scores.write_text('{"name": ')
    with pytest.raises(ScoreError, match=r"dots-test\.json: half written or damaged"):
        Scores.read(scores)
    scores.with_name("dots-test.matches.npz").unlink()
    with pytest.raises(ScoreError, match=r"dots-test\.matches\.npz is missing"):
        Scores.read(scores)
    (run.folder / "predictions" / "dots-test.json").write_text("[{")
    assert main(["evaluate", name]) == 2
    assert "dots-test.json: has changed since it was written" in capsys.readouterr().err
    (run.folder / "config.yaml").write_text("dataset: [")
    assert main(["evaluate", name]) == 2
    assert "config.yaml: half written or damaged" in capsys.readouterr().err


def test_evaluating_again_gives_the_same_scores(run: Run) -> None:
    """Scores depend on the files alone."""
    path = run.folder / "scores" / "dots-test.json"
    before = path.read_text()
    path.unlink()
    assert main(["evaluate", f"run={run.folder}"]) == 0
    assert json.loads(path.read_text())["summary"] == json.loads(before)["summary"]


def test_annotations_as_predictions_score_perfectly(dotted: Path, overrides: list[str], tmp_path: Path) -> None:
    """A COCO results file of any system can be scored; the truth itself has AP 1 and error 0."""
    document = json.loads((dotted / "annotations.json").read_text())
    results = [
        {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 1.0}
        for a in document["annotations"]
    ]
    search = overrides[0]
    from kplab.tasks import compose

    labels = read_split(compose("train", overrides).dataset, "test")
    ids = {int(i) for i in labels.image_id}
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps([r for r in results if r["image_id"] in ids]))
    assert main(["evaluate", search, f"predictions={path}", "dataset=dots", "split=test"]) == 0
    summary = json.loads((tmp_path / "theirs.scores.json").read_text())["summary"]
    assert summary["AP"] == 1.0
    assert summary["mean_px"] < 1e-6


def test_compare_and_its_refusal(run: Run, other: Run) -> None:
    """Intervals and figures; scores of other conditions are refused, and the message names the line that differs."""
    result, out = compare_runs([run, other], resamples=200)
    assert {"AP", "mean_px"} <= set(result.values["metric"])
    assert (out / "comparison.json").is_file()
    assert len(list(out.glob("*.png"))) >= 3
    difference = result.differences.set_index("metric").loc["mean_px"]
    assert difference["low"] <= difference["difference"] <= difference["high"]
    assert main(["evaluate", f"run={other.folder}", "settings.pck_thresholds=[3]"]) == 0
    with pytest.raises(CardMismatch, match="pck_thresholds"):
        compare_runs([run, other], resamples=50)


def test_compare_needs_no_data(run: Run, other: Run, dotted: Path) -> None:
    """Score files hold everything that a comparison reads."""
    shutil.rmtree(dotted)
    compare_runs([run, other], resamples=50)


def test_runs_lists_them_newest_first(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Status and main scores; AP is always beside the pixel error."""
    assert main(["runs", f"runs_dir={run.folder.parent}"]) == 0
    out = capsys.readouterr().out
    assert run.name in out
    assert "finished" in out
    assert "mean px" in out


def test_data_draws_every_split(overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One contact sheet per split."""
    assert main(["data", overrides[0], "dataset=dots", f"out={tmp_path}/pictures"]) == 0
    assert "dots train: 8 images, 8 labelled instances" in capsys.readouterr().out
    assert len(list((tmp_path / "pictures").glob("dots-*.png"))) == 3


def test_pictures_are_distinct_and_spread_over_the_split() -> None:
    """For any number of images and pictures; the first and the last are included."""
    for images in range(1, 30):
        for count in range(1, 30):
            chosen = spread(images, count)
            assert len(set(chosen)) == len(chosen) == min(images, count)
            assert chosen == sorted(chosen)
            assert chosen[0] == 0
            assert count == 1 or chosen[-1] == images - 1


def test_pictures_show_missed_subjects(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Typical and worst images; an image with a missed subject ranks below all images without one."""
    scores = Scores.read(run.folder / "scores" / "dots-test.json")
    scores.per_image.loc[1, ["n_matched", "n_missed", "mean_px"]] = [0, 1, np.nan]
    scores.per_image.loc[2, "n_instances"] = 0
    assert list(ranked(scores))[-1] == scores.per_image.loc[1, "image_id"]
    assert len(ranked(scores)) == len(scores.per_image) - 1
    assert caption(scores.per_image.loc[1]) == "1 missed"
    capsys.readouterr()
    assert main(["evaluate", f"run={run.folder}", "split=test", "pictures=2", f"runs_dir={run.folder.parent}"]) == 0
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
    # what is drawn beside the subjects is inside, too
    x0, y0, x1, y1 = around(poses, np.array([200, 100]), drawn=np.array([[5.0, 50, 120, 60], [np.nan] * 4]))
    assert x0 < 5 < 120 < x1
    assert (y0, y1) == (30, 70)
