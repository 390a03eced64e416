"""A head under test, built on a pyramid of narrow maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hydra.utils import instantiate
from torch import Tensor

from kplab.models.heads.base import Head
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton
from kplab.tasks import compose

ROOT = Path(__file__).resolve().parents[2]
#: (width, height): not square, so that a swap of the two shows
SIZE = (128, 192)
STRIDES = [4, 8, 16, 32]
CHANNELS = [8, 12, 16, 24]


def rcnn_cells(true: Poses) -> np.ndarray:
    """A heatmap of 56x56 cells fills the box and is resized to its pixels.

    Along each axis half a cell from naming a cell only, or a third more in the cells at the border, where the cubic of the
    resizing peaks 1/6 of a cell from the box's side; and half a pixel of the resized map.
    """
    sides = true.box[:, 2:] - true.box[:, :2]
    return np.hypot(*(5 / 6 * sides / 56 + 0.5).T)


#: Largest error of decode(ideal(encode(poses))), view pixels, or a function of the true instances that says so for each; a
#: head that is not listed keeps to the first.
ROUND_TRIP: dict[str, float | Callable[[Poses], np.ndarray]] = {"default": 0.05, "rcnn": rcnn_cells}

#: Options of heads that are too wide for a suite of many small steps.
NARROW: dict[str, dict[str, Any]] = {
    "rcnn": {
        "box_width": 32, "keypoint_layers": 1, "keypoint_width": 16, "samples": 32, "rpn_before": [100, 50],
        "rpn_after": [50, 20],
    }
}  # fmt: skip


@dataclass
class Case:
    """One head and what the suite knows of it."""

    name: str
    head: Head
    tolerance: float | Callable[[Poses], np.ndarray]

    @property
    def most(self) -> int:
        """How many instances to draw in one view."""
        return min(self.head.max_poses or 4, 4)

    def allowed(self, true: Poses) -> np.ndarray:
        """(N,) largest error of each instance after a round trip, view pixels."""
        return self.tolerance(true) if callable(self.tolerance) else np.full(len(true), self.tolerance)

    def held(self, poses: Poses) -> Poses:
        """As many of the instances, taken in order, as the head says that it can hold together."""
        kept: list[int] = []
        for i in range(len(poses)):
            if self.head.representable(poses[[*kept, i]]).all():
                kept.append(i)
        return poses[kept]

    def maps(self, views: int, seed: int = 0) -> list[Tensor]:
        """Random feature maps that take a gradient."""
        random = torch.Generator().manual_seed(seed)
        return [
            torch.randn(views, c, SIZE[1] // s, SIZE[0] // s, generator=random).requires_grad_()
            for c, s in zip(CHANNELS, STRIDES, strict=True)
        ]


def skeleton() -> Skeleton:
    """Seventeen keypoints with names that mirror each other."""
    return Skeleton.from_config(yaml.safe_load((ROOT / "conf" / "skeleton" / "coco17.yaml").read_text()))


def make_head(file: Path, **options: Any) -> Head:
    """The head of a config file."""
    torch.manual_seed(0)
    partial = instantiate(compose("train", [f"head={file.stem}"]).head, _convert_="all", **options)
    return partial(in_channels=CHANNELS, strides=STRIDES, size=SIZE, skeleton=skeleton())
