"""Memory that a process frees stays with it, so that the next step does not fetch its pages from the system again."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Page faults of allocating, filling and freeing 8 MB fifty times.
SCRIPT = """
import resource
import numpy as np
from kplab.tasks.wiring.allocator import keep_freed_memory

if {keep}:
    print(keep_freed_memory())
np.ones(10**6)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    a, b = np.ones(10**6), np.ones(5 * 10**6)
    del a, b
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> list[str]:
    """What a process of its own prints."""
    script = SCRIPT.format(keep=keep)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_freed_memory_is_used_again() -> None:
    kept = faults(True)
    if kept[0] == "False":
        pytest.skip("this C library has no mallopt")
    # 11,700 pages of 4 KiB, in the first of the fifty times only
    assert int(kept[1]) < 0.1 * int(faults(False)[-1])
