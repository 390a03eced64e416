"""``kplab data stats``: statistics of a dataset as tables, a figure and JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from kplab.errors import printable
from kplab.tasks import compose

EXAMPLE = "kplab data stats dataset=lsp"


@dataclass
class Options:
    """Keys of ``kplab data stats``."""

    dataset: dict[str, Any] = field(default_factory=dict)
    split: str | None = None
    out: str = MISSING


def main(args: list[str]) -> None:
    """Print the tables of each split; write ``<dataset>-<split>.png`` and ``.json``."""
    config = compose("data stats", args)
    import json
    from pathlib import Path

    from kplab.data.statistics import statistics
    from kplab.runs.files import replacing_text
    from kplab.runs.records import make_folder
    from kplab.tasks.wiring.datasets import read_split, read_splits
    from kplab.viz import dataset as figures
    from kplab.viz import look, tables

    name, chosen = config.dataset.name, config.split
    splits = {chosen: read_split(config.dataset, chosen)} if chosen else read_splits(config.dataset)
    out = make_folder(Path(config.out))
    for split, labels in splits.items():
        found = statistics(labels)
        print(printable(f"{name} {split}: " + ", ".join(f"{n} {what}" for what, n in found.counts.items())))
        rows = [
            {
                "keypoint": keypoint,
                **{w: f"{s:.1%}" for w, s in zip(("unlabelled", "hidden", "visible"), shares, strict=True)},
                "spread": round(float(spread), 3),
            }
            for keypoint, shares, spread in zip(labels.skeleton.keypoints, found.visibility, found.spread, strict=True)
        ]
        print(printable(tables.text(rows)))
        if found.sides:
            print(printable(tables.text(found.sides)))
        figure = figures.statistics(
            labels.skeleton,
            title=f"{name} {split}: {found.counts['images']} images, {found.counts['instances']} instances",
            visibility=found.visibility,
            per_image=found.per_image,
            scale=found.scale,
            poses=found.poses,
            co_occurrence=found.co_occurrence,
            sides=found.sides,
        )
        path = look.write_png(out / f"{name}-{split}.png", figure)
        with replacing_text(path.with_suffix(".json")) as stream:
            stream.write(json.dumps(found.record(labels.skeleton.keypoints), indent=1) + "\n")
        print(printable(f"written: {path} and .json\n"))
