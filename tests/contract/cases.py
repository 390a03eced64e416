"""A head under test, built on a pyramid of narrow maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.utils import instantiate
from torch import Tensor

from kplab.models.heads.base import Head, HeadInputs
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton
from kplab.tasks import compose

ROOT = Path(__file__).resolve().parents[2]
#: (width, height) of the views that heads are built for; not square, so that a swap of the two shows
SIZE = (128, 192)
#: (width, height) of other views, smaller one way and larger the other
OTHER = (160, 96)
STRIDES = [4, 8, 16, 32]
CHANNELS = [8, 12, 16, 24]


@dataclass
class Case:
    """One head at one size of view."""

    name: str
    head: Head
    size: tuple[int, int]

    @property
    def most(self) -> int:
        """How many instances to draw in one view."""
        return min(self.head.max_poses or 4, 4)

    def representable(self, poses: Poses) -> Poses:
        """As many of the instances, taken in order, as the head can represent together."""
        kept: list[int] = []
        for i in range(len(poses)):
            if self.head.representable(poses[[*kept, i]], self.size).all():
                kept.append(i)
        return poses[kept]

    def maps(self, views: int, seed: int = 0) -> list[Tensor]:
        """Random feature maps that take a gradient."""
        random = torch.Generator().manual_seed(seed)
        return [
            torch.randn(views, c, self.size[1] // s, self.size[0] // s, generator=random).requires_grad_()
            for c, s in zip(CHANNELS, STRIDES, strict=True)
        ]


def heads() -> list[str]:
    """Names of all heads."""
    return sorted(path.stem for path in (ROOT / "conf" / "head").glob("*.yaml"))


def skeleton() -> Skeleton:
    """Seventeen keypoints with names that mirror each other."""
    return Skeleton.from_config(yaml.safe_load((ROOT / "conf" / "skeleton" / "coco17.yaml").read_text()))


def settings_of(head: str) -> dict[str, Any]:
    """What ``settings/<head>.yaml`` states for tests of a head; a head without such a file is tested with the defaults.

    Keys: ``options`` of a narrow head for the contract suite; for ``tests/tasks/test_overfit.py`` ``overfit``, overrides, and
    ``cascade``, whether the head is trained behind a detector.
    """
    file = Path(__file__).parent / "settings" / f"{head}.yaml"
    return yaml.safe_load(file.read_text()) if file.is_file() else {}


def make_head(name: str) -> Head:
    """The head of a config file, with the options of its settings."""
    torch.manual_seed(0)
    config = compose("train", [f"head={name}"]).head
    partial = instantiate(config, _convert_="all", **settings_of(name).get("options", {}))
    return partial(inputs=HeadInputs(CHANNELS, STRIDES, SIZE, skeleton()))
