"""Speed of training from files, relative to training on one batch in memory.

Both are measured in one process, alternately, so that other processes on the machine affect both alike.
"""

from __future__ import annotations

import statistics
import time

import torch

from kplab.models.pose_model import PoseModel
from kplab.structures.sample import Batch
from kplab.tasks import compose
from kplab.tasks.wiring.datasets import training_data
from kplab.tasks.wiring.models import build_model
from kplab.tasks.wiring.training import optimizer_factory

WANTED = 0.9
STEPS, TURNS = 6, 3


def step(model: PoseModel, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """Forward, backward, update."""
    total = torch.stack(list(model.losses(batch).values())).sum()
    optimizer.zero_grad()
    total.backward()
    optimizer.step()


def main() -> None:
    """Print seconds per step from memory and from files, and their ratio."""
    config = compose(
        "train",
        ["dataset=synthetic_hand", "dataset.images=300", "dataset.max_subjects=1", "logger=csv", "batch_size=8"],
    )
    model = build_model(config)
    assert isinstance(model, PoseModel)
    data = training_data(config, model.max_poses)
    optimizer, _ = optimizer_factory(config, model)(model, steps=1000)
    model.train()
    loader = data.datamodule.train_dataloader()
    first = next(iter(loader))
    for _ in range(2):
        step(model, optimizer, first)
    seconds: dict[str, list[float]] = {"memory": [], "files": []}
    stream = iter(loader)
    for _ in range(TURNS):
        begun = time.perf_counter()
        for _ in range(STEPS):
            step(model, optimizer, first)
        seconds["memory"].append((time.perf_counter() - begun) / STEPS)
        for _ in range(2):  # batches that the loaders prepared in the meantime are not counted
            step(model, optimizer, next(stream))
        begun = time.perf_counter()
        done = 0
        while done < STEPS:
            batch = next(stream, None)
            if batch is None:
                stream = iter(loader)
                continue
            step(model, optimizer, batch)
            done += 1
        seconds["files"].append((time.perf_counter() - begun) / STEPS)
    ratio = statistics.median(m / f for m, f in zip(seconds["memory"], seconds["files"], strict=True))
    for name, values in seconds.items():
        print(f"{name:>7}: {statistics.median(values):.3f} s per step of {len(first)} views")
    print(f"training from files runs at {ratio:.2f} of the speed from memory (required: {WANTED} or more)")


if __name__ == "__main__":
    main()
