"""Overview of a dataset: counts in one line, and a contact sheet."""

from __future__ import annotations

import numpy as np

from kplab.structures.labels import Labels
from kplab.viz import poses as drawing


def describe(dataset: str, split: str, labels: Labels) -> str:
    """Counts of a split, in one line."""
    p = labels.poses
    scored = int((~p.ignore & p.labelled.any(1)).sum())
    hidden = int((p.visible == 1).sum())
    return (
        f"{dataset} {split}: {len(labels)} images, {scored} labelled instances, {int(p.ignore.sum())} ignored, "
        f"{int(p.labelled.sum())} keypoints ({hidden} hidden), boxes: {labels.box_source}, areas: {labels.area_source}"
    )


def sheet(labels: Labels, count: int) -> np.ndarray:
    """A contact sheet of images with their labels, spread evenly over the split."""
    some = spread(len(labels), count)
    pictures = [drawing.draw(labels.read(i), labels.poses_of(i), labels.skeleton) for i in some]
    picture = drawing.contact_sheet(pictures, columns=4, labels=[str(labels.names[i]) for i in some])
    return drawing.with_legend(picture, labels.skeleton, "discs: visible; rings: hidden")


def spread(images: int, count: int) -> list[int]:
    """At most ``count`` different indices of ``images``, from the first to the last at even distances.

    >>> spread(4, 12), spread(10, 4), spread(5, 1)
    ([0, 1, 2, 3], [0, 3, 6, 9], [0])
    """
    count = min(count, images)
    return [round(i * (images - 1) / max(1, count - 1)) for i in range(count)]
