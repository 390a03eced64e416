"""``kplab demo``: data, two trainings that differ in one thing, scores, a comparison, and what to do next."""

from __future__ import annotations

import time
from pathlib import Path

from kplab import config as configs
from kplab.runs.run import Run
from kplab.runs.table import clock
from kplab.tasks.compare import compare_runs
from kplab.tasks.pictures import see_predictions
from kplab.tasks.train import trained

DIFFERENCE = "augment"
CHOICES = ("none", "standard")


def main(args: list[str]) -> None:
    """Entry of the verb."""
    begun = time.perf_counter()
    runs: list[Run] = []
    for choice in CHOICES:
        config = configs.compose(
            "train", ["experiment=demo", f"{DIFFERENCE}={choice}", f"name=demo_{DIFFERENCE}-{choice}", *args]
        )
        print(f"\n=== {len(runs) + 1}/{len(CHOICES)}: {DIFFERENCE}={choice}", flush=True)
        runs.append(trained(config))
    pictures = Path(config.runs).parent / "demo"
    for run in runs:
        see_predictions(run, config.test_on[0], pictures)
    print("\n=== comparison\n")
    compare_runs(runs, config.test_on[0], pictures / "comparison")
    print(
        f"""
pictures: {pictures}
took:     {clock(time.perf_counter() - begun)}

Next, try:
  make notebooks                                           the notebooks: data, ceilings, training, predictions, comparison
  kplab train experiment=demo head=simcc                   the same with another head; then: kplab compare runs=[A,B]
  kplab train dataset=coco dataset.folder=PATH             your own data: any folder in COCO's layout (README, "Your own data")"""
    )
