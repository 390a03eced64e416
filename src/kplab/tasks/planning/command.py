"""Plans from commands: of ``kplab plan``, and of ``kplab train`` with a budget."""

from __future__ import annotations

from pathlib import Path

from kplab.errors import ConfigError
from kplab.tasks.planning.plan import Plan, make_plan, read_timings, write_plan

#: Keys of ``kplab train`` that the plan reads.
OWN = ("budget", "family", "folds")


def plan_from(
    dataset: str,
    budget: str,
    family: str,
    given: list[str],
    name: str | None = None,
    timings: str | None = None,
) -> tuple[Plan, Path]:
    """Make a plan and write it, see ``make_plan`` and ``write_plan``."""
    measure = None if timings is None else read_timings(Path(timings))
    plan = make_plan(dataset, budget, family, given, name or f"planned_{dataset}", measure)
    if plan.warning:
        print(f"warning: {plan.warning}", flush=True)
    return plan, write_plan(plan)


def planned(overrides: list[str]) -> list[str]:
    """The overrides of ``kplab train`` with a budget, which a plan has turned into those of an ordinary experiment.

    Raises:
        ConfigError: no dataset is named, or an experiment is, which has its own choices.
    """
    keys = dict(o.partition("=")[::2] for o in overrides)
    if "dataset" not in keys:
        raise ConfigError("budget=… plans a training for a dataset. Add dataset=NAME.")
    if "experiment" in keys:
        raise ConfigError("budget=… makes an experiment of its own. Leave experiment=… out, or the budget.")
    given = [o for o in overrides if o.partition("=")[0] not in (*OWN, "dataset")]
    plan, path = plan_from(keys["dataset"], keys["budget"], keys.get("family", "auto"), given)
    print(f"planned {plan.budget:.0f} s: plans/{plan.name}/plan.md", flush=True)
    return [f"experiment={path.stem}", *overrides]
