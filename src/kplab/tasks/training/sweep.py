"""``kplab train --multirun``: one process per combination, so that a crash of one does not stop the others."""

from __future__ import annotations

import subprocess
import sys

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from kplab.errors import ConfigError
from kplab.tasks import compose


def sweep(args: list[str]) -> None:
    """Train all combinations of ``a=1,2 b=range(3)`` one after the other, and print how many finished.

    Raises:
        ConfigError: an override can't be parsed, a combination doesn't compose, or some runs failed.
    """
    try:
        overrides = OverridesParser.create().parse_overrides(args)
    except OverrideParseException as error:
        raise ConfigError(f"{str(error).splitlines()[0]} ({' '.join(args)})") from None
    (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    for job in jobs:
        compose("train", list(job))
    failed = []
    for number, job in enumerate(jobs, 1):
        print(f"--- {number}/{len(jobs)}: {' '.join(job)}", flush=True)
        done = subprocess.run([sys.executable, "-m", "kplab.cli", "train", *job], check=False)
        if done.returncode == 130:
            raise KeyboardInterrupt
        if done.returncode != 0:
            failed.append(f"{' '.join(job)} (exit {done.returncode})")
            print(f"--- {number}/{len(jobs)} failed with exit status {done.returncode}; continuing", flush=True)
    print(f"--- {len(jobs) - len(failed)} of {len(jobs)} runs finished. `kplab runs` lists them.")
    if failed:
        raise ConfigError("these runs failed:\n  " + "\n  ".join(failed))
