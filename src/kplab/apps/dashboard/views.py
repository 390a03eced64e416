"""What the pages show of runs, as JSON, from their records and score files. Nothing large is read here: ``jobs`` does that."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from kplab.apps.dashboard.index import read_config
from kplab.apps.dashboard.security import file_of
from kplab.errors import KplabError, RunError
from kplab.runs import notes
from kplab.runs.records import list_artefacts, record_path
from kplab.runs.run import Run
from kplab.runs.table import is_outdated, labels_of, leaks_of, outdated_text, reproduction
from kplab.tasks.evaluation.curves import curve_plots, curves_by_epoch
from kplab.tasks.wiring.identity import IRRELEVANT

#: Longest text of a file that a page shows.
LONGEST = 400_000


def run_view(run: Run) -> dict[str, Any]:
    """One run: record, config, scores with their cards, provenance, notes, curves."""
    record, faults = run.record, []
    try:
        written = notes.read(run.folder)
    except KplabError as error:
        written, faults = {"tags": [], "note": ""}, [str(error)]
    sets = score_sets(run, faults)
    return {
        "name": run.name,
        "status": run.status,
        "error": run.error,
        "cut": run.cut,
        "reproduces": reproduction(run) if "reproduces" in record else None,
        "faults": faults,
        "record": record,
        "config": text_of(run, "", "config.yaml"),
        "command": command_line(record.get("command")),
        "reproduce": f"kplab reproduce run={run.name}",
        "notes": written,
        "sets": sets,
        "chain": chain(run, sets),
        "leaks": leaks_of(record),
        "progress": progress(run),
    }


def text_of(run: Run, folder: str, name: str) -> str:
    """The text of a file of a run; empty where it can't be read."""
    try:
        with file_of(run, folder, name).open(errors="replace") as stream:
            return stream.read(LONGEST)
    except (OSError, RunError):
        return ""


def command_line(command: Any) -> str:
    """A recorded command as it is typed."""
    if not isinstance(command, list) or not command:
        return ""
    first = "kplab" if command[0] in ("cli.py", "kplab", "__main__.py") else str(command[0])
    return shlex.join([first, *map(str, command[1:])])


def score_sets(run: Run, faults: list[str]) -> list[dict[str, Any]]:
    """The scores of a run, its main ones first: name, summary, card, record. Faults are appended."""
    found = []
    try:
        listed = list_artefacts(run.folder / "scores")
    except (KplabError, OSError) as error:
        faults.append(str(error))
        listed = []
    for path in listed:
        try:
            content = json.loads(file_of(run, "scores", path.name).read_text())
            record = json.loads(file_of(run, "scores", record_path(path).name).read_text())
            if is_outdated(run.folder, record, check=False):
                faults.append(f"scores {path.stem} are outdated: {outdated_text(run.folder, record)}")
                continue
            found.append(
                {
                    "name": path.stem,
                    "evaluation": content["evaluation"],
                    "summary": dict(content["summary"]),
                    "card": dict(content["card"]),
                    "record": {k: record.get(k) for k in ("made", "made_from", "sha256")},
                    "command": command_line(record.get("command")),
                }
            )
        except (KplabError, ValueError, KeyError, TypeError, OSError, RecursionError) as error:
            faults.append(f"scores/{path.name} can't be read ({error}). Evaluate the run again.")
    return sorted(found, key=lambda s: (s["name"].endswith("-annotated"), s["name"]))


