"""``kplab data get``: fetch a dataset of the catalogue, verify and unpack it; without a dataset, list the catalogue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kplab.errors import printable
from kplab.tasks import compose

EXAMPLE = "kplab data get dataset=coco"


@dataclass
class Options:
    """Keys of ``kplab data get``."""

    dataset: dict[str, Any] | None = field(default_factory=dict)
    keep: bool = False
    timeout: float = 30
    attempts: int = 5
    loopback: bool = False


def check(config: Any) -> list[str]:
    """Faults of the limits."""
    faults = []
    if config.timeout <= 0:
        faults.append(f"timeout is {config.timeout}. Use seconds above 0.")
    if config.attempts < 1:
        faults.append(f"attempts is {config.attempts}. Use 1 or more.")
    return faults


def main(args: list[str]) -> None:
    """Show the licence, fetch what is missing, and name the checksums that are not recorded yet."""
    config = compose("data get", args)
    from pathlib import Path

    from kplab.config import conf_dir, plain
    from kplab.data.catalogue.download import Limits
    from kplab.data.catalogue.entry import Entry, find_entries
    from kplab.data.catalogue.get import get, missing_paths
    from kplab.tasks.wiring.download_progress import shown

    if not config.get("dataset"):
        for entry in find_entries(conf_dir() / "dataset"):
            how = "" if all(file.url for file in entry.files) else "; some files by hand"
            print(printable(f"{entry.name:16} {entry.title}: {entry.licence}{how}"))
        print("kplab data get dataset=NAME fetches one.")
        return
    dataset = plain(config.dataset)
    entry = Entry.from_config(dataset)
    print(printable("\n".join(entry.lines())))
    limits = Limits(timeout=config.timeout, attempts=config.attempts, loopback=config.loopback)
    with shown() as reporter:
        got = get(entry, limits, reporter, config.keep)
    for name in got.present:
        print(printable(f"{name}: complete since an earlier call"))
    for name in got.unknown:
        print(
            printable(
                f"{name}: the catalogue states no checksum. This file has checksum: sha256:{got.fetched[name]}. Compare it "
                f"with the publisher's, and record it in conf/dataset/{entry.name}.yaml."
            )
        )
    missing = missing_paths(dataset, Path(dataset["folder"]))
    if missing:
        print(
            printable(
                f"{entry.name}: the archives lie otherwise than its configuration expects; missing: "
                f"{', '.join(map(str, missing))}. Move the folders, or override the paths of dataset.sources."
            )
        )
    elif dataset.get("sources"):
        print(f"complete: kplab data dataset={entry.name} checks and draws it.")
