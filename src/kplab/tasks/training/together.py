"""Trainings in processes side by side, which share the cores."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

from kplab.errors import RunError
from kplab.runs.provenance import cores


def train_together(trainings: Mapping[str, Sequence[str]]) -> None:
    """Run ``kplab train`` in a process for each of several trainings, and print their lines under their labels.

    Small networks compute hardly faster with several threads than with one, so that trainings of them take less time side by
    side than one after the other.

    Args:
        trainings: label to overrides.

    Raises:
        RunError: a training failed; its message has been printed.
        KeyboardInterrupt: Ctrl-C, which reaches the processes too.
    """
    threads = max(1, cores() // max(1, len(trainings)))
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONUNBUFFERED": "1"}
    width = max(map(len, trainings), default=0)
    processes, readers = {}, []
    for label, overrides in trainings.items():
        processes[label] = subprocess.Popen(
            [sys.executable, "-m", "kplab.cli", "train", *overrides],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace",
        )  # fmt: skip
        reader = threading.Thread(target=_print_lines, args=(processes[label], f"{label:{width}} | "), daemon=True)
        reader.start()
        readers.append(reader)
    try:
        for reader in readers:
            reader.join()
        failed = [f"{label} (exit status {code})" for label, p in processes.items() if (code := p.wait())]
    except BaseException:
        for process in processes.values():
            process.wait()  # each closes its record
        raise
    if any(process.returncode == 130 for process in processes.values()):
        raise KeyboardInterrupt
    if failed:
        raise RunError(f"these trainings failed, for the reasons above: {', '.join(failed)}.")


def _print_lines(process: subprocess.Popen[str], prefix: str) -> None:
    """Print what a process prints, as it comes."""
    assert process.stdout is not None
    for line in process.stdout:
        print(prefix + line.rstrip("\n"), flush=True)
