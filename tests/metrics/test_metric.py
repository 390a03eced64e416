"""The table of metrics: one row and a function are all that a metric needs, and outputs read nothing else."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kplab.errors import ConfigError
from kplab.metrics import metric as table
from kplab.metrics.compare import compare, draw_weights
from kplab.metrics.metric import Evidence, Metric, metrics_of, row_of
from kplab.metrics.score import Scores, score
from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton
from kplab.tasks import compose
from kplab.tasks.runs import figures

SKELETON = Skeleton("tri", ("nose", "left", "right"), (), (0, 2, 1), (0.05, 0.1, 0.1), "guessed")
SETTINGS = {"pck_thresholds": [0.1, 0.2], "nme_pair": None, "auc_range": [0.0, 0.2]}


def p90(evidence: Evidence) -> float:
    """The 90th percentile of pixel errors."""
    found = evidence["error_px"][np.isfinite(evidence["error_px"])]
    return float(np.percentile(found, 90)) if len(found) else float("nan")


P90 = Metric("p90_px", "p90 px", 1, False, "keypoint", p90)


@pytest.fixture
def with_p90(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row more."""
    monkeypatch.setattr(table, "METRICS", (*table.METRICS, P90))


def scores(seed: int, images: int = 30, box: bool = True) -> Scores:
    """One subject per image, with random errors, scores and missed keypoints."""
    rng = np.random.default_rng(seed)
    shape = np.array([[0.0, 0.0], [-10.0, 20.0], [10.0, 20.0]])
    truth = {
        i: Poses.make(shape[None], area=np.array([400.0]), box=np.array([[-10.0, 0.0, 10.0, 20.0]]))
        for i in range(1, images + 1)
    }
    found = {
        i: Poses.make(
            shape[None] + rng.normal(0, 2, (1, 3, 2)),
            np.where(rng.uniform(size=(1, 3)) < 0.1, 0, 2),
            score=rng.uniform(size=1),
        )
        for i in truth
    }
    return score(truth, Predictions(SKELETON, found), SKELETON, files={i: f"{i}.png" for i in truth})


def test_a_metric_is_one_row_and_its_function(with_p90: None) -> None:
    """Score, keypoints, comparison, runs, figure and monitor; `kplab benchmark` and a training: tests/tasks/test_records.py."""
    a, b = scores(1), scores(2)
    rows = a.keypoints
    errors = rows["error_px"].dropna()
    assert a.summary["p90_px"] == np.percentile(errors, 90)
    nose = rows.loc[rows["keypoint"] == "nose", "error_px"].dropna()
    assert a.per_keypoint.set_index("keypoint").loc["nose", "p90_px"] == np.percentile(nose, 90)
    heads = [line.split() for line in a.text().splitlines() if "p90_px" in line]
    assert len(heads) == 2, "the line of all keypoints, and the table of each"
    got = compare({"a": a, "b": b}, resamples=50)
    values = got.values.set_index(["run", "metric"]).loc[("a", "p90_px")]
    assert values["value"] == a.summary["p90_px"]
    assert values["low"] < values["value"] < values["high"]
    difference = got.differences.set_index("metric").loc["p90_px"]
    assert difference["difference"] == a.summary["p90_px"] - b.summary["p90_px"]
    assert f"{a.summary['p90_px']:.1f} [" in got.text(), "with its digits"
    assert got.titles["p90_px"] == "p90 px ↓"
    assert figures(a.summary)[-1] == f"{a.summary['p90_px']:.1f}"
    assert compose("train", ["monitor=val/p90_px"]).monitor == "val/p90_px"


def test_a_metric_without_a_row_is_no_monitor() -> None:
    with pytest.raises(
        ConfigError, match=r"monitor is 'val/p90_px'. Use one of: val/loss, val/AP, .*val/pck@THRESHOLD"
    ):
        compose("train", ["monitor=val/p90_px"])
    assert compose("train", ["monitor=val/pck@0.2"]).monitor == "val/pck@0.2"


def test_rows_are_consistent() -> None:
    names = [row.name for row in table.METRICS]
    assert len(set(names)) == len(names)
    for row in table.METRICS:
        assert set(row.shown_in) <= set(table.OUTPUTS)
        assert "benchmark" not in row.shown_in or "compare" in row.shown_in, (
            "a benchmark takes its figures from a comparison"
        )


def test_families_have_a_member_for_each_value_and_settings_switch_metrics_off() -> None:
    names = [m.name for m in metrics_of(SETTINGS)]
    assert [n for n in names if n.startswith("pck")] == ["pck@0.1", "pck@0.2"]
    assert "nme" not in names
    assert "nme" in [m.name for m in metrics_of({**SETTINGS, "nme_pair": "left-right"})]
    pck = row_of("pck@0.2")
    assert pck is not None
    assert pck.keys(["pck@0.1", "pck@1e-05", "pck@0.2_macro", "pck_left_out", "mean_px"]) == ["pck@0.1", "pck@1e-05"]
    assert row_of("colour") is None
    shown = figures({"AP": 0.5, "mean_px": 2.0, "pck@0.1": 0.7, "pck@0.2": 0.9})
    assert [text for text in shown if text] == ["0.500", "2.000", "0.2 0.900"]
    assert set(figures({})) == {""}


@pytest.mark.parametrize("name", ["AP", "mean_px", "median_px", "pck@0.2"])
def test_fast_resampling_equals_the_metric_of_repeated_values(name: str) -> None:
    s = scores(3)
    evidence = Evidence.of(s.keypoints, s.matches.image_id, s.matches)
    weights = draw_weights(30, 20, np.random.default_rng(0))
    weights[0] = 0
    fast = next(m for m in metrics_of(s.card) if m.name == name)
    assert fast.resample is not None
    slow = replace(fast, resample=None).computed_for(evidence, weights)
    np.testing.assert_allclose(fast.computed_for(evidence, weights), slow, rtol=1e-12)
    assert np.isnan(slow[0])
    assert np.isfinite(slow[1:]).all()


def test_the_table_imports_numpy_alone() -> None:
    """A training's config is checked against it."""
    import subprocess
    import sys

    code = "import sys, kplab.metrics.metric; print({'pandas', 'pycocotools', 'scipy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "set()"


def test_evidence_holds_labelled_keypoints_only() -> None:
    rows = pd.DataFrame({"image_id": [7, 7, 9], "visible": [2, 0, 1], "error_px": [1.0, 5.0, np.nan]})
    evidence = Evidence.of(rows, np.array([5, 7, 9]))
    np.testing.assert_array_equal(evidence.image, [1, 2])
    np.testing.assert_array_equal(evidence["error_px"], [1.0, np.nan])
    twice = evidence.resampled(np.array([4, 2, 0]))
    np.testing.assert_array_equal(twice["error_px"], [1.0, 1.0])
