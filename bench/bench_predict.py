"""How much more memory ``kplab predict`` takes for ten times as many images, and how many it predicts a second.

Each prediction is a process of its own, whose peak memory the kernel reports; loader processes are not counted.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

FEW, MANY, SIZE = 300, 3000, 64
WANTED = 1.05

TRAIN = """
from kplab.tasks import compose
from kplab.tasks.training.train import train
train(compose("train", [
    "dataset=synthetic_hand", "dataset.images=40", "dataset.max_subjects=1", "backbone=resnet10_half", "neck.channels=32",
    "size=[64,64]", "trainer=cpu", "trainer.max_epochs=1", "augment=none", "logger=csv", "test_on=[]", "runs_dir={runs}",
    "dataset.folder={runs}/data", "name=bench",
]))
"""

PREDICT = """
import resource
from pathlib import Path
from kplab.runs.run import Run
from kplab.tasks.inference.predict_source import predict_source
predict_source(Run.find("bench", Path("{runs}")), "{source}", Path("{source}_out"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def run(code: str) -> str:
    """The last line that a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip().splitlines()[-1]


def make_images(folder: Path, count: int) -> None:
    """Noise in PNG files."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i:05d}.png"), rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))


def main() -> None:
    """Print peak memory and images a second of both, and the ratio of the peaks."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        run(TRAIN.format(runs=runs))
        peaks, seconds = {}, {}
        for count in (FEW, MANY):
            images = Path(folder) / f"images_{count}"
            make_images(images, count)
            begun = time.perf_counter()
            peaks[count] = int(run(PREDICT.format(runs=runs, source=images))) / 1024
            seconds[count] = time.perf_counter() - begun
            print(f"{count:>5} images: peak memory {peaks[count]:.1f} MiB, {seconds[count]:.1f} s with the start")
        # the start of a process is left out: it is in both
        speed = (MANY - FEW) / (seconds[MANY] - seconds[FEW])
        ratio = peaks[MANY] / peaks[FEW]
        print(
            f"kplab predict: {speed:.0f} images/s; memory for {MANY} images is {ratio:.3f} of that for {FEW} (wanted: {WANTED} or less)"
        )


if __name__ == "__main__":
    main()
