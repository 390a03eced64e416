"""``kplab data``: read a dataset, check it, and draw some of it; with --formats, list the label formats and their keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from kplab.errors import printable
from kplab.tasks import compose

EXAMPLE = "kplab data dataset=mouse"


@dataclass
class Options:
    """Keys of ``kplab data``."""

    dataset: dict[str, Any] = field(default_factory=dict)
    pictures: int = 12
    out: str = MISSING


def main(args: list[str]) -> None:
    """Read a dataset, check every image, count its contents and draw some of them; or list the formats."""
    if "--formats" in args:
        from kplab.data.formats import describe_formats

        print(describe_formats())
        return
    from kplab.data.check import check_labels
    from kplab.runs.records import make_folder
    from kplab.tasks.evaluation.overview import describe, sheet
    from kplab.tasks.wiring.datasets import read_splits
    from kplab.viz import poses as drawing

    config = compose("data", args)
    splits = read_splits(config.dataset)
    out = make_folder(Path(config.out))
    # all splits of one source have the notes of its reader
    for note in dict.fromkeys(note for labels in splits.values() for note in labels.notes):
        print(printable(f"{config.dataset.name}: {note}"))
    for name, labels in splits.items():
        print(printable(describe(config.dataset.name, name, labels)))
        report = check_labels(labels, deep=True)
        for warning in report.warnings:
            print(printable(f"  {warning}"))
        report.raise_if_errors()
        if config.pictures < 1:
            continue
        path = out / f"{config.dataset.name}-{name}.png"
        drawing.write_png(path, sheet(labels, config.pictures))
        print(f"  pictures: {path}")
