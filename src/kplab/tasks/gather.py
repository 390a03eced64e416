"""From views back to images: predicted poses in source pixels, grouped by image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kplab.structures.labels import Labels
from kplab.structures.poses import Poses

if TYPE_CHECKING:
    from kplab.structures.sample import Batch


def to_source(batch: Batch, poses: list[Poses], whole_images: bool) -> list[Poses]:
    """Map the poses of each view back to source pixels, weigh them by their region's score, and give them boxes.

    Args:
        batch: the views.
        poses: one Poses a view, view pixels.
        whole_images: regions are whole images; then a pose without a box gets the hull of its keypoints, else its region.
    """
    out = []
    for i, p in enumerate(poses):
        source = p.transform(np.linalg.inv(batch.view[i]))
        without = ~np.isfinite(source.box).all(1)
        fallback = source.extent() if whole_images else np.repeat(batch.box[i][None], len(source), 0)
        out.append(
            replace(source, score=p.score * batch.score[i], box=np.where(without[:, None], fallback, source.box))
        )
    return out


def group(image_id: np.ndarray, poses: list[Poses], keypoints: int) -> dict[int, Poses]:
    """Image id to all poses found in its regions, in the order of the regions."""
    parts: dict[int, list[Poses]] = {}
    for image, p in zip(image_id, poses, strict=True):
        parts.setdefault(int(image), []).append(p)
    return {image: Poses.concat(found) if found else Poses.empty(keypoints) for image, found in parts.items()}


def files_of(labels: Labels) -> dict[int, str]:
    """Image id to file name."""
    return {int(i): str(name) for i, name in zip(labels.image_id, labels.files, strict=True)}
