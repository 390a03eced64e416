"""``make peers``: what other systems write is scored at its exact place, and a system that fails does not end the others."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

import kplab
from kplab.data.sources.files import FileSource
from kplab.metrics.compare import compare
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton
from kplab.tasks import compose

SKELETON = Skeleton.from_config(
    {
        "name": "fork",
        "keypoints": ["tip", "left", "right", "end"],
        "edges": [["tip", "end"]],
        "flip_pairs": "by_name",
        "sigmas": "uniform",
    }
)
#: ids that are neither in order nor contiguous, and images that are not square
IDS, SIZES = np.array([12, 3, 7]), np.array([[96, 64], [64, 96], [80, 80]])


@pytest.fixture(scope="module")
def peers(root: Path) -> Callable[[str], ModuleType]:
    """Modules of bench/peers by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root / "bench" / "peers")
        modules = {name: importlib.import_module(name) for name in ("splits", "results", "systems", "seeds", "run")}
    return modules.__getitem__


@pytest.fixture
def split(peers: Callable[[str], ModuleType], tmp_path: Path) -> object:
    """Two subjects in the first image, one in each other; one keypoint is not labelled."""
    rng = np.random.default_rng(0)
    image_of = np.array([0, 0, 1, 2])
    xy = rng.uniform(8, 56, (4, 4, 2))
    xy[2, 1] = np.nan
    box = np.concatenate([np.nanmin(xy, 1) - 2, np.nanmax(xy, 1) + 2], axis=1)
    poses = Poses.make(xy, box=box, area=0.53 * (box[:, 2:] - box[:, :2]).prod(1))
    (tmp_path / "test").mkdir()
    names = [f"{i:06d}.png" for i in IDS.tolist()]
    for name, (width, height) in zip(names, SIZES.tolist(), strict=True):
        cv2.imwrite(str(tmp_path / "test" / name), rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
    source = FileSource(tmp_path / "test", names)
    labels = make_labels(
        SKELETON, source, IDS, SIZES, None, poses, image_of, np.arange(1, 5), box_source="annotation", area_source="box"
    )
    return peers("splits").Split("forks", labels, labels, "as they are", tmp_path)


def write_ultralytics(labels: Labels, folder: Path, shift: float) -> Path:
    for i, image_id in enumerate(labels.image_id):
        rows, (width, height) = [], labels.size[i]
        for xy in labels.poses_of(i).xy + shift:
            words = [0, 0.5, 0.5, 0.4, 0.4]
            for x, y in xy:
                words += [0, 0, 0.1] if np.isnan(x) else [x / width, y / height, 0.9]
            rows.append(" ".join(f"{word:.9g}" for word in [*words, 0.8]))
        (folder / f"{image_id:06d}.txt").write_text("\n".join(rows))
    return folder


def write_sleap(labels: Labels, folder: Path, shift: float) -> Path:
    sio = pytest.importorskip("sleap_io")
    skeleton = sio.Skeleton([sio.Node(name) for name in SKELETON.keypoints])
    order = np.argsort(labels.image_id)
    video = sio.Video.from_filename([str(labels.path(i)) for i in order])
    frames = [
        sio.LabeledFrame(
            video=video,
            frame_idx=number,
            instances=[
                sio.PredictedInstance.from_numpy(
                    xy - 0.5 + shift, skeleton=skeleton, score=0.8, point_scores=np.full(4, 0.9)
                )
                for xy in labels.poses_of(i).xy
            ],
        )
        for number, i in enumerate(order.tolist())
    ]
    sio.Labels(labeled_frames=frames, videos=[video], skeletons=[skeleton]).save(str(folder / "predictions.slp"))
    return folder / "predictions.slp"


def write_dlc(labels: Labels, folder: Path, shift: float) -> Path:
    individuals = ["individual1", "individual2"]
    # another order of the keypoints than the skeleton's
    names = ["right", "end", "tip", "left"]
    levels = ["scorer", "individuals", "bodyparts", "coords"]
    columns = pd.MultiIndex.from_product([["net"], individuals, names, ["x", "y", "likelihood"]], names=levels)
    values = np.full((len(labels), 2, 4, 3), np.nan)
    for i in range(len(labels)):
        xy = labels.poses_of(i).xy[:, [SKELETON.keypoints.index(name) for name in names]]
        values[i, : len(xy), :, :2] = xy - 0.5 + shift
        values[i, : len(xy), :, 2] = 0.9
    index = [f"/elsewhere/{i:06d}.png" for i in labels.image_id.tolist()]
    table = pd.DataFrame(values.reshape(len(labels), -1), index=index, columns=columns)
    table.to_csv(folder / "image_predictions_net.csv")
    return folder


WRITERS = {
    "from_ultralytics": write_ultralytics,
    "from_sleap_nn": write_sleap,
    "from_dlc": write_dlc,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_predictions_are_scored_at_their_exact_place(
    name: str, shift: float, split: object, peers: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    """The truth has AP 1 and 0 px in each format; half a pixel is seen as half a pixel in x and y."""
    (tmp_path / "found").mkdir()
    place = WRITERS[name](split.test, tmp_path / "found", shift)
    poses = getattr(peers("results"), name)(place, split.test)
    path = Predictions(SKELETON, poses, {}, {}).write(tmp_path / "results.json")
    figures = peers("run").figures_of(kplab.evaluate(Predictions.read(path, SKELETON), split.test))
    assert figures["mean_px"] == pytest.approx(np.hypot(shift, shift), abs=1e-5)
    assert figures["median_px"] == pytest.approx(np.hypot(shift, shift), abs=1e-5)
    assert figures["missed_keypoints"] == figures["missed_subjects"] == 0
    assert (figures["keypoints"], figures["subjects"]) == (15, 4)
    assert shift or figures["AP"] == pytest.approx(1)


@pytest.mark.parametrize("name", WRITERS)
def test_an_image_without_predictions_is_missed(
    name: str, split: object, peers: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    (tmp_path / "found").mkdir()
    place = WRITERS[name](
        split.test.select([0, 1]) if name != "from_sleap_nn" else split.test.select([1, 2]), tmp_path / "found", 0
    )
    poses = getattr(peers("results"), name)(place, split.test)
    figures = peers("run").figures_of(kplab.evaluate(Predictions(SKELETON, poses, {}, {}), split.test))
    assert figures["missed_subjects"] == (1 if name != "from_sleap_nn" else 2)
    assert figures["mean_px"] == pytest.approx(0, abs=1e-5)


def test_a_system_that_fails_has_a_row_and_the_others_go_on(
    split: object, peers: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown name, an installation without its tool, a program that crashes; then one that works."""
    systems, run = peers("systems"), peers("run")
    bare = tmp_path / "environments" / "crash" / "bin"
    bare.mkdir(parents=True)
    (bare / "python").write_text("#!/bin/sh\necho 'first line'\necho 'out of memory'\nexit 3\n")
    (bare / "python").chmod(0o755)
    (bare.parent / ".ready").write_text("\n".join(systems.TORCH))
    done = systems.Trained(
        Predictions(SKELETON, split.test.by_image(), {}, {}), "net", "random", 60.0, 3, {"thing": "1.2"}
    )

    nothing = {"export": lambda *_: None, "read": ("", lambda *_: {})}
    monkeypatch.setattr(run, "read_split", lambda *_: split)
    monkeypatch.setattr(
        run,
        "SYSTEMS",
        {
            "absent": systems.Peer("absent", ("x==1",), **nothing),
            "crash": systems.Peer("crash", (), **nothing),
            "works": SimpleNamespace(prepare=lambda _: None, rows=lambda _: {"works": lambda *_: done}),
        },
    )
    out = tmp_path / "out"
    arguments = ["--out", str(out), "--environments", str(tmp_path / "environments"), "--uv", str(tmp_path / "no-uv")]
    assert run.main(["forks", "--peers", "alphapose", "absent", "crash", "works", *arguments]) == 1
    rows = json.loads((out / "results.json").read_text())["datasets"]["forks"]["rows"]
    assert [row["system"] for row in rows] == ["absent", "crash", "works", "alphapose"]
    assert "no-uv" in rows[0]["error"]
    assert rows[1]["error"].startswith("out of memory")
    assert rows[2]["AP"] == pytest.approx(1)
    assert "use one of absent, crash, works" in rows[3]["error"]
    table = (out / "table.md").read_text()
    assert "| forks | crash | failed: out of memory" in table
    assert "| forks | works | net | random weights | 0 | 60 | 3 | 1.000 | 0.00 |" in table
    assert run.main(["forks", "--peers", "works", *arguments]) == 0


def test_calls_add_to_one_table_with_intervals_of_the_difference_from_kplab(
    split: object, peers: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systems, run = peers("systems"), peers("run")

    def stub(name: str, shift: float) -> object:
        """A system whose predictions are off by so many pixels, and one more for each seed."""

        def train(split: object, work: Path, terms: object, tools: object) -> object:
            poses = {i: p.transform(np.eye(3)) for i, p in split.test.by_image().items()}
            for one in poses.values():
                one.xy[...] += [shift + terms.seed, 0]
            card = {"flip_test": True, "boxes": "detected"} if name == "kplab" else {}
            return systems.Trained(Predictions(SKELETON, poses, card), "net", "random", terms.seconds, 3, {})

        return SimpleNamespace(prepare=lambda _: None, rows=lambda _: {name: train})

    monkeypatch.setattr(run, "read_split", lambda *_: split)
    monkeypatch.setattr(run, "SYSTEMS", {"kplab": stub("kplab", 0), "other": stub("other", 3)})
    out = tmp_path / "out"

    def rows_after(*arguments: str) -> dict[tuple[str, int], dict[str, object]]:
        assert run.main(["forks", "--out", str(out), *arguments]) == 0
        rows = json.loads((out / "results.json").read_text())["datasets"]["forks"]["rows"]
        return {(row["system"], row["seed"]): row for row in rows}

    out.mkdir()
    older = {"budget": "5m", "datasets": {"forks": {"truth": split.test.digest(), "rows": [{"system": "other"}]}}}
    (out / "results.json").write_text(json.dumps(older))
    assert list(rows_after("--peers", "other")) == [("other", 0)]
    assert "ahead" not in rows_after("--peers", "other")["other", 0]  # there is nothing to compare it with
    rows = rows_after("--peers", "kplab", "--seeds", "0", "1")
    assert list(rows) == [("kplab", 0), ("kplab", 1), ("other", 0)]
    rows = rows_after("--peers", "other", "--seeds", "1")
    assert sorted(rows) == [("kplab", 0), ("kplab", 1), ("other", 0), ("other", 1)]
    for seed in (0, 1):  # each with kplab of its own seed
        assert rows["other", seed]["ahead"]["mean_px"] == pytest.approx([-3, -3, -3])
        value, low, high = rows["other", seed]["ahead"]["AP"]
        assert 0 < low <= value <= high
    table = (out / "table.md").read_text()
    assert "-3.00 [-3.00, -3.00]" in table
    assert re.search(
        r"^\| forks \| other \| 0 1 \| \+0\.\d{3} \[.*\] \| -3\.00 \[-3\.00, -3\.00\] \|$", table, re.MULTILINE
    )
    assert list(rows_after("--peers", "kplab", "--budget", "1m")) == [("kplab", 0)]  # other times are not mixed


def test_intervals_over_seeds_draw_images_and_seeds(split: object, peers: Callable[[str], ModuleType]) -> None:
    """Errors of seed s: 0 for the first system, d_s for the second, so that the difference is -mean d of the drawn seeds."""

    def scores(shift: float) -> object:
        poses = {i: p.transform(np.eye(3)) for i, p in split.test.by_image().items()}
        for one in poses.values():
            one.xy[...] += [shift, 0]
        return kplab.evaluate(Predictions(SKELETON, poses, {}, {}), split.test)

    def over(*shifts: float) -> dict[str, list[float]]:
        return peers("seeds").over_seeds([(scores(0), scores(s)) for s in shifts], ("AP", "mean_px"), 500)

    alone = compare({"a": scores(0), "b": scores(2)}).differences.set_index("metric")
    for metric, found in peers("seeds").over_seeds([(scores(0), scores(2))], ("AP", "mean_px")).items():
        assert found == pytest.approx(alone.loc[metric, ["difference", "low", "high"]].tolist())
    assert over(2, 2, 2)["mean_px"] == pytest.approx([-2, -2, -2])
    # means of three draws from 1, 2, 6: the least, 1, has a probability of 1 / 27, more than 2.5 %, and so has the highest
    assert over(1, 2, 6)["mean_px"] == pytest.approx([-3, -6, -1])
    value, low, high = over(1, 2, 6)["AP"]
    assert 0 < low < value < high <= 1
    # a system that finds nothing has no error
    nothing = kplab.evaluate(
        Predictions(SKELETON, {int(i): Poses.make(np.zeros((0, 4, 2))) for i in IDS}, {}, {}), split.test
    )
    assert peers("seeds").over_seeds([(scores(0), nothing)] * 2, ("mean_px",), 100) == {"mean_px": None}


@pytest.mark.parametrize(("subjects", "sides"), [(1, False), (1, True), (3, True)])
def test_experiments_made_by_hand_suit_the_data_and_end_by_the_clock(
    subjects: int, sides: bool, peers: Callable[[str], ModuleType]
) -> None:
    skeleton = replace(SKELETON, flip=SKELETON.flip if sides else (0, 1, 2, 3))
    rows = peers("systems").by_hand(SimpleNamespace(subjects=subjects, skeleton=skeleton))
    for row, overrides in rows.items():
        config = compose("train", ["dataset=synthetic_hand", *(word.format(seconds="60") for word in overrides)])
        assert config.duration == 60
        assert config.optimizer._target_.endswith("trapezoid")  # with others a duration is refused
        assert (config.get("detector") is not None or "centernet" in config.head._target_) == (subjects > 1)
        model = peers("systems").model_of(OmegaConf.to_container(config, resolve=True))
        assert model.split(", ")[1] == ("efficientnet_lite0" if "tuned" in row else "resnet10_half")
        assert model.endswith(", cascade") == ("topdown" in row)
        if "tuned" in row:
            assert (config.augment.flip > 0) == config.flip_test == sides


def test_a_lucky_guess_of_low_score_does_not_count(split: object, peers: Callable[[str], ModuleType]) -> None:
    """Beside a pose that is 3 px off, the truth with a lower score is left out."""
    one = split.test.select([1, 2])
    guesses = {
        image_id: Poses.make(np.concatenate([poses.xy, poses.xy + 3]), score=[0.1, 0.9])
        for image_id, poses in one.by_image().items()
    }
    found = Predictions(SKELETON, guesses, {}, {})
    error = {count: kplab.evaluate(peers("run").best_of(found, count), one).summary["mean_px"] for count in (1, 2)}
    assert error == pytest.approx({1: np.hypot(3, 3), 2: 0})


def test_a_system_that_finds_nothing_has_no_error_in_pixels(
    split: object, peers: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    run = peers("run")
    poses = peers("results").from_ultralytics(tmp_path / "no folder", split.test)
    figures = run.figures_of(kplab.evaluate(Predictions(SKELETON, poses, {}, {}), split.test))
    assert (figures["mean_px"], figures["AP"], figures["missed_keypoints"]) == (None, 0, 15)
    made = {"system": "s", "model": "m", "weights": "random", "seed": 0, "train_seconds": 1, "epochs": 1}
    content = {"forks": {"rows": [made | figures], "train": 3, "test": 3, "split": "as they are", "together": {}}}
    assert "| 0.000 | - | - | 0.000 |" in run.table_of(content, "1s")


def test_a_dataset_or_budget_that_does_not_exist_is_refused_before_any_training(
    peers: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = peers("run")
    assert run.main(["moon_base", "--out", str(tmp_path)]) == 1
    assert "no dataset 'moon_base'" in capsys.readouterr().err
    assert run.main(["mouse", "--budget", "soon", "--out", str(tmp_path)]) == 1
    assert "budget is 'soon'" in capsys.readouterr().err


def test_a_split_keeps_groups_together_and_every_image_once(
    peers: Callable[[str], ModuleType], split: object, tmp_path: Path
) -> None:
    splits = peers("splits")
    labels = split.test
    many = labels.select([0, 1, 2])
    many.group = np.array(["a", "a", "b"], dtype=object)
    parts, made_by = splits.parts_of({"all": many}, "forks")
    assert made_by == "80 : 20 by group, seed 0"
    assert sorted(len(part) for part in parts.values()) == [1, 2]
    assert sorted([*parts["train"].names, *parts["test"].names]) == sorted(labels.names)
    own, made_by = splits.parts_of({"training": labels, "test": labels}, "forks")
    assert (list(own), made_by) == (["train", "test"], "the dataset's own")
