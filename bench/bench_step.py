"""What a training step of each family consists of, and what loading its data costs.

    python bench/bench_step.py [family…]

Steps on a batch in memory and steps on batches of the loader are measured alternately in one process, so that other processes
on the machine affect both alike. Printed are milliseconds of a step in memory, the share of it that encoding of targets takes,
the share of the optimizer, and the speed from files relative to that in memory.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from kplab.models.heads.base import Head
from kplab.structures.sample import Batch
from kplab.tasks import compose
from kplab.tasks.wiring.datasets import training_data
from kplab.tasks.wiring.models import build_model
from kplab.tasks.wiring.training import optimizer_factory

ONE = ["experiment=heatmap_small", "size=[192,192]"]
#: Family to its composition; the data are synthetic.
FAMILIES = {
    "heatmaps, resnet18": ["dataset=synthetic_hand", "dataset.max_subjects=1", "batch_size=8"],
    "heatmaps": ONE,
    "SimCC": [*ONE, "head=simcc", "~neck.channels", "~neck.levels", "neck=last"],
    "RLE": [*ONE, "head=rle"],
    "queries": [*ONE, "head=query"],
    "OpenPose": ["experiment=openpose_synthetic"],
    "CenterNet": ["experiment=centernet_synthetic"],
    "YOLO-pose": ["experiment=yolo_synthetic"],
    "Keypoint R-CNN": ["experiment=rcnn_synthetic"],
    "PoseTED": ["experiment=poseted_synthetic"],
    "top-down cascade": ["experiment=topdown_synthetic"],
}
STEPS, TURNS, IMAGES = 5, 4, 160


class Clock:
    """Seconds spent within functions."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time is added."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - begun

        return timed


def endless(loader: Any) -> Iterator[Batch]:
    """Batches of one epoch after another."""
    while True:
        yield from loader


def measure(overrides: list[str]) -> tuple[float, float, float, float]:
    """Milliseconds of a step, shares of encoding and optimizer, and the speed from files as part of that in memory."""
    config = compose("train", [*overrides, f"dataset.images={IMAGES}", "logger=csv"])
    model = build_model(config)
    data = training_data(config, model.max_poses)
    optimizer, _ = optimizer_factory(config, model)(model, steps=1000)
    model.train()
    encoding, updating = Clock(), Clock()
    for module in model.modules():
        if isinstance(module, Head):
            module.encode = encoding.around(module.encode)  # type: ignore[method-assign]
    batches = endless(data.datamodule.train_dataloader())
    batch = next(batches)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        torch.stack(list(model.losses(batch).values())).sum().backward()
        updating.around(optimizer.step)()

    for _ in range(2):
        step(batch)
    memory, files, encoded, updated = [], [], [], []
    for _ in range(TURNS):
        encoding.seconds = updating.seconds = 0.0
        begun = time.perf_counter()
        for _ in range(STEPS):
            step(batch)
        memory.append(time.perf_counter() - begun)
        encoded.append(encoding.seconds / memory[-1])
        updated.append(updating.seconds / memory[-1])
        for _ in range(2):  # batches that the loaders prepared in the meantime are not counted
            step(next(batches))
        begun = time.perf_counter()
        for _ in range(STEPS):
            step(next(batches))
        files.append(time.perf_counter() - begun)
    median = statistics.median
    return 1000 * median(memory) / STEPS, median(encoded), median(updated), median(memory) / median(files)


def main(names: list[str]) -> None:
    """Print a line for each family."""
    print("family              step, ms  encoding  optimizer  from files")
    for name in names or FAMILIES:
        milliseconds, encoding, updating, speed = measure(FAMILIES[name])
        print(f"{name:19} {milliseconds:8.0f} {encoding:9.1%} {updating:10.1%} {speed:11.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
