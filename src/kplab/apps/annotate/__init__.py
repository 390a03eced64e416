"""``kplab annotate``: label keypoints in a browser."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from kplab.errors import ConfigError, printable
from kplab.tasks import compose

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from kplab.apps.annotate.window import Windows

EXAMPLE = "kplab annotate images=photos/ skeleton=hand21 out=labels.json"


@dataclass
class Options:
    """Keys of ``kplab annotate``."""

    dataset: dict[str, Any] | None = None
    source: str | None = None
    images: str | None = None
    skeleton: dict[str, Any] | None = None
    frames: list[int] | None = None
    frames_to: str | None = None
    out: str | None = None
    run: str | None = None
    checkpoint: str = "auto"
    least_score: float = 0.3
    annotator: str | None = None
    agreement: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    open: bool = False
    runs_dir: str = MISSING


def main(args: list[str]) -> None:
    """Serve the annotator until Ctrl-C, then save; or print the agreement of two annotators."""
    config = compose("annotate", args)
    if not 0 <= config.port < 65536:
        raise ConfigError(f"port is {config.port}, but must lie between 0 and 65535; 0 takes a free one.")
    if config.agreement is not None:
        from kplab.apps.annotate.agreement import report

        print(printable(report(config)))
        return
    from kplab.apps.annotate.server import serve

    windows = start(config)
    project = windows.project
    print(
        printable(
            f"{len(project)} images, {int((project.counts > 0).sum())} with labels; saved to {project.target.path}"
        )
    )
    # the web server passes the signal on when it has ended, and the labels must be saved then
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        serve(windows, str(config.host), int(config.port), bool(config.open))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        windows.close()
        print(printable(f"{len(project.edits)} edits, saved to {project.target.path}" if project.edits else "no edits"))


def start(config: DictConfig) -> Windows:
    """The project of the options, which saves itself, and the suggestions of its run."""
    from kplab.apps.annotate.opening import open_project
    from kplab.apps.annotate.suggestions import Suggestions
    from kplab.apps.annotate.window import Windows
    from kplab.runs.run import Run

    run = None if config.run is None else Run.find(str(config.run), Path(config.runs_dir))
    project = open_project(config)
    suggestions = None
    if run is not None:
        try:
            suggestions = Suggestions(project, run, str(config.checkpoint), float(config.least_score))
        except BaseException:
            project.close()
            raise
        suggestions.start()
    project.start_saving()
    return Windows(project, suggestions)
