"""A training step of EfficientNet-Lite0, with norms and first layers frozen, beside one of the whole network.

    python bench/bench_frozen.py [repetitions=4]

Prints milliseconds of a forward and backward pass of 16 views of 256x224 px, the least of the repetitions, and the ratio to the
first line. Weights are random, which changes no time.
"""

from __future__ import annotations

import sys
import time

import torch

from kplab.models.backbone import Backbone

FIRST = ("conv_stem", "bn1", "blocks.0", "blocks.1")
CASES: dict[str, dict] = {
    "all trained": {},
    "norms frozen": {"frozen_norm": True},
    "norms and layers up to stride 4 frozen": {"frozen_norm": True, "frozen": FIRST},
    "norms and layers up to stride 8 frozen": {"frozen_norm": True, "frozen": (*FIRST, "blocks.2")},
}


def milliseconds(backbone: Backbone, images: torch.Tensor, repetitions: int) -> float:
    """Of a forward and backward pass."""
    took = []
    for _ in range(repetitions + 1):  # the first one prepares
        begun = time.perf_counter()
        torch.stack([m.mean() for m in backbone(images)]).sum().backward()
        took.append(time.perf_counter() - begun)
    return 1000 * min(took[1:])


def main(repetitions: int) -> None:
    """Measure all cases."""
    images = torch.randn(16, 3, 224, 256).to(memory_format=torch.channels_last)
    whole = None
    for name, options in CASES.items():
        backbone = Backbone("tf_efficientnet_lite0", False, [1, 2, 3, 4], **options).train()
        took = milliseconds(backbone.to(memory_format=torch.channels_last), images, repetitions)
        whole = whole or took
        print(f"{name:40} {took:6.0f} ms   ratio {took / whole:.2f}", flush=True)


if __name__ == "__main__":
    main(int(dict(a.split("=") for a in sys.argv[1:]).get("repetitions", 4)))
