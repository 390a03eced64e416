"""``kplab demo``: make data, train two models, evaluate and compare them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from kplab.tasks import compose

EXAMPLE = "kplab demo"

DIFFERENCE = "augment"
CHOICES = ("none", "light")


@dataclass
class Options:
    """Keys of ``kplab demo``."""

    overrides: list[str] = field(default_factory=list)
    runs_dir: str = MISSING


def main(args: list[str]) -> None:
    """Make data, train two models that differ in one option, score and compare them, and print next steps."""
    from kplab.runs.run import Run
    from kplab.runs.table import clock
    from kplab.tasks.evaluation.comparison import compare_runs
    from kplab.tasks.evaluation.pictures import see_predictions
    from kplab.tasks.training.together import train_together
    from kplab.tasks.training.train import trained
    from kplab.tasks.wiring.datasets import read_splits
    from kplab.tasks.wiring.identity import find_run

    begun = time.perf_counter()
    options = compose("demo", args)
    more = [*map(str, options.overrides), f"runs_dir={options.runs_dir}"]
    trainings = {
        f"{DIFFERENCE}={choice}": [
            "experiment=heatmap_demo", f"{DIFFERENCE}={choice}", f"name=demo_{DIFFERENCE}-{choice}", *more
        ]
        for choice in CHOICES
    }  # fmt: skip
    configs = {label: compose("train", overrides) for label, overrides in trainings.items()}
    print("=== data", flush=True)
    config = next(iter(configs.values()))
    read_splits(config.dataset)  # made here, and not by each process
    missing = {
        label: trainings[label]
        for label, c in configs.items()
        if (run := find_run(c)) is None or run.status != "finished"
    }
    if missing:
        print(f"\n=== {len(missing)} trainings side by side", flush=True)
        train_together(missing)
    runs: dict[str, Run] = {c.name: trained(c) for c in configs.values()}
    pictures = Path(config.runs_dir).parent / "demo"
    for name, run in runs.items():
        see_predictions(run, config.test_on[0], pictures, label=name)
    print("\n=== comparison\n")
    compare_runs(list(runs.values()), config.test_on[0], pictures / "comparison", labels=list(runs))
    print(
        f"""
pictures: {pictures}
took:     {clock(time.perf_counter() - begun)}

Next, try:
  make notebooks                                     the notebooks: data, ceilings, training, predictions
  ./kplab train experiment=heatmap_demo head=simcc   another head; then: ./kplab compare runs=[A,B]
  ./kplab train dataset=coco dataset.folder=PATH     your own data in COCO's layout
  ./kplab data formats                               other formats of your own data (README, "Your own data")"""
    )
