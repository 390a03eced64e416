"""A head under test, built on a pyramid of narrow maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from kplab.models.heads.base import Head
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

ROOT = Path(__file__).resolve().parents[2]
#: (width, height): not square, so that a swap of the two shows
SIZE = (128, 192)
STRIDES = [4, 8, 16, 32]
CHANNELS = [8, 12, 16, 24]

#: Largest error of decode(ideal(encode(poses))), view pixels; a head that is not listed keeps to the first.
ROUND_TRIP = {"default": 0.05}


@dataclass
class Case:
    """One head and what the suite knows of it."""

    name: str
    head: Head
    tolerance: float

    @property
    def most(self) -> int:
        """How many instances to draw in one view."""
        return min(self.head.max_poses or 4, 4)

    def held(self, poses: Poses) -> Poses:
        """As many of the instances, taken in order, as the head says that it can hold together."""
        kept: list[int] = []
        for i in range(len(poses)):
            if self.head.holds(poses[[*kept, i]]).all():
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
    partial = instantiate(OmegaConf.load(file), _convert_="all", **options)
    return partial(in_channels=CHANNELS, strides=STRIDES, size=SIZE, skeleton=skeleton())
