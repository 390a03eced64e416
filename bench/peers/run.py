"""The same minutes for kplab, Ultralytics, SLEAP-NN and DeepLabCut on the same images (docs/peers.md).

    make peers DATASETS="lp_mirror_mouse tiger_pose_val" BUDGET=5m PEERS="kplab by_hand ultralytics sleap_nn dlc"
    python bench/peers/run.py lp_mirror_mouse --budget 5m --peers kplab ultralytics

Each system is trained on the training split by its own defaults for the same time, in an environment of its own (``.peers/``), and
predicts the test split; kplab's evaluator scores all predictions. ``table.md``, ``results.json``, predictions and pictures are
written to ``benchmarks/peers``; rows of earlier calls with the same budget and images stay. A system that fails has a row that says
why, and the exit status is 1.

The systems are programs of others, with licences of their own (Ultralytics: AGPL-3.0). They are run as separate processes: kplab
neither imports nor ships them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from seeds import over_seeds
from splits import Split, read_split
from systems import SYSTEMS, PeerError, Terms, Tools

import kplab
from kplab.config import workspace
from kplab.errors import KplabError
from kplab.metrics.score import Scores
from kplab.structures.predictions import Predictions
from kplab.tasks.evaluation.pictures import overlays, ranked
from kplab.tasks.planning.plan import seconds_of
from kplab.viz import poses as drawing

PICTURES = 8
#: Metric of ``Scores.summary`` to its column and digits.
FIGURES = {
    "AP": ("AP", 3),
    "mean_px": ("mean px", 2),
    "median_px": ("median px", 2),
    "pck@0.05": ("PCK@0.05", 3),
    "pck@0.1": ("PCK@0.1", 3),
}
#: Of ``results.json``; files of other formats are replaced.
FORMAT = 3
#: The system that others are compared with, and metrics of which the table states the difference to its digits.
REFERENCE = "kplab"
AHEAD = {"AP": 3, "mean_px": 2}


def best_of(predictions: Predictions, count: int) -> Predictions:
    """The predictions of the highest scores, so many of each image at most."""
    best = {i: poses[np.argsort(-poses.score, kind="stable")[:count]] for i, poses in predictions.poses.items()}
    return replace(predictions, poses=best)


def figures_of(scores: Scores) -> dict[str, Any]:
    """The figures of a row of the table."""
    points = scores.per_keypoint
    return {
        # None: there is no such figure, as where nothing is found
        **{key: None if math.isnan(scores.summary[key]) else float(scores.summary[key]) for key in FIGURES},
        "missed_subjects": int(scores.summary["n_missed"]),
        "subjects": int(scores.summary["n_instances"]),
        "missed_keypoints": int(points["n_keypoints_missed"].sum()),
        "keypoints": int(points["n_keypoints"].sum()),
    }


def measure(name: str, split: Split, terms: Terms, out: Path, tools: Tools) -> list[dict[str, Any]]:
    """The rows of a system on a dataset; one with ``error`` for each that failed."""
    if name not in SYSTEMS:
        error = f"unknown system; use one of {', '.join(SYSTEMS)}"
        return [{"peer": name, "system": name, "seed": terms.seed, "error": error}]
    rows: list[dict[str, Any]] = []
    for system, train in SYSTEMS[name].rows(split).items():
        row: dict[str, Any] = {"peer": name, "system": system, "seed": terms.seed}
        print(f"{split.name}: {system}, {terms.seconds:g} s, seed {terms.seed}", flush=True)
        work = folder_of(row, out)
        try:
            SYSTEMS[name].prepare(tools)
            begun = time.perf_counter()
            made = train(split, work, terms, tools)
            best = best_of(made.predictions, split.subjects)
            scores = kplab.evaluate(best, split.test)
        except (PeerError, KplabError, OSError, ValueError, KeyError) as error:
            rows.append({**row, "error": " ".join(str(error).split())})
            print(f"  failed: {rows[-1]['error']}", flush=True)
            continue
        best.write(work.with_suffix(".json"))
        draw(best, scores, split, work.with_suffix(".png"))
        entries = {key: value for key, value in vars(made).items() if key != "predictions"}
        took = round(time.perf_counter() - begun, 1)
        rows.append({**row, **entries, "command_seconds": took, **figures_of(scores)})
    return rows


def folder_of(row: dict[str, Any], out: Path) -> Path:
    """The folder of a row's training; its predictions and its picture are files of the same name."""
    return out / (re.sub(r"\W+", "_", row["system"]) + (f"_seed{row['seed']}" if row["seed"] else ""))


