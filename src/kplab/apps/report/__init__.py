"""``kplab report``: one HTML file with the comparison of runs, their charts and chosen images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from kplab.errors import ConfigError
from kplab.tasks import compose

EXAMPLE = "kplab report runs=[A,B] out=report.html"


@dataclass
class Options:
    """Keys of ``kplab report``."""

    runs: list[str] = field(default_factory=list)
    split: str | None = None
    images: int = 12
    width: int = 640
    out: str = "report.html"
    runs_dir: str = MISSING


def main(args: list[str]) -> None:
    """Write the report. Scores are read, and images of the runs' datasets; no model is loaded."""
    config = compose("report", args)
    if config.images < 0 or not 64 <= config.width <= 4096:
        raise ConfigError(
            f"images is {config.images} and width {config.width}, but images must be 0 or more and width 64 to 4096 pixels."
        )
    from kplab.apps.report.build import chosen_runs, write_report

    runs = chosen_runs([str(name) for name in config.runs], Path(config.runs_dir))
    path = write_report(runs, config.split, Path(config.out), int(config.images), int(config.width))
    print(f"report: {path} ({path.stat().st_size / 2**20:.1f} MB): {', '.join(run.name for run in runs)}")
