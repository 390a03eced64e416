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
    from kplab.tasks.training.train import trained

    begun = time.perf_counter()
    options = compose("demo", args)
    more = [*map(str, options.overrides), f"runs_dir={options.runs_dir}"]
    runs: dict[str, Run] = {}
    for choice in CHOICES:
        name = f"demo_{DIFFERENCE}-{choice}"
        config = compose("train", ["experiment=heatmap_demo", f"{DIFFERENCE}={choice}", f"name={name}", *more])
        print(f"\n=== {len(runs) + 1}/{len(CHOICES)}: {DIFFERENCE}={choice}", flush=True)
        runs[name] = trained(config)
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
  ./kplab data --formats                             other formats of your own data (README, "Your own data")"""
    )