def differences(rows: list[dict[str, Any]], split: Split, out: Path) -> dict[str, Any]:
    """Add to each row by how much ``kplab`` of the same seed is better, with its interval.

    Returns:
        system to the same over all seeds that it and ``kplab`` have, for systems with several.
    """
    scores: dict[str, dict[int, Scores]] = {}
    for row in rows:
        row.pop("ahead", None)  # of an earlier call
        if "error" not in row:
            found = Predictions.read(folder_of(row, out).with_suffix(".json"), split.skeleton)
            scores.setdefault(row["system"], {})[row["seed"]] = kplab.evaluate(found, split.test)
    reference = scores.pop(REFERENCE, {})
    for row in rows:
        one, other = reference.get(row["seed"]), scores.get(row["system"], {}).get(row["seed"])
        if one is not None and other is not None:
            row["ahead"] = over_seeds([(one, other)], tuple(AHEAD))
    together = {}
    for system, own in scores.items():
        seeds = sorted(own.keys() & reference.keys())
        if len(seeds) > 1:
            pairs = [(reference[seed], own[seed]) for seed in seeds]
            together[system] = {"seeds": seeds, **over_seeds(pairs, tuple(AHEAD))}
    return together


def draw(found: Predictions, scores: Scores, split: Split, path: Path) -> None:
    """Write truth and predictions of typical images, from the middle of the ranking."""
    order = ranked(scores)
    middle = max(0, (len(order) - PICTURES) // 2)
    ids = order[middle : middle + PICTURES].tolist()
    sheet = drawing.contact_sheet(overlays(split.test, found, ids), columns=4, labels=[str(i) for i in ids])
    note = "rings: truth; dots: prediction; lines between them: errors"
    drawing.write_png(path, drawing.with_legend(sheet, split.skeleton, note))


def signed(interval: list[float] | None, digits: int) -> str:
    """A difference with its interval, as a cell of the table."""
    if interval is None:
        return "-"
    value, low, high = (f"{v:+.{digits}f}" for v in interval)
    return f"{value} [{low}, {high}]"


def table_of(found: dict[str, dict[str, Any]], budget: str) -> str:
    """All rows as Markdown, and what they hold under."""
    heads = [
        "dataset",
        "system",
        "model",
        "starts from",
        "seed",
        "training, s",
        "epochs begun",
        *(c for c, _ in FIGURES.values()),
        *(f"{REFERENCE} less it, {FIGURES[key][0]}" for key in AHEAD),
    ]
    lines = [f"Budget: {budget} for each system.", "", f"| {' | '.join([*heads, 'missed keypoints'])} |"]
    lines.append("|" + "---|" * (len(heads) + 1))
    for dataset, content in found.items():
        for row in content["rows"]:
            if "error" in row:
                cells = [dataset, row["system"], f"failed: {row['error']}".replace("|", "/"), *[""] * (len(heads) - 2)]
            else:
                cells = [dataset, row["system"], row["model"], f"{row['weights']} weights"]
                cells += [str(row["seed"]), f"{row['train_seconds']:.0f}", str(row["epochs"])]
                cells += ["-" if row[key] is None else f"{row[key]:.{n}f}" for key, (_, n) in FIGURES.items()]
                cells += [signed(row.get("ahead", {}).get(key), digits) for key, digits in AHEAD.items()]
                cells.append(f"{row['missed_keypoints']} of {row['keypoints']}")
            lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    lines += seeds_of(found)
    for dataset, content in found.items():
        lines.append(f"{dataset}: {content['train']} training and {content['test']} test images, {content['split']}.")
    versions = {n: v for c in found.values() for row in c["rows"] for n, v in row.get("versions", {}).items()}
    lines += ["Versions: " + ", ".join(f"{n} {v}" for n, v in sorted(versions.items())) + ".", ""]
    return "\n".join(lines)


def seeds_of(found: dict[str, dict[str, Any]]) -> list[str]:
    """A second table, of systems that were trained with several seeds."""
    lines = []
    for dataset, content in found.items():
        for system, row in content["together"].items():
            cells = [dataset, system, " ".join(map(str, row["seeds"]))]
            cells += [signed(row[key], digits) for key, digits in AHEAD.items()]
            lines.append(f"| {' | '.join(cells)} |")
    heads = ["dataset", "system", "seeds", *(f"{REFERENCE} less it, {FIGURES[key][0]}" for key in AHEAD)]
    return ["Over seeds:", "", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *lines, ""] if lines else []


def main(arguments: list[str]) -> int:
    """Measure every system on every dataset; returns 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", help="names of splits.READERS or of conf/dataset")
    parser.add_argument("--budget", default="5m", help="time of each training: a number with s, m or h")
    parser.add_argument("--peers", nargs="+", default=list(SYSTEMS), metavar="NAME", help=", ".join(SYSTEMS))
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0], metavar="S", help="of the trainings; the split is one"
    )
    parser.add_argument("--out", type=Path, default=workspace() / "benchmarks" / "peers")
    parser.add_argument("--environments", type=Path, default=workspace() / ".peers")
    parser.add_argument("--uv", default=shutil.which("uv") or "uv")
    parser.add_argument("--torch", default="auto", help="build of PyTorch in the environments: auto, cpu, cu128, …")
    given = parser.parse_args(arguments)
    torch = () if given.torch == "auto" else (f"--torch-backend={given.torch}",)
    tools = Tools(given.uv, given.environments.resolve(), torch)
    out = given.out.resolve()
    try:
        seconds = seconds_of(given.budget)
        splits = [read_split(name, out / name / "images") for name in given.datasets]
    except KplabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    out.mkdir(parents=True, exist_ok=True)
    machine: dict[str, Any] = {
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
    }
    found = kept(out / "results.json", given.budget)
    for split in splits:
        entry = {
            "train": len(split.train),
            "test": len(split.test),
            "split": split.made_by,
            "truth": split.test.digest(),
        }
        before = found.get(split.name, {})
        rows = before["rows"] if before.get("truth") == entry["truth"] else []
        for name, seed in ((name, seed) for name in given.peers for seed in given.seeds):
            rows = [row for row in rows if (row["peer"], row["seed"]) != (name, seed)]
            rows += measure(name, split, Terms(seconds, seed), out / split.name, tools)
            rows.sort(key=lambda row: [*SYSTEMS, row["peer"]].index(row["peer"]))
            together = differences(rows, split, out / split.name)
            found[split.name] = {**entry, "rows": rows, "together": together}
            # after each system, so that nothing is lost when a later one is interrupted
            content = {"format": FORMAT, "budget": given.budget, **machine, "datasets": found}
            (out / "results.json").write_text(json.dumps(content, indent=1))
            (out / "table.md").write_text(table_of(found, given.budget))
    print(f"\n{table_of(found, given.budget)}\n{out / 'table.md'}, {out / 'results.json'}")
    rows = [row for name in given.datasets for row in found[name]["rows"] if row["peer"] in given.peers]
    return int(any("error" in row for row in rows))


def kept(path: Path, budget: str) -> dict[str, dict[str, Any]]:
    """Datasets of an earlier call with the same budget; none where there is no such call."""
    content = json.loads(path.read_text()) if path.is_file() else {}
    return content["datasets"] if (content.get("format"), content.get("budget")) == (FORMAT, budget) else {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
