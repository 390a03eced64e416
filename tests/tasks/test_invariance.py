"""The verb: detectors on images, on a sequence, with trained heatmaps; invalid input is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig

from kplab.classical import changes
from kplab.classical.points import Points
from kplab.cli import main
from kplab.data.images import read_image
from kplab.metrics.repeatability import project
from kplab.ops import affine
from kplab.runs.provenance import file_sha256
from kplab.tasks import compose
from kplab.tasks.points.invariance import Seen, detectors_of, pairs, photographs, score, shared_area

Config = Callable[..., DictConfig]


def picture(seed: int = 0, size: tuple[int, int] = (240, 180)) -> np.ndarray:
    """Colour noise, blurred: corners and blobs everywhere."""
    grain = np.random.default_rng(seed).uniform(0, 255, (size[1], size[0], 3))
    grain = cv2.GaussianBlur(grain, (0, 0), 2)
    return np.round(np.interp(grain, (grain.min(), grain.max()), (20, 230))).astype(np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        cv2.imwrite(str(folder / f"{i}.png"), picture(i))
    return folder


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    """One image and two views of it, with homographies of pixel centres counted from 0, as VGG's files have them."""
    folder = tmp_path / "wall"
    folder.mkdir()
    first = picture(7)
    half = affine.translation(0.5, 0.5)
    cv2.imwrite(str(folder / "img1.png"), first)
    for number, (how, strength) in {2: ("rotation", 20), 3: ("perspective", 30)}.items():
        image, matrix = changes.CHANGES[how][0](first, strength)
        cv2.imwrite(str(folder / f"img{number}.png"), image)
        np.savetxt(folder / f"H1to{number}p", 3.0 * np.linalg.inv(half) @ matrix @ half)
    return folder


def test_images_give_tables_curves_and_a_record(photos: Path, tmp_path: Path) -> None:
    """One row per detector, image and strength; no change scores 1; a stronger change has a lower repeatability."""
    out = tmp_path / "out"
    command = [
        "invariance", f"images={photos}", f"out={out}", "detectors=[harris,sift,orb]", "properties=[gain,noise]",
        "changes.gain=[1]", "changes.noise=[4,40]", "count=150",
    ]  # fmt: skip
    assert main(command) == 0
    rows = pd.read_csv(out / "pairs.csv")
    assert len(rows) == 3 * 2 * 3
    assert (rows["points"] == 150).all()
    same = rows[rows["property"] == "gain"]
    for column in ("repeatability", "repeatability_symmetric", "matching_score", "mma@1", "homography@1", "unique"):
        assert (same[column] == 1).all(), column
    assert (same[["localisation_px", "ratio_median"]] < 1e-6).all().all()
    curves = pd.read_csv(out / "curves.csv").set_index(["detector", "property", "strength"])
    for detector in ("harris", "sift", "orb"):
        weak, strong = (curves.loc[(detector, "noise", s)] for s in (4, 40))
        assert weak["repeatability"] > strong["repeatability"] > strong["chance"]
    grid = pd.read_csv(out / "uniqueness.csv")
    assert (grid.groupby("detector")["share"].diff().dropna() >= 0).all()
    table = (out / "table.md").read_text()
    assert "| noise | sift | SIFT |" in table
    assert "| noise | harris | SIFT at 8 px |" in table
    record = json.loads((out / "table.record.json").read_text())
    assert record["count"] == 150
    assert record["images"] == ["0.png", "1.png"]
    for name in ("repeatability", "localisation_px", "matching_score", "mma_3", "uniqueness"):
        drawn = cv2.imread(str(out / f"{name}.png"))
        assert drawn is not None
        # curves in more than one colour
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 50


