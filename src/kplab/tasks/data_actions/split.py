"""``kplab data split``: make the split of a dataset, or read it; print its balance, and its leaks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kplab.errors import printable
from kplab.tasks import compose

EXAMPLE = "kplab data split dataset=lsp"


@dataclass
class Options:
    """Keys of ``kplab data split``."""

    dataset: dict[str, Any] = field(default_factory=dict)
    leaks: bool = True


def main(args: list[str]) -> None:
    """Write the manifest where there is none; print the share of each stratum in each part, and what parts share."""
    config = compose("data split", args)
    from kplab.config import workspace
    from kplab.data.fingerprint_cache import FingerprintCache
    from kplab.data.leaks import find_leaks
    from kplab.data.strata import balance
    from kplab.tasks.wiring.datasets import read_splits
    from kplab.viz import tables

    splits = read_splits(config.dataset)
    plan = config.dataset.get("split")
    how = f"by {plan.get('by', 'group')}, manifest {plan.manifest}" if plan else "one source a part"
    print(printable(f"{config.dataset.name}: {', '.join(f'{n} {len(s)} images' for n, s in splits.items())} ({how})"))
    print(printable(tables.text(balance(splits))))
    if not config.leaks:
        return
    for leak in find_leaks(splits, cache=FingerprintCache.of_workspace(workspace())):
        print(printable(leak.line()))
        for kind, pairs in leak.examples.items():
            for one, other in pairs:
                print(printable(f"  {kind}: {leak.one} {one} and {leak.other} {other}"))
