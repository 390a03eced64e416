"""Time to generate the embedded datasets."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from pathlib import Path

from kplab.synthetic import generate, subjects

IMAGES = 2000
WANTED = 60.0


def main() -> None:
    """Print seconds for 2,000 images of each subject, as elapsed time and CPU time."""
    for subject in subjects():
        with tempfile.TemporaryDirectory() as folder:
            begun, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            generate(Path(folder) / "data", subject, IMAGES, workers=2)
            wall = time.perf_counter() - begun
            now = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        print(
            f"{subject:>10}: {IMAGES} images of 256x256 in {wall:.0f} s on {os.cpu_count()} cores "
            f"({1000 * processor / IMAGES:.0f} ms of CPU time per image; required: under {WANTED:.0f} s)"
        )


if __name__ == "__main__":
    main()
