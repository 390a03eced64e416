"""``kplab data skeleton``: write a skeleton's configuration from a label file, with left and right paired by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from kplab.errors import printable
from kplab.tasks import compose

EXAMPLE = "kplab data skeleton from=labels.json"


class Options:
    """Keys of ``kplab data skeleton``."""

    format_from: str | None = None
    name: str | None = None
    read: dict[str, Any] = field(default_factory=dict)
    sigmas: list[float] | None = None
    sigma_source: str | None = None
    out: str = MISSING
    confirm: bool = False


# "from" is a keyword of Python, so that no class body can declare a field of this name
Options.__annotations__ = {"from": str, **Options.__annotations__}
setattr(Options, "from", MISSING)
dataclass(init=False, repr=False, eq=False)(Options)


def rebase(overrides: list[str]) -> tuple[None, list[str]]:
    """Let ``read.KEY`` add keys, which differ by format."""
    return None, [f"++{text}" if text.startswith("read.") else text for text in overrides]


def main(args: list[str]) -> None:
    """Show the skeleton of a label file; with confirm=true, write it."""
    config = compose("data skeleton", args)
    from kplab.config import plain
    from kplab.tasks.wiring.skeletons import skeleton_text

    name, text, remarks = skeleton_text(
        Path(config["from"]),
        config.format_from,
        config.name,
        plain(config.read),
        None if config.sigmas is None else list(config.sigmas),
        config.sigma_source,
    )
    print(printable(text))
    for remark in remarks:
        print(printable(remark))
    path = Path(config.out) / f"{name}.yaml"
    if not config.confirm:
        print(printable(f"not written: check the pairs and edges, then add confirm=true to write {path}"))
        return
    from kplab.errors import ConfigError
    from kplab.runs.files import replacing_text
    from kplab.runs.records import make_folder

    if path.exists():
        raise ConfigError(f"{path}: exists. Choose another name with name=, or delete it first.")
    make_folder(path.parent)
    with replacing_text(path) as stream:
        stream.write(text)
    print(printable(f"wrote {path}: dataset configs name it with /skeleton@skeleton: {name}"))
