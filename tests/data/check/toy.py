"""A clean dataset of a made-up animal seen from above, and a copy of it that can be damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from kplab.data.check import Dataset, Finding, check_dataset
from kplab.data.sources.files import FileSource
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

NAMES = ("nose", "neck", "tail", "left_ear", "right_ear", "left_foot", "right_foot")
BEETLE = Skeleton(
    "beetle", NAMES, ((0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (2, 6)), (0, 1, 2, 4, 3, 6, 5), (0.03,) * 7, "made up"
)
# seen from above, facing up: its left is at smaller x
BODY = np.array([[0, -50], [0, -20], [0, 50], [-18, -35], [18, -35], [-25, 40], [25, 40]], dtype=np.float64)
SIZE = (400, 300)


def subjects(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 7, 2) subjects at random places, turned, of different sizes, each keypoint with noise."""
    angle = rng.uniform(0, 2 * np.pi, count)
    turn = np.stack([np.stack([np.cos(angle), -np.sin(angle)], -1), np.stack([np.sin(angle), np.cos(angle)], -1)], 1)
    shape = BODY + rng.normal(0, 2, (count, 7, 2))
    scale = rng.uniform(0.7, 1.2, (count, 1, 1))
    return np.einsum("nij,nkj->nki", turn, shape) * scale + rng.uniform(100, [300, 200], (count, 1, 2))


def beetles(folder: Path, count: int = 80, seed: int = 0, pixels: bool = False) -> Labels:
    """One subject an image; the images are textures of blocks where ``pixels`` is true, else they don't exist."""
    rng = np.random.default_rng(seed)
    names = [f"{seed}_{i:03d}.png" for i in range(count)]
    if pixels:
        for name in names:
            block = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(block.repeat(50, 0).repeat(50, 1)).save(folder / name)
    xy = subjects(rng, count)
    hull = np.concatenate([xy.min(1), xy.max(1)], axis=1)
    box = hull + np.array([-5, -5, 5, 5])
    visible = np.full((count, 7), 2)
    visible[::7, 0] = 1
    poses = Poses.make(xy, visible, box=box, area=0.5 * (box[:, 2:] - box[:, :2]).prod(1))
    ids = np.arange(1, count + 1)
    how = {"box_source": "annotation", "area_source": "annotation"}
    return make_labels(
        BEETLE, FileSource(folder, names), ids, np.tile(SIZE, (count, 1)), None, poses, np.arange(count), ids, **how
    )


def permuted(labels: Labels, i: int, order: list[int]) -> None:
    """Give subject i its points in another order."""
    labels.poses.xy[i] = labels.poses.xy[i, order]


def with_copy(labels: Labels, i: int, shift: float) -> Labels:
    """The labels with subject i twice, the second one moved by some pixels."""
    index = np.sort(np.append(np.arange(len(labels.poses)), i))
    poses = labels.poses[index]
    poses.xy[i + 1] += shift
    image = np.sort(np.append(labels.image_of(), i))
    ids = np.insert(labels.instance_id, i + 1, 1000)
    more = {"box_source": labels.box_source, "area_source": labels.area_source}
    return make_labels(
        labels.skeleton, labels.source, labels.image_id, labels.size, list(labels.group), poses, image, ids, **more
    )


def renamed(labels: Labels, **changes: object) -> Labels:
    """The labels with a changed skeleton."""
    return replace(labels, skeleton=replace(labels.skeleton, **changes))  # type: ignore[arg-type]


def found(rule: str, splits: dict[str, Labels], **more: object) -> list[Finding]:
    """Findings of one rule."""
    return check_dataset(Dataset(splits, **more), [rule]).findings  # type: ignore[arg-type]
