"""Charts, comparisons and their cache, the worker process, and the figures of ``kplab figure``."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from kplab.apps.dashboard import jobs, views
from kplab.apps.dashboard.results import Results
from kplab.apps.dashboard.server import Service
from kplab.apps.dashboard.worker import JobError, Worker
from kplab.cli import main as cli
from kplab.errors import ConfigError
from kplab.metrics.compare import compare
from kplab.metrics.metric import row_of
from kplab.metrics.score import Scores
from kplab.runs.run import Run
from kplab.tasks.evaluation import curves, figures
from kplab.viz import chart
from kplab.viz.plot import KINDS, Plot, Series

SET = "dots-test"


def scores_of(made, *names: str) -> dict[str, Scores]:
    return {n.split("_")[2]: Scores.read(made.runs_dir / n / "scores" / f"{SET}.json") for n in names}


def test_a_running_training_of_a_duration_says_the_time_left(made, tmp_path: Path) -> None:
    """Its config has a first number of epochs only, which is not shown."""
    folder = tmp_path / made.running
    shutil.copytree(made.runs_dir / made.running, folder)
    plain = views.progress(Run.open(folder))
    assert plain is not None
    assert (plain["epoch"], plain["epochs"]) == (6, 12)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"duration": 10**6}))
    found = views.progress(Run.open(folder))
    assert found is not None
    assert (found["epoch"], found["epochs"]) == (6, None)
    assert 0.99e6 < found["left"] <= 1e6


def test_the_verdicts_are_those_of_compare(made) -> None:
    scores = scores_of(made, made.a, made.b)
    result = compare(scores)
    found = jobs.comparison_json(result)
    for row, shown in zip(result.differences.itertuples(), found["differences"], strict=True):
        assert (shown["a"], shown["b"], shown["metric"]) == (row.a, row.b, row.metric)
        assert (shown["difference"], shown["low"], shown["high"]) == (-row.difference, -row.high, -row.low)
        metric = row_of(row.metric)
        assert metric is not None
        better = row.a if (row.difference > 0) == metric.higher_is_better else row.b
        assert shown["verdict"] == ("no difference shown" if row.zero_inside else f"{better} is better")
    assert {d["verdict"] for d in found["differences"]} >= {"alpha is better"}


def test_a_refused_comparison_says_why(made) -> None:
    folders = {"alpha": str(made.runs_dir / made.a), "delta": str(made.runs_dir / made.other_card)}
    assert "max_dets" in jobs.intervals(folders, SET)["refused"]


def test_charts_of_scores_show_the_metrics(made) -> None:
    """PCK at a threshold, the CDF at the median, and the mean of precision over recalls are the metrics of the scores."""
    scores = scores_of(made, made.a, made.b)
    for run, own in scores.items():
        (curve,) = (s for s in figures.pck(scores).series if s.name == run)
        for t in (2.0, 5.0):
            assert np.interp(t, curve.x, curve.y) == pytest.approx(own.summary[f"pck@{t:g}"], abs=0.02)  # type: ignore[arg-type]
        (cdf,) = (s for s in figures.error_cdf(scores).series if s.name == run)
        found = np.interp(own.summary["median_px"], cdf.x, cdf.y)  # type: ignore[arg-type]
        labelled = own.keypoints["visible"] > 0
        predicted = float(np.isfinite(own.keypoints.loc[labelled, "error_px"]).mean())
        assert found == pytest.approx(predicted / 2, abs=0.01)
        (first,) = (s for s in figures.precision_recall(scores).series if s.name == f"{run} OKS 0.50")
        assert np.mean(first.y) == pytest.approx(own.summary["AP50"], abs=1e-5)  # type: ignore[arg-type]


def test_curves_that_are_being_written(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    assert curves.curves_by_epoch(Run(tmp_path, {})) == {}
    path.write_text("epoch,lr,train/loss_epoch,val/AP\n,0.1,,\n0,,2.0,\n0,,4.0,0.5\n1,,1.0,\n,0.2,,\n2,,nan,0.7\n3,,0.")
    found = curves.curves_by_epoch(Run(tmp_path, {}))
    assert found["train/loss_epoch"] == {1: 3.0, 2: 1.0}
    assert found["val/AP"] == {1: 0.5, 3: 0.7}
    assert found["lr"] == {1: 0.1, 3: 0.2}
    (loss, metric, rate) = curves.curve_plots({"run": found})
    assert [p.title for p in (loss, metric, rate)] == ["loss", "metric", "learning rate"]
    for damaged in ("", "no numbers at all\n", "epoch\n", "a,b\n1,2\n", "\x00\xff\n1\n"):
        path.write_bytes(damaged.encode("latin-1"))
        curves.curves_by_epoch(Run(tmp_path, {}))


def test_speed_and_size_of_the_front(made) -> None:
    runs = [Run.open(made.runs_dir / n) for n in (made.a, made.b)]
    points = [
        figures.point_of(r, r.name, s) for r, s in zip(runs, scores_of(made, made.a, made.b).values(), strict=True)
    ]
    assert [p["speed"] for p in points] == pytest.approx([100 / 1.5, 25.0])
    assert [p["parameters"] for p in points] == [1.2, 1.2]
    assert {p.name for p in figures.pareto_plots(points)} == {"pareto-mean_px", "pareto-speed", "pareto-parameters"}
    for ap, shown in ((0.0, 2), (-1.0, 1), (None, 1)):
        (first, *_) = figures.pareto_plots([points[0], {**points[1], "AP": ap}])
        assert len([s for s in first.series if not s.dashed]) == shown, f"AP {ap}"


def test_results_are_computed_once_and_anew_when_the_scores_change(made, service: Service, tmp_path: Path) -> None:
    results = Results(made.runs_dir, tmp_path)
    try:
        asked = {"runs": f"{made.a},{made.b}", "set": SET}
        first = results.analysis(asked)
        results.analyst.call = None  # type: ignore[assignment, method-assign]
        assert results.analysis(asked) == first
        record = made.runs_dir / made.a / "scores" / f"{SET}.record.json"
        before = record.read_text()
        try:
            record.write_text(before + " ")
            with pytest.raises(TypeError, match="not callable"):
                results.analysis(asked)
        finally:
            record.write_text(before)
    finally:
        del results.analyst.call
        results.close()


def test_scores_that_have_changed_since_are_refused(made, service: Service) -> None:
    path = made.runs_dir / made.seeds[2] / "scores" / f"{SET}.images.csv"
    before = path.read_bytes()
    try:
        path.write_bytes(before + b"\n")
        with pytest.raises(JobError, match="has changed since it was written"):
            service.results.analysis({"runs": made.seeds[2], "set": SET})
    finally:
        path.write_bytes(before)


def test_a_worker_ends_when_it_is_idle_and_starts_again(made) -> None:
    worker = Worker(idle=0.5)
    try:
        folders = {"alpha": str(made.runs_dir / made.a)}
        with pytest.raises(JobError, match="no such run"):
            worker.call("analysis", folders={"x": str(made.runs_dir / "nothing_here")}, name=SET)
        first = worker.process
        assert first is not None
        worker.call("analysis", folders=folders, name=SET)
        deadline = time.monotonic() + 20
        while first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert first.poll() is not None
        worker.call("analysis", folders=folders, name=SET)
        assert worker.process is not None
        os.kill(worker.process.pid, 9)
        worker.process.wait()
        worker.process.poll = lambda: None  # type: ignore[method-assign]
        with pytest.raises(JobError, match="ended early"):
            worker.call("analysis", folders=folders, name=SET)
    finally:
        worker.close()


def test_figures_from_the_shell(made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["figure", f"runs=[{made.a},{made.b}]", f"runs_dir={made.runs_dir}", f"out={tmp_path}"]
    assert cli([*base, "plots=[pck,differences-AP]", "format=svg"]) == 0
    text = (tmp_path / "pck.svg").read_text()
    assert ">alpha<" in text
    assert ">beta<" in text
    assert all(c.lower() in text.lower() for c in chart.PALETTE[:2])
    assert (tmp_path / "differences-AP.svg").is_file()
    width = 3.4 * 72
    assert f'width="{width:.6g}pt"' in text
    assert cli([*base, "plots=[nothing]"]) == 2
    assert "These runs have: " in capsys.readouterr().err
    for wrong in ("format=gif", "width=0", "runs=[]"):
        assert cli([*base, wrong]) == 2
    assert (
        cli(["figure", f"runs=[{made.running}]", f"runs_dir={made.runs_dir}", f"out={tmp_path}", "plots=[curves-loss]"])
        == 0
    )
    assert (tmp_path / "curves-loss.pdf").read_bytes().startswith(b"%PDF")


def test_the_palette_of_the_pages_is_that_of_the_figures() -> None:
    source = (Path(jobs.__file__).parent / "static" / "chart.js").read_text()
    line = next(line for line in source.splitlines() if line.startswith("export const PALETTE"))
    shown = json.loads(line.partition("= ")[2].rstrip(";"))
    assert shown[:-1] == list(chart.PALETTE[:-1])
    assert shown[-1] == "currentColor", "ink, which is light in a dark theme"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["svg", "pdf", "png"])
def test_every_kind_is_drawn_in_every_format(kind: str, form: str) -> None:
    rows = ["a", "b"] if kind in ("dot", "bar") else []
    series = [
        Series("one", [1.0, None], [2.0, 3.0], [0.5, None], [1.5, None], ["p", "q"]),
        Series("two", [None, 2.0], [1.0, None], colour=1, dashed=kind == "line"),
    ]
    plot = Plot("name", "title", kind, "x", "y", series, rows)
    content = chart.encoded(plot, form)
    assert content.startswith({"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}[form])
    assert content == chart.encoded(plot, form), "the same chart gives the same bytes"


@pytest.mark.parametrize("args", [{"runs": ""}, {"runs": "a,a"}, {"runs": ",".join(map(str, range(9)))}])
def test_the_number_of_runs_is_limited(service: Service, args: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="choose 1 to 8 different runs"):
        service.results.runs(args)
