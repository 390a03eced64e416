"""``kplab data convert``: read labels of one format and write them in another; what is lost is stated with counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from kplab.errors import printable
from kplab.tasks import compose

EXAMPLE = "kplab data convert from=labels.json to=yolo_dataset format_to=yolo"


class Options:
    """Keys of ``kplab data convert``."""

    to: str = MISSING
    format_from: str | None = None
    format_to: str | None = None
    skeleton: dict[str, Any] | None = None
    read: dict[str, Any] = field(default_factory=dict)
    write: dict[str, Any] = field(default_factory=dict)
    lossy: bool = False


# "from" is a keyword of Python, so that no class body can declare a field of this name
Options.__annotations__ = {"from": str, **Options.__annotations__}
setattr(Options, "from", MISSING)
dataclass(init=False, repr=False, eq=False)(Options)


def rebase(overrides: list[str]) -> tuple[None, list[str]]:
    """Let ``read.KEY`` and ``write.KEY`` add keys, which differ by format."""
    return None, [f"++{text}" if text.startswith(("read.", "write.")) else text for text in overrides]


def main(args: list[str]) -> None:
    """Convert, and print what was read, what was written, and what is lost."""
    config = compose("data convert", args)
    from kplab.config import plain
    from kplab.tasks.inference.progress import working
    from kplab.tasks.wiring.conversion import convert

    with working(f"converting {config['from']}", least=2.0):
        done = convert(
            config["from"],
            config.to,
            config.format_from,
            config.format_to,
            plain(config.skeleton) or None,
            plain(config.read),
            plain(config.write),
            config.lossy,
        )
    for line in done:
        print(printable(line))
