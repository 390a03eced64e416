"""``kplab benchmark``: train families of detector on one dataset, one table."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from kplab.tasks import compose

EXAMPLE = "kplab benchmark data=flies"


@dataclass
class Options:
    """Keys of ``kplab benchmark``."""

    data: str = MISSING
    families: list[str] = field(default_factory=list)
    general: str = "synthetic"
    overrides: list[str] = field(default_factory=list)
    split: str = "test"
    out: str | None = None
    runs_dir: str = MISSING


def main(args: list[str]) -> None:
    """Train each family on the dataset, unless it is done, and compare them in one table."""
    from kplab.tasks.evaluation.benchmarks import benchmark

    benchmark(compose("benchmark", args))
