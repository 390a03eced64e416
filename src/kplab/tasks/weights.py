"""``kplab weights``: list the published weights that backbones can start from: source, licence, hash."""

from __future__ import annotations

from dataclasses import dataclass

from kplab.tasks import compose

EXAMPLE = "kplab weights"


@dataclass
class Options:
    """Keys of ``kplab weights``."""

    all: bool = True


def main(args: list[str]) -> None:
    """Print the weights of packages, and those of timm in the cache of the hub."""
    config = compose("weights", args)
    from kplab.errors import printable
    from kplab.models.published import describe

    lines = list(describe(config.all)) or [
        "there are none: neither packages of weights, nor a cache of the hub with timm's"
    ]
    print(printable("\n".join(lines)))
