"""``kplab invariance``: measure the repeatability of interest points in changed images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from kplab.tasks import compose

EXAMPLE = "kplab invariance images=photos/"


@dataclass
class Options:
    """Keys of ``kplab invariance``."""

    points: dict[str, Any] = field(default_factory=dict)
    detectors: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    images: str | None = None
    sequence: str | None = None
    properties: list[str] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    count: int | None = 500
    radius: float = 3.0
    margin: float = 8.0
    max_side: int | None = 640
    ransac: float = 3.0
    checkpoint: str = "auto"
    device: str = "auto"
    out: str = MISSING
    runs_dir: str = MISSING


def main(args: list[str]) -> None:
    """Measure detectors of interest points on photographs or on a sequence with homographies."""
    config = compose("invariance", args)  # first, so that a mistake in the command is reported at once
    from kplab.tasks.points.invariance import invariance

    invariance(config)
