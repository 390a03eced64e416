"""Frames a second of ``kplab predict`` on a video, as a share of those of its network alone; and memory by length.

The network alone predicts views that lie in memory. The whole command decodes the video, predicts it, writes the journal, a table
and the results, and draws and encodes the overlay. Both are measured in turn, in one process. With two cores or more and one
thread of torch, the network is what the command waits for.

    python bench/bench_video.py [frames=300] [memory=300,3000]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from kplab.data.sources.video import VideoFrames
from kplab.runs.run import Run
from kplab.structures.sample import Batch
from kplab.tasks.inference.loading import LoadedRun
from kplab.tasks.inference.predict_source import predict_source
from kplab.tasks.inference.stream import view_of
from kplab.viz.video import write_video

SIDE, BATCH, ROUNDS = 512, 16, 3
WANTED, WANTED_MEMORY = 0.9, 1.05

TRAIN = """
from kplab.tasks import compose
from kplab.tasks.training.train import train
train(compose("train", [
    "dataset=synthetic_hand", "dataset.images=40", "dataset.max_subjects=1", "backbone=resnet10_half", "size=[256,256]",
    "trainer=cpu", "trainer.max_epochs=1", "augment=none", "logger=csv", "test_on=[]", "runs_dir={runs}",
    "dataset.folder={runs}/data", "name=bench",
]))
"""

PREDICT = """
import resource
from pathlib import Path
from kplab.runs.run import Run
from kplab.tasks.inference.predict_source import predict_source
predict_source(
    Run.find("bench", Path("{runs}")), "{source}", Path("{source}_out"), write=("csv", "parquet", "slp", "dlc_h5", "dlc_csv")
)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def run(code: str) -> str:
    """The last line that a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip().splitlines()[-1]


def make_clip(path: Path, frames: int, side: int) -> Path:
    """A textured picture that moves."""
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(0, 256, (side // 8, side // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    return write_video(path, (np.roll(texture, 3 * i, axis=1) for i in range(frames)))


def speeds(runs: Path, clip: Path, frames: int) -> tuple[float, float, float]:
    """Frames a second of the network alone and of the whole command, alternately measured.

    The third number is the same ratio of the processor time of the thread in which the network computes, which does not
    depend on what else the machine does.
    """
    record = Run.find("bench", runs)
    loaded = LoadedRun.load(record)
    model = loaded.frame_predictor(BATCH).model
    shots = VideoFrames(clip).frames()
    samples = [view_of(next(shots).read(), i, None, 1.0, 1.0, model.size, len(model.skeleton)) for i in range(BATCH)]
    batch = Batch.collate(samples)
    model.predict(batch.to(model.device), loaded.flip_test)
    alone, whole, shares = [], [], []
    for number in range(ROUNDS):
        begun, used = time.perf_counter(), time.thread_time()
        for _ in range(frames // BATCH):
            model.predict(batch.to(model.device), loaded.flip_test)
        alone.append(frames // BATCH * BATCH / (time.perf_counter() - begun))
        network = (time.thread_time() - used) / (frames // BATCH * BATCH)
        begun, used = time.perf_counter(), time.thread_time()
        predict_source(record, clip, clip.with_name(f"out{number}"), batch_size=BATCH)
        whole.append(frames / (time.perf_counter() - begun))
        shares.append(network * frames / (time.thread_time() - used))
    return median(alone), median(whole), median(shares)


def main() -> None:
    """Print both speeds and their ratio, and peak memory of two lengths and their ratio."""
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        run(TRAIN.format(runs=runs))
        frames = int(options.get("frames", 300))
        alone, whole, share = speeds(runs, make_clip(Path(folder) / "clip.mp4", frames, SIDE), frames)
        print(
            f"kplab predict source=clip.mp4, {frames} frames of {SIDE}x{SIDE}: {whole:.1f} frames/s, the network alone "
            f"{alone:.1f}: ratio {whole / alone:.2f} (wanted: {WANTED} or more); by processor time of its thread {share:.2f}"
        )
        peaks = []
        for count in map(int, options.get("memory", "300,3000").split(",")):
            clip = make_clip(Path(folder) / f"clip{count}.mp4", count, 64)
            peaks.append(int(run(PREDICT.format(runs=runs, source=clip))) / 1024)
            print(f"{count:>6} frames: peak memory {peaks[-1]:.1f} MiB")
        if len(peaks) > 1:
            print(f"ratio {peaks[-1] / peaks[0]:.3f} (wanted: {WANTED_MEMORY} or less)")


if __name__ == "__main__":
    main()
