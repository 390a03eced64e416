"""``kplab figure``: charts of runs as SVG, PDF or PNG at the width of a column."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from kplab.errors import ConfigError
from kplab.tasks import compose

EXAMPLE = "kplab figure runs=[A,B] plots=[pck,error_cdf] format=pdf"
FORMATS = ("svg", "pdf", "png")


@dataclass
class Options:
    """Keys of ``kplab figure``."""

    runs: list[str] = field(default_factory=list)
    plots: list[str] = field(default_factory=list)
    split: str | None = None
    format: str = "pdf"
    width: float = 3.4
    out: str | None = None
    runs_dir: str = MISSING


def main(args: list[str]) -> None:
    """Write charts of curves and scores: those of the dashboard. Neither model nor data is loaded."""
    config = compose("figure", args)
    if not config.runs:
        raise ConfigError("kplab figure needs a run or more: runs=[A,B]. `kplab runs` lists them.")
    if config.format not in FORMATS:
        raise ConfigError(f"format is '{config.format}'. Use one of: {', '.join(FORMATS)}.")
    if not 0.5 <= config.width <= 30:
        raise ConfigError(f"width is {config.width}, but must be 0.5 to 30 inches.")
    from kplab.runs.records import make_folder, safe_name
    from kplab.runs.run import Run
    from kplab.tasks.evaluation.figures import choose, plots_of
    from kplab.viz.chart import write

    runs = [Run.find(str(name), Path(config.runs_dir)) for name in config.runs]
    if len({run.folder for run in runs}) < len(runs):
        raise ConfigError(f"runs={list(config.runs)} names the same run twice. Name different ones.")
    chosen = choose(plots_of(runs, config.split, list(config.plots)), list(config.plots))
    out = make_folder(Path(config.out) if config.out else Path("figures"))
    for plot in chosen:
        path = write(plot, out / f"{safe_name(plot.name)}.{config.format}", float(config.width))
        print(f"{path}: {plot.title}, {', '.join(run.name for run in runs)}")