def test_a_sequence_with_homographies(sequence: Path, tmp_path: Path) -> None:
    """Their scale does not matter, max_side rescales them, and the file's half-pixel convention is converted."""
    for side, more in (("null", []), ("200", ["detectors=[sift]"])):
        out = tmp_path / f"out{side}"
        assert main(["invariance", f"sequence={sequence}", f"out={out}", "count=100", f"max_side={side}", *more]) == 0
        rows = pd.read_csv(out / "pairs.csv")
        assert rows["strength"].tolist() == [2, 3] * (len(rows) // 2)
        sift = rows[rows["detector"] == "sift"]
        assert (sift["repeatability"] > 0.6).all()
        assert (sift["mma@3"] > 0.8).all()
        # right to a pixel: half a pixel's mistake in each axis would be .7 px on the rotated view's corners alone
        assert (sift["corner_px"] < 0.6).all()
    record = json.loads((out / "table.record.json").read_text())
    names = ["img1.png", "img2.png", "img3.png", "H1to2p", "H1to3p"]
    assert record["made_from"] == {name: {"file": name, "sha256": file_sha256(sequence / name)} for name in names}
    config = compose("invariance", [f"sequence={sequence}", "max_side=200"])
    first = read_image(sequence / "img1.png")
    for pair, (how, strength) in zip(pairs([first], config), (("rotation", 20), ("perspective", 30)), strict=True):
        _, matrix = changes.CHANGES[how][0](first, strength)
        xy = np.array([[30.0, 40], [200, 150]])
        shrink = 200 / 240
        np.testing.assert_allclose(project(pair.homography, xy * shrink), project(matrix, xy) * shrink, atol=1e-6)


def test_only_the_area_that_both_images_show_is_scored() -> None:
    """A view cropped from the image: points outside it do not count, and equal numbers of both sides are compared."""
    config = compose("invariance", ["count=null", "margin=0", "detectors=[sift]"])
    (detector,) = detectors_of(config).values()
    image = picture(3)
    part = np.ascontiguousarray(image[30:150, 40:200])
    there = affine.translation(-40, -30)
    figures, ratios = score(Seen.by(detector, image), Seen.by(detector, part), there, [], config)
    assert (
        figures["points"]
        == min(figures["available_a"], figures["available_b"])
        < len(detector.detect(image).distinct())
    )
    # the rest lies within reach of the cut
    assert figures["repeatability"] > 0.8
    assert len(ratios) == figures["points"]
    assert shared_area(there, (240, 180), (160, 120), 0) == 160 * 120
    assert shared_area(np.linalg.inv(there), (160, 120), (240, 180), 0) == pytest.approx(160 * 120, rel=0.03)


class Blind:
    """A detector that finds nothing."""

    descriptor = "none"

    def detect(self, image: np.ndarray) -> Points:
        """No points."""
        return Points.make(np.zeros((0, 2)), np.zeros(0), np.zeros(0))

    def describe(self, image: np.ndarray, points: Points) -> np.ndarray:
        """No descriptors."""
        return np.zeros((0, 4), np.float32)


def test_an_image_without_points_scores_nan() -> None:
    """NaN, not 0 and not 1; no homography is found."""
    config = compose("invariance", [])
    seen = Seen.by(Blind(), picture())
    figures, ratios = score(seen, seen, np.eye(3), [seen], config)
    assert figures["points"] == 0
    assert len(ratios) == 0
    for name in ("repeatability", "localisation_px", "matching_score", "mma@3", "ratio_median", "unique"):
        assert np.isnan(figures[name]), name
    assert figures["homography@5"] == 0


@pytest.mark.parametrize("name", sorted(p.stem for p in (Path(__file__).parents[2] / "conf" / "points").glob("*.yaml")))
def test_every_config_of_points_works(name: str) -> None:
    """Each makes a detector that detects and describes."""
    config = compose("invariance", [f"detectors=[{name}]"])
    (detector,) = detectors_of(config).values()
    points = detector.detect(picture())
    assert len(points.distinct()) > 20
    assert len(detector.describe(picture(), points)) == len(points)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["detectors=[sfit]", "properties=[turning]"],
            r"sfit. Known: .*sift.*turning. Known: rotation",
        ),
        (["detectors=[]"], "both empty"),
        (["images=a", "sequence=b"], "both given"),
        (["count=0", "radius=0"], r"count is 0.*radius is 0"),
        (["properties=[]"], "no change has a strength"),
        (["points.harris.block=4", "detectors=[harris]"], "Use block=5"),
        (["points.sift.contrst=1", "detectors=[sift]"], "unknown override"),
        (["images=nowhere"], "no image found"),
        (["sequence=nowhere"], "not a sequence"),
        (["detectors=[]", "runs=[gone]"], "has no runs yet"),
    ],
)
def test_mistakes_end_in_one_message(
    args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a traceback."""
    assert main(["invariance", f"out={tmp_path}/out", f"runs_dir={tmp_path}/runs", *args]) == 2
    assert re.search(message, capsys.readouterr().err, re.DOTALL)
    assert not list((tmp_path / "out").glob("*"))


def test_an_invalid_homography_is_refused(sequence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing, truncated, or singular: the message names the file."""
    path = sequence / "H1to3p"
    for content in ("1 0 0\n0 1 0\n", "1 0 0\n0 1 0\n1 1 0\n", "a b c"):
        path.write_text(content)
        assert main(["invariance", f"sequence={sequence}"]) == 2
        assert "H1to3p" in capsys.readouterr().err
    path.unlink()
    assert main(["invariance", f"sequence={sequence}"]) == 2
    assert "H1to3p" in capsys.readouterr().err


def test_a_photograph_is_included() -> None:
    """No download is needed."""
    assert all(min(read_image(path).shape[:2]) >= 256 for path in photographs())


def test_graffiti(real_data: Path, tmp_path: Path) -> None:
    """The homographies count pixel centres from 0; repeatability falls with the angle, and stays far above chance."""
    folder = real_data / "oxford_graf"
    out = tmp_path / "out"
    assert main(["invariance", f"sequence={folder}", "detectors=[sift]", "max_side=null", f"out={out}"]) == 0
    rows = pd.read_csv(out / "pairs.csv")
    assert rows["strength"].tolist() == [2, 3, 4, 5, 6]
    assert (rows["repeatability"].diff().dropna() < 0).all()
    assert (rows["repeatability"] > 2.5 * rows["chance"]).all()
    # about 20 degrees: SIFT's matches hold there
    assert rows["mma@3"][0] > 0.8


@pytest.mark.slow
def test_peaks_of_a_trained_heatmap_model(config: Config, dotted: Path, tmp_path: Path) -> None:
    """They lie on the learnt dots, in pixels of images of any size."""
    from kplab.runs.run import Run
    from kplab.tasks.points.peaks import HeatmapPeaks
    from kplab.tasks.training.train import train

    run = train(config("trainer.max_epochs=30", "test_on=[]"))
    assert isinstance(run, Run)
    detector = HeatmapPeaks(run)
    annotations = json.loads((dotted / "annotations.json").read_text())
    distances = []
    for record, annotation in zip(annotations["images"][:8], annotations["annotations"][:8], strict=True):
        image = read_image(dotted / "images" / record["file_name"])
        true = np.array(annotation["keypoints"]).reshape(-1, 3)[:, :2] + 0.5
        for factor in (1, 3):
            large = cv2.resize(image, None, fx=factor, fy=factor)
            points = detector.detect(large).strongest(12)
            assert detector.describe(large, points).shape == (len(points), 128)
            gap = np.linalg.norm(points.xy[:, None] / factor - true[None], axis=-1)
            distances.append(gap.min(0))
    # a cell of the map is 4 px: the nearest peak is nearer than half of one, mostly
    assert np.median(distances) < 2
    out = tmp_path / "out"
    command = ["invariance", f"images={dotted}/images/00?.png", f"runs=[{run.folder}]", "detectors=[sift]"]
    assert main([*command, "properties=[rotation]", "changes.rotation=[5]", f"out={out}", "margin=2"]) == 0
    assert set(pd.read_csv(out / "pairs.csv")["detector"]) == {"sift", "tiny"}
