"""``kplab benchmark``: families of detector side by side on one dataset. What is done already is not done again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from kplab import config as configs
from kplab.errors import ConfigError
from kplab.runs.run import Run, write_record
from kplab.runs.table import clock, rows
from kplab.structures.predictions import card_path
from kplab.tasks import compose
from kplab.tasks.evaluation.comparison import compare_runs
from kplab.tasks.wiring.nodes import load_config

#: Keys that say how a training went on and not what it is.
PASSING = ("resume", "parent")


def benchmark(config: DictConfig) -> None:
    """Train what is missing, then write one table.

    Raises:
        ConfigError: a family has no experiment, or some trainings failed; the others are done and compared all the same.
    """
    plans = {str(family): overrides_of(str(family), config) for family in config.families}
    # every one of them composes before the first is trained
    wanted = {family: compose("train", overrides) for family, overrides in plans.items()}
    failed = []
    for number, (family, overrides) in enumerate(plans.items(), 1):
        title = f"--- {number}/{len(plans)} {family}"
        run = run_of(wanted[family])
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
    runs = {family: run for family, c in wanted.items() if (run := run_of(c)) is not None and run.status == "finished"}
    if runs:
        print(f"table: {write(runs, config)}")
    if failed:
        raise ConfigError("these families failed: " + ", ".join(failed) + ". The same command tries them again.")


def overrides_of(family: str, config: DictConfig) -> list[str]:
    """What to train: the family's experiment for this dataset, or its general one with the dataset put in.

    Raises:
        ConfigError: there is neither.
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


def run_of(wanted: DictConfig) -> Run | None:
    """The newest finished run of a config, else the newest one that ended early, else None."""
    early = None
    for row in rows(Path(wanted.runs_dir)):
        if row["status"] not in ("finished", "failed"):
            continue
        run = Run.open(Path(wanted.runs_dir) / row["run"])
        if (run.folder / "config.yaml").is_file() and same(load_config(run), wanted):
            if row["status"] == "finished":
                return run
            early = early or run
    return early


def same(one: DictConfig, other: DictConfig) -> bool:
    """Whether two configs describe one training."""
    a, b = (OmegaConf.to_container(c, resolve=True) for c in (one, other))
    assert isinstance(a, dict) and isinstance(b, dict)  # noqa: PT018
    # a run that was made before a key existed is one that left it null
    said = [{k: v for k, v in c.items() if k not in PASSING and v is not None} for c in (a, b)]
    return said[0] == said[1]


def write(runs: dict[str, Run], config: DictConfig) -> Path:
    """Compare the runs, and write ``table.csv`` and ``table.md`` beside the comparison; prints both.

    Returns:
        Path of the markdown.
    """
    out = Path(config.out) if config.out else Path(config.runs_dir).parent / "benchmarks" / str(config.data)
    out.mkdir(parents=True, exist_ok=True)
    name = f"{load_config(next(iter(runs.values()))).dataset.name}-{config.split}"
    comparison, _ = compare_runs(list(runs.values()), name, out)
    labels = dict(zip(runs, dict.fromkeys(comparison.values["run"]), strict=True))
    values = comparison.values.set_index(["run", "metric"])
    table = pd.DataFrame([row_of(family, run, name, values.loc[labels[family]]) for family, run in runs.items()])
    table.to_csv(out / "table.csv", index=False)
    path = out / "table.md"
    path.write_text(markdown(table))
    write_record(out, configs.workspace(), runs={family: run.name for family, run in runs.items()}, scores=name)
    print("\n" + table.to_string(index=False))
    return path


def row_of(family: str, run: Run, name: str, values: pd.DataFrame) -> dict[str, Any]:
    """One family's line: how good, how sure, how fast, how large."""
    scores = json.loads((run.folder / "scores" / f"{name}.json").read_text())
    s, card = scores["summary"], scores["card"]
    made = json.loads(card_path(run.folder / "predictions" / f"{name}.json").read_text())
    figures = {}
    for metric, digits in (("AP", 3), ("mean_px", 2), ("median_px", 2)):
        v = values.loc[metric]
        figures[metric] = f"{v['value']:.{digits}f} [{v['low']:.{digits}f}, {v['high']:.{digits}f}]"
    figures |= {metric: f"{values.loc[metric, 'value']:.3f}" for metric in values.index if metric.startswith("pck@")}
    given = json.loads(path.read_text())["summary"] if (path := annotated(run, name)).is_file() else None
    return {
        "family": family,
        **figures,
        "found": s["n_matched"],
        "missed": s["n_missed"],
        "extra": s["n_extra"],
        "boxes": card["boxes"],
        "median_px on annotated boxes": f"{given['median_px']:.2f}" if given else "-",
        "M parameters": round(run.record["parameters"] / 1e6, 1),
        "training": clock(run.record["fit_seconds"]),
        "images/s trained": run.record["images_per_s"],
        "images/s predicted": made["images_per_s"],
        "run": run.name,
    }


def annotated(run: Run, name: str) -> Path:
    """Where the scores of a cascade on annotated boxes lie."""
    return run.folder / "scores" / f"{name}-annotated.json"


def markdown(table: pd.DataFrame) -> str:
    """A table as markdown."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines) + "\n"
