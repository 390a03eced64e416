"""``kplab data check``: apply the rules of the linter to a dataset; exit status 1 if there are errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from kplab.errors import ConfigError, printable
from kplab.tasks import compose

EXAMPLE = "kplab data check dataset=mouse"


@dataclass
class Options:
    """Keys of ``kplab data check``."""

    dataset: dict[str, Any] = field(default_factory=dict)
    rules: list[str] | None = None
    skip: list[str] = field(default_factory=list)
    deep: bool = True
    runs: list[str] = field(default_factory=list)
    predictions: str | None = None
    fix: str | None = None
    json: bool = False
    places: int = 10
    pictures: int = 60
    out: str = MISSING
    runs_dir: str = MISSING


def main(args: list[str]) -> int:
    """Check all splits, print what was found, and write it as JSON and as a page; corrected labels where asked."""
    config = compose("data check", args)
    import json

    from kplab.data.check import LEVELS, Dataset, check_dataset, chosen_rules
    from kplab.runs.files import replacing_text
    from kplab.runs.records import make_folder
    from kplab.tasks.evaluation import findings
    from kplab.tasks.inference.progress import terminal, track_images
    from kplab.tasks.wiring.datasets import read_splits

    if config.runs and config.predictions is not None:
        raise ConfigError("runs and predictions are given, but labels are compared with one of them. Leave one out.")
    rules = None if config.rules is None else list(config.rules)
    chosen = chosen_rules(rules, config.skip)  # a wrong name is an error before images are read
    out = make_folder(Path(config.out))
    target = None if config.fix is None else new_folder(Path(config.fix))
    splits = read_splits(config.dataset)
    predictions = findings.out_of_training(config.runs, Path(config.runs_dir), config.dataset.name, splits)
    if config.predictions is not None:
        if config.runs:
            raise ConfigError(
                "runs and predictions are given, but labels are compared with one of them. Leave one out."
            )
        predictions = findings.of_file(Path(config.predictions), splits)
    # JSON on standard output is for programs: nothing else is printed there
    console = terminal(stderr=config.json)

    def track(items: Any, total: int, what: str) -> Any:
        return track_images(items, total, what, console)

    report = check_dataset(Dataset(splits, config.deep, None, predictions, track), rules, config.skip)
    found = findings.as_json(report)
    with replacing_text(out / "findings.json") as stream:
        json.dump(found, stream, indent=1)
    with replacing_text(out / "findings.html") as stream:
        stream.write(findings.as_page(report, f"{config.dataset.name}: findings of kplab data check", config.pictures))
    lines = []
    for note in dict.fromkeys(note for labels in splits.values() for note in labels.notes):
        lines.append(f"reader: {note}")
    blind = [rule.name for rule in chosen.values() if rule.pixels]
    if blind and not config.deep:
        lines.append(f"not applied, because deep=false reads no pixels: {', '.join(blind)}")
    for level in LEVELS:
        lines += [f"{level}: {line}" for line in report.lines(level, config.places)]
    lines.append(", ".join(f"{number} of level {level}" for level, number in found["levels"].items()))
    lines.append(f"pictures: {out / 'findings.html'}; JSON: {out / 'findings.json'}")
    if target is not None:
        lines += write_fixed(report, config.dataset, target)
    if config.json:
        print(json.dumps(found))
    else:
        print(printable("\n".join(lines)))
    return int(found["levels"]["error"] > 0)


def new_folder(path: Path) -> Path:
    """Refuse a folder that has files, before the work starts."""
    from kplab.errors import DataError
    from kplab.runs.records import make_folder

    if path.exists() and (path.is_file() or any(path.iterdir())):
        raise DataError(f"{path}: exists. fix=FOLDER writes new files only: name a new folder, or delete it first.")
    return make_folder(path, "fix")


def write_fixed(report: Any, dataset: Any, folder: Path) -> list[str]:
    """Write the corrected labels of each split, and what was done; returns lines that state it."""
    import json

    from kplab.data.check.mend import mend
    from kplab.runs.files import replacing_text
    from kplab.tasks.wiring.corrected import write_corrected

    fixed, done = mend(report)
    written = write_corrected(fixed, dataset, folder)
    with replacing_text(folder / "changes.json") as stream:
        json.dump(done, stream, indent=1)
    return [
        f"fix: {len(done)} changes, listed in {folder / 'changes.json'}",
        *(f"corrected labels: {file}" for file in written),
    ]
