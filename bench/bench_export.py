"""How fast an exported file predicts a view, as a multiple of torch's speed, for two families.

Views are given one at a time, as the file reads them, to torch as well. All are measured in one process, in turns.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from kplab.export.formats import SUFFIXES, load, write
from kplab.export.graphs import graphs_of
from kplab.export.predictor import ExportedModel
from kplab.structures.poses import Poses
from kplab.structures.sample import Batch, Sample
from kplab.tasks import compose
from kplab.tasks.wiring.models import build_model

ROUNDS = 15
FAMILIES = {
    "heatmap, resnet18, 192x256": ["head=heatmap", "backbone=resnet18", "size=[192,256]", "regions=annotated"],
    "yolo, resnet18, 256x256": [
        "head=yolo",
        "backbone=resnet18",
        "size=[256,256]",
        "regions=image",
        "neck.levels=[8,16,32]",
    ],
}


def seconds(call: Callable[[], object]) -> float:
    """Of one call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def main() -> None:
    """Print the medians and the ratios of each family."""
    for name, options in FAMILIES.items():
        torch.manual_seed(0)
        config = compose("train", ["dataset=synthetic_person", *options])
        model = build_model(config, pretrained=False).eval()
        width, height = model.size
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        sample = Sample(image, Poses.empty(len(model.skeleton)), np.eye(3), 0, np.array([0.0, 0.0, width, height]))
        batch = Batch.collate([sample])
        sides: dict[str, Callable[[], object]] = {"torch": lambda m=model, b=batch: m.predict(b)}  # type: ignore[misc]
        with tempfile.TemporaryDirectory() as folder:
            for format in ("onnx", "openvino"):
                path = Path(folder) / f"model{SUFFIXES[format]}"
                write(graphs_of(model, False)["model"], path, {"precision": "f32"})
                file = ExportedModel(model, {"model": load(path)}, False)
                sides[format] = lambda m=file, b=batch: m.predict(b)  # type: ignore[misc]
            for call in sides.values():
                call()
            taken: dict[str, list[float]] = {side: [] for side in sides}
            for _ in range(ROUNDS):
                for side, call in sides.items():
                    taken[side].append(seconds(call))
        median = {side: statistics.median(values) for side, values in taken.items()}
        each = ", ".join(
            f"{side} {1000 * value:.1f} ms ({median['torch'] / value:.2f} times torch)"
            for side, value in median.items()
        )
        print(f"{name}, {torch.get_num_threads()} threads, one view: {each}")


if __name__ == "__main__":
    main()
