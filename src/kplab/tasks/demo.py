"""``kplab demo``: data, two trainings that differ in one thing, scores, a comparison, and what to do next."""

from __future__ import annotations

import time
from pathlib import Path

from kplab import config as configs
from kplab.config import ConfigError
from kplab.runs.table import clock
from kplab.tasks.compare import compare_runs
from kplab.tasks.pictures import see_predictions
from kplab.tasks.train import train

DIFFERENCE = "augment"
CHOICES = ("none", "standard")


def main(args: list[str]) -> None:
    """Entry of the verb."""
    begun = time.perf_counter()
    runs = []
    for choice in CHOICES:
        config = configs.compose("train", ["experiment=demo", f"{DIFFERENCE}={choice}", f"name=demo_{DIFFERENCE}-{choice}", *args])
        print(f"\n=== {len(runs) + 1}/{len(CHOICES)}: {DIFFERENCE}={choice}", flush=True)
        run = train(config)
        if run is None:
            raise ConfigError("kplab demo runs in one process. Use a trainer without ddp.")
        runs.append(run)
    pictures = Path(config.runs).parent / "demo"
    for run in runs:
        see_predictions(run, config.test_on[0], pictures)
    print("\n=== comparison\n")
    _, folder = compare_runs(runs, config.test_on[0], pictures / "comparison")
    print(
        f"""
pictures: {pictures}
took:     {clock(time.perf_counter() - begun)}

Next, try:
  make notebooks                                           the notebooks: data, ceilings, training, predictions, comparison
  kplab train experiment=demo head=simcc                   the same with another head; then: kplab compare runs=[A,B]
  kplab train dataset=coco dataset.folder=PATH             your own data: any folder in COCO's layout (README, "Your own data")"""
    )
