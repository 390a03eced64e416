"""``kplab data formats``: list the label formats, their keys, and what each can hold."""

from __future__ import annotations

from dataclasses import dataclass

from kplab.tasks import compose

EXAMPLE = "kplab data formats"


@dataclass
class Options:
    """Keys of ``kplab data formats``."""

    table: bool = False


def main(args: list[str]) -> None:
    """Print every format with its keys; or the table of what they hold."""
    config = compose("data formats", args)
    from kplab.data.formats import describe_formats, table_of_formats

    print("\n".join(table_of_formats()) if config.table else describe_formats())