def chain(run: Run, sets: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The provenance from data to scores: steps with their hashes, in order."""
    record = run.record
    dataset, split, code, weights = (_entries(record.get(key)) for key in ("dataset", "split", "code", "weights"))
    steps = [
        {
            "title": f"data {dataset.get('name', '')}",
            "lines": [[k, v] for k, v in dataset.items() if k != "name"],
        },
        {
            "title": "split",
            "lines": [[k, split[k]] for k in ("manifest", "by", "seed", "fold", "sha256") if k in split],
        },
        {
            "title": "training",
            "lines": [
                ["config", record.get("config_sha256")],
                ["code", code.get("commit")],
                ["uncommitted changes", code.get("patch_sha256")],
                ["lock file", record.get("lock_sha256")],
                ["starts from", weights.get("sha256") or record.get("parent")],
            ],
        },
    ]
    for scores in sets:
        predictions = json_of(run, "predictions", f"{scores['name']}.record.json")
        checkpoint = _entries(_entries(predictions.get("made_from")).get("checkpoint"))
        steps += [
            {"title": f"weights {checkpoint.get('file', '')}", "lines": [["sha256", checkpoint.get("sha256")]]},
            {
                "title": f"predictions {scores['name']}",
                "lines": [["sha256", scores["card"].get("predictions_hash")], ["made", predictions.get("made")]],
            },
            {
                "title": f"scores {scores['name']}",
                "lines": [
                    ["evaluation", scores["evaluation"]],
                    ["truth", scores["card"].get("truth_hash")],
                    ["made", scores["record"].get("made")],
                ],
            },
        ]
    return [{**s, "lines": [[k, str(v)] for k, v in s["lines"] if v is not None]} for s in steps]


def _entries(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def json_of(run: Run, folder: str, name: str) -> dict[str, Any]:
    """The content of a JSON file of a run; empty where it can't be read."""
    try:
        content = json.loads(file_of(run, folder, name).read_text())
        return content if isinstance(content, dict) else {}
    except (ValueError, OSError, RunError, RecursionError):
        return {}


def curves_view(runs: Sequence[Run]) -> dict[str, Any]:
    """Learning curves as charts."""
    curves = {label: curves_by_epoch(run) for label, run in zip(labels_of(runs), runs, strict=True)}
    return {"plots": [plot.as_dict() for plot in curve_plots(curves)]}


def progress(run: Run) -> dict[str, Any] | None:
    """How far a running training is: epoch, of how many, loss, seconds left; None for one that does not run."""
    if run.status != "running":
        return None
    config, _ = read_config(run.folder)
    # with a duration, the number of epochs follows from the speed
    duration = config.get("duration")
    total = None if duration else config.get("trainer.max_epochs")
    curves = curves_by_epoch(run)
    epochs = {e for by in curves.values() for e in by}
    done = max(epochs, default=0)
    losses = curves.get("train/loss_epoch") or curves.get("train/loss_step") or {}
    last = losses[max(losses)] if losses else None
    try:
        started = datetime.fromisoformat(str(run.record.get("started"))).timestamp()
        written = (run.folder / "curves.csv").stat().st_mtime
    except (ValueError, OSError):
        started = written = time.time()
    left = None
    if isinstance(duration, int | float) and duration:
        left = max(0.0, started + duration - time.time())
    elif isinstance(total, int) and total > 0 and done:
        complete = len(curves.get("train/loss_epoch", {}))
        share = max(complete, done - 0.5) / total
        left = max(0.0, (written - started) / share * (1 - share) - (time.time() - written))
    return {"run": run.name, "epoch": done, "epochs": total, "loss": last, "left": left}


def differing(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The keys in which the configs of runs differ, with the value of each; keys that never change a result come last."""
    configs = [read_config(run.folder)[0] for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    found = [k for k in keys if len({json.dumps(c.get(k)) for c in configs}) > 1]
    minor = [k for k in found if any(k == e or k.startswith(f"{e}.") for e in IRRELEVANT)]
    ordered = [k for k in found if k not in minor] + minor
    return [{"key": k, "values": [c.get(k) for c in configs], "minor": k in minor} for k in ordered]


def shared_sets(runs: Sequence[Run]) -> list[str]:
    """The names of the scores that all runs have, in the order of the first run's."""
    each = [[s["name"] for s in score_sets(run, [])] for run in runs]
    return [name for name in each[0] if all(name in names for names in each)] if each else []


def stamp_of(run: Run, name: str) -> str:
    """What changes when the scores of a run do: the bytes of their record."""
    path: Path = file_of(run, "scores", f"{name}.record.json")
    try:
        return path.read_text()
    except OSError:
        raise RunError(f"{run.name} has no scores '{name}'. Run: kplab evaluate run={run.name}") from None
