"""What a training step of each family consists of, and what loading its data costs.

    python bench/bench_step.py [family…]
    python bench/bench_step.py --variants       # channels_last off, and torch.compile of backbones and necks

Steps on a batch in memory and steps on batches of loaders are measured alternately in one process, so that other processes
on the machine affect all alike. Printed are milliseconds of a step in memory, the share of it that encoding of targets takes,
the share of the optimizer, and two speeds relative to that in memory: from files, as in the first epoch of a training, and of its
later epochs, in which decoded images are in memory as far as they fit (``cache``).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from kplab.models.heads.base import Head
from kplab.models.pose_model import PoseModel
from kplab.structures.sample import Batch
from kplab.tasks import compose
from kplab.tasks.planning.families import TRANSFORMER
from kplab.tasks.wiring.allocator import keep_freed_memory
from kplab.tasks.wiring.datasets import training_data
from kplab.tasks.wiring.models import build_model
from kplab.tasks.wiring.training import optimizer_factory

ONE = ["experiment=heatmap_small", "size=[192,192]"]
#: Family to its composition; the data are synthetic.
FAMILIES = {
    "heatmaps, resnet18": ["dataset=synthetic_hand", "dataset.max_subjects=1", "batch_size=8"],
    "heatmaps": ONE,
    "heatmaps, EfficientNet-Lite0": [
        *("dataset=synthetic_hand", "dataset.max_subjects=1", "batch_size=8", "size=[192,192]"),
        *("backbone=efficientnet_lite0", "backbone.pretrained=true", "backbone.frozen_norm=true"),
        "backbone.frozen=[conv_stem,bn1,blocks.0,blocks.1]",
    ],
    "SimCC": [*ONE, "head=simcc", "~neck.channels", "~neck.levels", "neck=last"],
    "RLE": [*ONE, "head=rle"],
    "queries": [
        *(*ONE, "head=query", "neck.levels=[4,8]", "model.auxiliary={weight: 0.5, sigma: 1.5, snap: 16}"),
        # as plans have it
        *(f"{key}={value}" for key, value in TRANSFORMER.items()),
    ],
    "OpenPose": ["experiment=openpose_synthetic"],
    "CenterNet": ["experiment=centernet_synthetic"],
    "YOLO-pose": ["experiment=yolo_synthetic"],
    "Keypoint R-CNN": ["experiment=rcnn_synthetic"],
    "PoseTED": ["experiment=poseted_synthetic"],
    "top-down cascade": ["experiment=topdown_synthetic"],
}
#: Those that are measured in variants.
VARIANTS = ("heatmaps, resnet18", "heatmaps", "heatmaps, EfficientNet-Lite0", "YOLO-pose")
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


def training_of(overrides: list[str]) -> tuple[Any, Any, Callable[..., Any]]:
    """Model and optimizer of a composition, and a function that makes its training loader with a cache of so many megabytes."""
    config = compose("train", [*overrides, f"dataset.images={IMAGES}", "logger=csv"])
    model = build_model(config)
    optimizer, _ = optimizer_factory(config, model)(model, steps=1000)

    def loader(cache: int = config.cache) -> Any:
        config.cache = cache
        return training_data(config, model.max_poses).datamodule.train_dataloader()

    return model.train(), optimizer, loader


def measure(overrides: list[str]) -> tuple[float, float, float, float, float]:
    """Milliseconds of a step, shares of encoding and optimizer, and the speeds of first and later epochs as part of that in memory."""
    model, optimizer, loader = training_of(overrides)
    encoding, updating = Clock(), Clock()
    for module in model.modules():
        if isinstance(module, Head):
            module.encode = encoding.around(module.encode)  # type: ignore[method-assign]
    batches = {"first": endless(loader(0)), "later": endless(cached := loader())}
    batch = next(batches["first"])
    for _ in range(len(cached)):
        next(batches["later"])

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        torch.stack(list(model.losses(batch).values())).sum().backward()
        updating.around(optimizer.step)()

    for _ in range(2):
        step(batch)
    memory, encoded, updated = [], [], []
    files: dict[str, list[float]] = {name: [] for name in batches}
    for _ in range(TURNS):
        encoding.seconds = updating.seconds = 0.0
        begun = time.perf_counter()
        for _ in range(STEPS):
            step(batch)
        memory.append(time.perf_counter() - begun)
        encoded.append(encoding.seconds / memory[-1])
        updated.append(updating.seconds / memory[-1])
        for name, source in batches.items():
            for _ in range(2):  # batches that the loaders prepared in the meantime are not counted
                step(next(source))
            begun = time.perf_counter()
            for _ in range(STEPS):
                step(next(source))
            files[name].append(time.perf_counter() - begun)
    median = statistics.median
    first, later = (median(memory) / median(files[name]) for name in batches)
    return 1000 * median(memory) / STEPS, median(encoded), median(updated), first, later


def variants(overrides: list[str]) -> tuple[float, float, float]:
    """Speeds without channels_last and with compiled backbones and necks, relative to that as it is; seconds of compiling."""
    steps: list[Callable[[], None]] = []
    begun, batch = 0.0, None
    for name in ("as it is", "without channels_last", "compiled"):
        torch.manual_seed(0)
        model, optimizer, loader = training_of(overrides)
        batch = batch or next(iter(loader()))
        for part in model.modules():
            if isinstance(part, PoseModel) and name == "without channels_last":
                part.layout = torch.contiguous_format
                part.to(memory_format=torch.contiguous_format)
            if isinstance(part, PoseModel) and name == "compiled":
                part.backbone.compile()
                part.neck.compile()

        def step(model: Any = model, optimizer: Any = optimizer, batch: Batch = batch) -> None:
            optimizer.zero_grad()
            torch.stack(list(model.losses(batch).values())).sum().backward()
            optimizer.step()

        begun = time.perf_counter()
        step()
        step()
        steps.append(step)
    prepared = time.perf_counter() - begun
    took: list[list[float]] = [[], [], []]
    for _ in range(TURNS):
        for run, seconds in zip(steps, took, strict=True):
            begun = time.perf_counter()
            for _ in range(STEPS):
                run()
            seconds.append(time.perf_counter() - begun)
    own, plain, compiled = (statistics.median(seconds) for seconds in took)
    return own / plain, own / compiled, prepared


def main(names: list[str]) -> None:
    """Print a line for each family."""
    keep_freed_memory()  # as a training does
    if names[:1] == ["--variants"]:
        print("family                        without channels_last  compiled  compiling, s")
        for name in names[1:] or VARIANTS:
            plain, compiled, seconds = variants(FAMILIES[name])
            print(f"{name:29} {plain:22.2f} {compiled:9.2f} {seconds:13.0f}", flush=True)
        return
    print("family                        step, ms  encoding  optimizer  first epoch  later epochs")
    for name in names or FAMILIES:
        milliseconds, encoding, updating, first, later = measure(FAMILIES[name])
        shares = f"{encoding:9.1%} {updating:10.1%} {first:12.2f} {later:13.2f}"
        print(f"{name:29} {milliseconds:8.0f} {shares}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
