"""Cross-validation within a budget: no model predicts what it was trained on, and what is best there is chosen."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf

from kplab.errors import ConfigError
from kplab.metrics.average_precision import Matches
from kplab.runs.run import Run
from kplab.structures.predictions import Predictions
from kplab.tasks import compose
from kplab.tasks.evaluation.scoring import score_labels, settings_of
from kplab.tasks.planning import folds
from kplab.tasks.training.train import train
from kplab.tasks.wiring.datasets import read_splits

Config = Callable[..., DictConfig]
Clock = Callable[..., None]
#: A flip test needs mirrored images in training.
WITH = ("optimizer=adamw_trapezoid", "duration=16", "trainer.max_epochs=16", "augment.flip=0.5", "flip_test=true")


@pytest.fixture
def asked(config: Config, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> DictConfig:
    """A training of 16 s with two folds; an epoch takes a second, and what is measured outside of trainings takes five."""
    clock([1.0])
    outside = itertools.count(0.0, 5.0)
    monkeypatch.setattr(folds, "time", SimpleNamespace(perf_counter=lambda: next(outside)))
    monkeypatch.setattr(folds, "workspace", lambda: tmp_path)
    made = config(*WITH, "test_on=[test]")
    made.budget, made.folds = "16s", 2
    return made


@pytest.mark.slow
def test_folds_predict_what_they_have_not_seen(asked: DictConfig, tmp_path: Path) -> None:
    final = folds.cross_validated(asked)
    runs = [Run.find(str(path), path.parent) for path in sorted((tmp_path / "runs").glob("*_tiny_fold*"))]
    labels = read_splits(asked.dataset)["train"]
    seen: list[str] = []
    for run in runs:
        stored = OmegaConf.load(run.folder / "config.yaml")
        parts = read_splits(stored.dataset)
        assert set(parts) == {"train", "held_out", "val", "test"}
        assert not set(parts["train"].names) & set(parts["held_out"].names)
        assert set(parts["train"].names) | set(parts["held_out"].names) == set(labels.names)
        assert (stored.duration, run.record["epochs"], stored.folds) == (4.0, 4, None)
        seen += parts["held_out"].names.tolist()
    assert sorted(seen) == sorted(labels.names)

    # the table's figures are those of the runs' own predictions, scored together
    table = pd.read_csv(tmp_path / "plans" / "tiny" / "folds.csv")
    assert table.flip_test.tolist() == [True, False]
    written = [Predictions.read(run.folder / "predictions" / "dots-held_out.json", labels.skeleton) for run in runs]
    joined = Predictions(labels.skeleton, {i: p for w in written for i, p in w.poses.items()})
    expected = score_labels(joined, labels, settings_of(asked.dataset), "joined").summary
    assert table.mean_px[0] == pytest.approx(expected["mean_px"], rel=1e-6)
    assert final.flip_test == bool(table.flip_test[table.mean_px.argmin()])
    text = (tmp_path / "plans" / "tiny" / "folds.md").read_text()
    assert f"mean error {table.mean_px.min():.2f} px" in text
    assert all(run.name in text for run in runs)

    # the rest of the time is that of the training on all labels
    assert (final.duration, final.trainer.max_epochs) == (11.0, 11)
    run = train(final)
    assert run is not None
    assert (run.record["epochs"], run.record["counts"]["train"]) == (11, [8, 8])
    assert (run.record["status"], OmegaConf.load(run.folder / "config.yaml").folds) == ("finished", 2)


def test_the_best_options_are_chosen(asked: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two predictions of each subject: without suppression half are false. A flip test that is worse is left out."""
    labels = read_splits(asked.dataset)["train"]
    rng = np.random.default_rng(0)

    def raw(runs: list[Run], flip_test: bool) -> dict[int, object]:
        found = {}
        for i, truth in labels.by_image().items():
            twice = truth[[0, 0]]
            twice.xy += rng.normal(0, 6.0 if flip_test else 0.5, twice.xy.shape)
            twice.score[:] = [0.9, 0.8]
            found[i] = twice
        return found

    monkeypatch.setattr(folds, "out_of_fold", raw)
    best, table, _ = folds.choose(asked, labels, [], several=False)
    assert (best.flip_test, len(table)) == (False, 2)
    # as if images had two subjects: the same search with AP
    best, table, scores = folds.choose(asked, labels, [], several=True)
    assert not best.flip_test
    assert scores.summary["AP"] == pytest.approx(table.AP.max())
    assert len(table) == 2 * len(folds.RESCORE) * len(folds.NMS)


def test_short_trainings_are_validated_on_fewer_images(asked: DictConfig) -> None:
    """One validation at least, which takes the same share of the time."""
    asked.validate_every = 8
    long, short, none = (folds.shortened(asked, s, v) for s, v in ((8.0, 80), (2.0, 80), (2.0, 0)))
    assert (long.validate_every, long.validate_images) == (8, None)
    assert (short.validate_every, short.validate_images) == (2, 20)
    assert (none.validate_every, none.validate_images) == (2, None)
    asked.validate_images = 48
    assert folds.shortened(asked, 2.0, 80).validate_images == 12


def test_threshold_of_the_best_f1() -> None:
    """Three subjects; hits of .9 and .7, a false positive of .5, and one of .3 with a hit of the same score."""
    score = np.array([0.9, 0.7, 0.5, 0.3, 0.3])
    hit = np.array([True, True, False, True, False])
    matches = Matches(
        np.array([1, 2]), np.zeros(5, int), score, np.broadcast_to(hit, (3, 10, 5)), np.broadcast_to(~hit, (3, 10, 5)),
        np.array([[3, 0]] * 3),
    )  # fmt: skip
    # F1 2 * 2 / (2 + 3) at .7, 2 * 3 / (5 + 3) at .3
    assert folds.threshold(matches) == (0.7, pytest.approx(0.8))
    none = np.zeros((3, 10, 0), bool)
    empty = Matches(np.array([1]), np.zeros(0, int), np.zeros(0), none, none, np.array([[3]] * 3))
    assert folds.threshold(empty) == (0.0, 0.0)


@pytest.mark.parametrize("more", [["folds=3"], ["folds=1"]])
def test_folds_need_a_budget(overrides: list[str], more: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"folds is \d, but must be 2 or more, with a budget=TIME"):
        compose("train", [*overrides, *more])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{folds: 3}", r"holdout: missing a required argument: 'fold'. It wants folds and fold; by and seed"),
        ("{folds: 3, fold: 3}", r"holdout.fold is 3, but holdout.folds is 3. Choose fold from 0"),
        ("{folds: 30, fold: 0}", r"30"),
    ],
)
def test_holdouts_that_are_none(config: Config, given: str, message: str) -> None:
    made = config()
    OmegaConf.update(made, "dataset.holdout", OmegaConf.create(given), force_add=True)
    with pytest.raises(ValueError, match=message):
        read_splits(made.dataset)


@pytest.mark.parametrize("flip", [True, False])
def test_without_the_flip_test_no_view_is_turned_either(config: Config, flip: bool) -> None:
    """Its predictions, which were better, read each view once."""
    made = folds.with_options(config(*WITH, "model.turns=[90]"), folds.Options(flip, 0.5, None))
    assert (made.flip_test, made.rescore) == (flip, 0.5)
    assert list(made.model.turns) == ([90] if flip else [])
