"""Time of ``kplab --help``, and a check that it imports no large package."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

WANTED = 0.5
HEAVY = ("torch", "lightning", "timm", "albumentations", "pandas", "matplotlib", "hydra")


def main() -> None:
    """Print the median of nine starts."""
    seconds = []
    for _ in range(9):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "kplab.cli", "--help"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - begun)
    code = f"import sys; from kplab.cli import main; main(['--help']); sys.exit(any(m in sys.modules for m in {HEAVY}))"
    light = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0
    print(
        f"kplab --help: {statistics.median(seconds):.2f} s (required: under {WANTED}), large imports: {'none' if light else 'SOME'}"
    )


if __name__ == "__main__":
    main()
