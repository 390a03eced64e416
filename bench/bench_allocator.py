"""What it is worth that a training keeps the memory that it frees.

    python bench/bench_allocator.py [family…]

Steps on a batch in memory, in processes with and without ``keep_freed_memory`` that take turns, so that other processes on the
machine affect both alike. Printed are milliseconds of a step, the speed without relative to that with, the milliseconds that the
system takes for a step, and the peak of the memory.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from bench_step import FAMILIES, training_of

from kplab.tasks.wiring.allocator import keep_freed_memory

NAMES = ("heatmaps", "heatmaps, EfficientNet-Lite0", "YOLO-pose", "top-down cascade")
STEPS, TURNS = 12, 3


def measure(name: str) -> tuple[float, float, float]:
    """Milliseconds of a step, those of them that the system takes, and the peak of the memory in MB."""
    model, optimizer, loader = training_of([*FAMILIES[name], "workers=0"])
    batch = next(iter(loader()))
    times, system = [], []
    for _ in range(STEPS):
        begun, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_stime
        optimizer.zero_grad()
        torch.stack(list(model.losses(batch).values())).sum().backward()
        optimizer.step()
        times.append(time.perf_counter() - begun)
        system.append(resource.getrusage(resource.RUSAGE_SELF).ru_stime - used)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return 1000 * statistics.median(times[2:]), 1000 * statistics.median(system[2:]), peak


def main(names: list[str]) -> None:
    """Print a line for each family."""
    print("family                        step, ms  speed without  system, ms  without  memory, MB  without")
    for name in names or NAMES:
        found: dict[str, list[list[float]]] = {"with": [], "without": []}
        for _ in range(TURNS):
            for kind, rows in found.items():
                command = [sys.executable, __file__, "--one", kind, name]
                rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        kept, plain = ([statistics.median(column) for column in zip(*rows, strict=True)] for rows in found.values())
        print(
            f"{name:29} {kept[0]:8.0f} {kept[0] / plain[0]:14.2f} {kept[1]:11.0f} {plain[1]:8.0f} {kept[2]:11.0f} {plain[2]:8.0f}",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        if sys.argv[2] == "with":
            keep_freed_memory()
        print(json.dumps(measure(sys.argv[3])))
    else:
        main(sys.argv[1:])
