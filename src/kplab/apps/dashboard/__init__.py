"""``kplab dashboard``: runs, comparisons and images in a browser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from kplab.errors import ConfigError
from kplab.tasks import compose

EXAMPLE = "kplab dashboard"


@dataclass
class Options:
    """Keys of ``kplab dashboard``."""

    host: str = "127.0.0.1"
    port: int = 0
    open: bool = False
    runs_dir: str = MISSING


def main(args: list[str]) -> None:
    """Serve the dashboard until Ctrl-C; prints its address."""
    config = compose("dashboard", args)
    if not 0 <= config.port < 65536:
        raise ConfigError(f"port is {config.port}, but must lie between 0 and 65535; 0 takes a free one.")
    runs_dir = Path(config.runs_dir)
    if runs_dir.exists() and not runs_dir.is_dir():
        raise ConfigError(f"{runs_dir}: is no folder. Name the folder of all runs: runs_dir=DIR.")
    from kplab.apps.dashboard.server import serve

    serve(runs_dir, str(config.host), int(config.port), bool(config.open))
