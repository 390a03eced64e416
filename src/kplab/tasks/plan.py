"""``kplab plan``: choose a training from the data, the time and this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kplab.tasks import compose

EXAMPLE = "kplab plan dataset=mouse budget=20m"


@dataclass
class Options:
    """Keys of ``kplab plan``."""

    dataset: dict[str, Any]
    budget: str
    family: str
    name: str | None
    timings: str | None


def main(args: list[str]) -> None:
    """Write an experiment and the reasons for each of its choices."""
    config = compose("plan", args)
    from kplab.errors import printable
    from kplab.tasks.planning.command import plan_from

    dataset = next((a.partition("=")[2] for a in args if a.startswith("dataset=")), str(config.dataset.name))
    # the experiment names the dataset, and its own options, such as a fold, are given to the training again
    given = [a for a in args if a.startswith(("dataset.", "hydra."))]
    plan, path = plan_from(dataset, config.budget, config.family, given, name=config.name, timings=config.timings)
    for choice in plan.choices:
        print(printable(f"{choice.rule}: {choice.figure}\n    {choice.reason}"))
    train = " ".join(["kplab train", f"experiment={plan.name}", *given])
    print(f"experiment: {path}\nreasons: plans/{plan.name}/plan.md\ntrain it with: {train}")
