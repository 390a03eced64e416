"""``kplab compare``: compare runs, with paired intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from kplab.errors import ConfigError
from kplab.tasks import compose

EXAMPLE = "kplab compare runs=[A,B]"


@dataclass
class Options:
    """Keys of ``kplab compare``."""

    runs: list[str] = field(default_factory=list)
    split: str | None = None
    resamples: int = 2000
    seed: int = 0
    force: bool = False
    out: str | None = None
    runs_dir: str = MISSING


def main(args: list[str]) -> None:
    """Compare runs with paired intervals. Neither model nor data is loaded."""
    from kplab.runs.run import Run
    from kplab.tasks.evaluation.comparison import compare_runs

    config = compose("compare", args)
    if len(config.runs) < 2:
        raise ConfigError("kplab compare needs two runs or more: runs=[A,B]. `kplab runs` lists them.")
    if config.resamples < 1:
        raise ConfigError(f"resamples is {config.resamples}, but must be at least 1.")
    runs = [Run.find(str(name), Path(config.runs_dir)) for name in config.runs]
    if len({run.folder for run in runs}) < len(runs):
        raise ConfigError(f"runs={list(config.runs)} names the same run twice. Name different ones.")
    out = Path(config.out) if config.out else None
    compare_runs(runs, config.split, out, config.resamples, config.seed, config.force)
