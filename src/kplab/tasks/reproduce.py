"""``kplab reproduce``: train a run again from its folder, and state whether the result is the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from kplab.errors import ConfigError
from kplab.tasks import compose

EXAMPLE = "kplab reproduce run=RUN"


@dataclass
class Options:
    """Keys of ``kplab reproduce``."""

    run: str = MISSING
    strict: bool = False
    tolerances: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    runs_dir: str = MISSING


def main(args: list[str]) -> int:
    """Reproduce a run; the exit status is 1 where the result is different."""
    config = compose("reproduce", args)  # before torch is imported: a mistake in the command is reported at once
    for name, value in config.tolerances.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
            raise ConfigError(f"tolerances.{name} is {value}, but must be a number, 0 or more.")
    from kplab.tasks.training.reproduce import reproduce

    return reproduce(config)
