"""Benchmarks: one training per family of detectors on one dataset, and one table. Finished trainings are not repeated."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from kplab import config as configs
from kplab.errors import ConfigError
from kplab.metrics.metric import metrics_of, row_of
from kplab.runs.records import make_folder, read_record, write_record
from kplab.runs.run import Run
from kplab.runs.table import clock
from kplab.structures.predictions import card_path
from kplab.tasks import compose
from kplab.tasks.evaluation.comparison import compare_runs
from kplab.tasks.evaluation.files import check_current, score_files
from kplab.tasks.wiring.identity import find_run
from kplab.tasks.wiring.nodes import load_config


def benchmark(config: DictConfig) -> None:
    """Train the families that are not trained yet, then write one table of all.

    Raises:
        ConfigError: a family has no experiment, or trainings failed; the others are trained and compared nevertheless.
    """
    plans = {str(family): overrides_of(str(family), config) for family in config.families}
    # all configs are checked before the first training
    wanted = {family: compose("train", overrides) for family, overrides in plans.items()}
    make_folder(out_of(config))
    failed = []
    for number, (family, overrides) in enumerate(plans.items(), 1):
        title = f"--- {number}/{len(plans)} {family}"
        run = find_run(wanted[family])
        if run is not None and run.status == "finished":
            print(f"{title}: done already, {run.name}", flush=True)
            continue
        if run is not None and (run.folder / "checkpoints" / "last.ckpt").is_file():
            overrides = [*overrides, f"resume={run.folder}"]
        print(f"{title}: kplab train {' '.join(overrides)}", flush=True)
        done = subprocess.run([sys.executable, "-m", "kplab.cli", "train", *overrides], check=False)
        if done.returncode == 130:
            raise KeyboardInterrupt
        if done.returncode != 0:
            failed.append(f"{family} (exit {done.returncode})")
    runs = {
        family: run for family, c in wanted.items() if (run := find_run(c)) is not None and run.status == "finished"
    }
    if runs:
        print(f"table: {write(runs, config)}")
    if failed:
        raise ConfigError("these families failed: " + ", ".join(failed) + ". The same command tries them again.")


def out_of(config: DictConfig) -> Path:
    """The folder of the table."""
    return Path(config.out) if config.out else Path(config.runs_dir).parent / "benchmarks" / str(config.data)


def overrides_of(family: str, config: DictConfig) -> list[str]:
    """Overrides of a family's training: its experiment for this dataset, or its general one with this dataset.

    Raises:
        ConfigError: it has neither.
    """
    folder = configs.conf_dir() / "experiment"
    general = f"{family}_{config.general}"
    more = [str(o) for o in config.overrides] + [f"runs_dir={config.runs_dir}"]
    own = f"{family}_{config.data}"
    if (folder / f"{own}.yaml").is_file():
        return [f"experiment={own}", *more]
    if not (folder / f"{general}.yaml").is_file():
        known = sorted(p.stem.removesuffix(f"_{config.general}") for p in folder.glob(f"*_{config.general}.yaml"))
        raise ConfigError(
            f"family '{family}' has neither experiment {family}_{config.data} nor {general}. Families of any dataset: {', '.join(known)}."
        )
    return [f"experiment={general}", f"dataset={config.data}", f"name={family}_{config.data}", *more]


def write(runs: dict[str, Run], config: DictConfig) -> Path:
    """Compare the runs, and write ``table.csv``, ``table.md`` and their record beside the comparison; prints both.

    Returns:
        Path of the markdown.
    """
    out = out_of(config)
    out.mkdir(parents=True, exist_ok=True)
    name = f"{load_config(next(iter(runs.values()))).dataset.name}-{config.split}"
    comparison, _ = compare_runs(list(runs.values()), name, out, labels=list(runs))
    values = comparison.values.set_index(["run", "metric"])
    table = pd.DataFrame([line_of(family, run, name, values.loc[family]) for family, run in runs.items()])
    table.to_csv(out / "table.csv", index=False)
    path = out / "table.md"
    path.write_text(markdown(table))
    made_from = {"comparison": out / "comparison.json"}
    made = {family: run.name for family, run in runs.items()}
    write_record(path, configs.workspace(), made_from, [out / "table.csv"], runs=made, scores=name)
    print("\n" + table.to_string(index=False))
    return path


def line_of(family: str, run: Run, name: str, values: pd.DataFrame) -> dict[str, Any]:
    """The line of one family: metrics with intervals (families of thresholds without), counts, size and speed.

    Args:
        family: of detectors.
        run: its run.
        name: of the scores, ``<dataset>-<split>``.
        values: metric name to value, low and high.
    """
    path, predictions = score_files(run)[name], run.folder / "predictions" / f"{name}.json"
    for file in (path, predictions):
        read_record(file)
    scores = json.loads(path.read_text())
    s, card = scores["summary"], scores["card"]
    made = json.loads(card_path(predictions).read_text())
    metrics = {}
    for metric in metrics_of(card, "benchmark"):
        v = values.loc[metric.name]
        interval = "" if metric.each else f" [{metric.text(v['low'])}, {metric.text(v['high'])}]"
        metrics[metric.name] = metric.text(v["value"]) + interval
    return {
        "family": family,
        **metrics,
        "found": s["n_matched"],
        "missed": s["n_missed"],
        "extra": s["n_extra"],
        "boxes": card["boxes"],
        "median_px on annotated boxes": on_annotated_boxes(run, name),
        "M parameters": round(run.record["parameters"] / 1e6, 1),
        "training": clock(run.record["fit_seconds"]),
        "images/s trained": run.record["images_per_s"],
        "images/s predicted": made["images_per_s"],
        "run": run.name,
    }


def on_annotated_boxes(run: Run, name: str) -> str:
    """The median error of a cascade on annotated boxes; '-' where it was not scored on them."""
    path, metric = score_files(run).get(f"{name}-annotated"), row_of("median_px")
    if path is None or metric is None:
        return "-"
    check_current(run, f"{name}-annotated")
    return metric.text(json.loads(path.read_text())["summary"]["median_px"])


def markdown(table: pd.DataFrame) -> str:
    """A table as markdown."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines) + "\n"
