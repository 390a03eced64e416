"""What each rule of a plan is worth: the same training without it, in the same time.

    python bench/ablate_plan.py FOLDER BUDGET [DATASET…]

FOLDER becomes a workspace as of bench/out_of_fold.py: a half of each dataset is trained on and the other half predicted, so that
no figure comes from the test images of an experiment. For each rule the planned experiment is trained with the rule's choice
replaced by a plain one. Printed are the differences to the whole plan, with 95 % intervals of a paired bootstrap over images;
``ablation.csv`` has them, too. Runs that are there already are not trained again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml
from out_of_fold import BUDGETS, workspace

import kplab

#: Rule to the overrides of a plain choice in its place.
PLAIN = {
    "rotation": ["augment.rotate=0", "augment.rotate_prob=0"],
    "scale": ["augment.scale=[1,1]", "augment.shift=0"],
    "mirroring": ["augment.flip=0", "flip_test=false"],
    "appearance": ["augment.transforms=[]"],
    "window": ["window=null"],
    "published weights": [
        "backbone.pretrained=false",
        "backbone.frozen=[]",
        "backbone.frozen_norm=false",
        "optimizer.rates=null",
    ],
    "slower backbone": ["optimizer.rates=null"],
    "narrow Gaussians": ["head.sigma=2", "head.blur=11"],
    "frozen layers": ["backbone.frozen=[]", "backbone.frozen_norm=false"],
    "averaged weights": ["ema=null"],
}
#: The same of the detector of a cascade.
PARTS = ("backbone.",)
METRICS = ("AP", "mean_px")


def overrides_without(rule: str, planned: dict) -> list[str] | None:
    """The overrides that replace a rule's choice; None where they change nothing."""
    plain = list(PLAIN[rule])
    if "detector" in planned:
        plain += [f"detector.{o}" for o in plain if o.startswith(PARTS)]
    # a key that the plan leaves out has its usual value, which is the plain one
    made = {o.partition("=")[0]: yaml.safe_load(o.partition("=")[2]) for o in plain}
    changed = [key for key, usual in made.items() if value(planned, key) not in (None, usual)]
    return plain if changed else None


def value(tree: dict, key: str) -> object:
    """The value at a dotted key; None if there is none."""
    found: object = tree
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def trained(folder: Path, name: str, overrides: list[str]) -> Path:
    """The run of a name; trained if there is none."""
    found = [path.parent for path in (folder / "runs").glob(f"*_{name}_*/scores") if any(path.glob("*.json"))]
    if not found:
        command = [
            sys.executable, "-m", "kplab.cli", "train", *overrides, f"name={name}", "logger=csv",
        ]  # fmt: skip
        print(" ".join(command[1:]), flush=True)
        subprocess.run(command, env=os.environ | {"KPLAB_WORKSPACE": str(folder)}, check=True)
        found = [path.parent for path in (folder / "runs").glob(f"*_{name}_*/scores")]
    return found[-1]


def main(folder: Path, budget: str, names: list[str]) -> None:
    """Train what is not trained yet, and print the table."""
    workspace(folder, names)
    rows = []
    for name in names:
        whole = trained(folder, f"{name}_plan", [f"dataset={name}", f"budget={budget}"])
        experiment = f"planned_{name}"
        planned = yaml.safe_load((folder / "conf" / "experiment" / f"{experiment}.yaml").read_text())
        for rule in PLAIN:
            plain = overrides_without(rule, planned)
            if plain is None:
                continue
            without = trained(
                folder, f"{name}_no_{rule.replace(' ', '_')}", [f"experiment={experiment}", f"dataset={name}", *plain]
            )
            # the flip test is a choice of a rule, too
            found = kplab.compare({"without": without, "plan": whole}, force=True).differences
            for metric in METRICS:
                (row,) = found[found["metric"] == metric].itertuples(index=False)
                rows.append([name, rule, metric, row.difference, row.low, row.high])
    table = pd.DataFrame(rows, columns=["dataset", "rule", "metric", "without minus plan", "low", "high"])
    table.to_csv(folder / "ablation.csv", index=False)
    print(table.to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3:] or list(BUDGETS))
