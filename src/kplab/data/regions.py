"""Regions: the parts of images that the network is given. A whole image is a region whose box is the image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kplab.errors import ConfigError, DataError
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses


@dataclass
class Regions:
    """R regions over a set of images.

    Args:
        image: (R,) int64 index of the image in its Labels.
        box: (R, 4) float64 xyxy, source pixels.
        subject: (R,) int64 row of the instance in ``Labels.poses`` that the region was made for; -1 for none.
        score: (R,) float64 confidence of the region; 1 where it is given.
        padding: factor on a box's sides before it becomes a view.
        kind: "image", "annotated" or "detected".
    """

    image: np.ndarray
    box: np.ndarray
    subject: np.ndarray
    score: np.ndarray
    padding: float
    kind: str

    def __len__(self) -> int:
        return len(self.image)

    def most_poses(self, labels: Labels) -> int:
        """The largest number of subjects that one region shows."""
        if self.kind != "image":
            return 1
        scored = np.concatenate([[0], np.cumsum(~labels.poses.ignore)])
        return int(np.max(np.diff(scored[labels.start]), initial=0))


def image_regions(labels: Labels) -> Regions:
    """One region for each image: the whole image, with all its subjects."""
    n = len(labels)
    box = np.concatenate([np.zeros((n, 2)), labels.size.astype(np.float64)], axis=1)
    return Regions(np.arange(n), box, np.full(n, -1), np.ones(n), 1.0, "image")


def annotated_regions(labels: Labels, padding: float = 1.25) -> Regions:
    """One region for every instance that is not ignored and has a labelled keypoint: its annotated box.

    Args:
        padding: factor on the box's sides; 1.25 is the value of SimpleBaseline and HRNet.
    """
    poses = labels.poses
    rows = np.flatnonzero(~poses.ignore & poses.labelled.any(1) & np.isfinite(poses.box).all(1))
    image = labels.image_of()
    return Regions(image[rows], poses.box[rows], rows, np.ones(len(rows)), padding, "annotated")


def detected_regions(labels: Labels, found: dict[int, Poses], padding: float = 1.25) -> Regions:
    """One region for every predicted box; the true poses are not used.

    Args:
        labels: the images; its poses are not used.
        found: image id to predicted poses, source pixels; those without a box have the hull of their keypoints.
        padding: factor on a box's sides.

    Raises:
        DataError: an image has no entry in ``found``.
    """
    for i, image_id in enumerate(labels.image_id):
        if int(image_id) not in found:
            raise DataError(
                f"{labels.where(i)}: the detector's predictions do not cover this image. Predict this split with it first."
            )
    return predicted_regions((found[int(i)] for i in labels.image_id), padding)


def predicted_regions(found: Iterable[Poses], padding: float = 1.25) -> Regions:
    """One region for every box of predicted poses; only boxes and scores are kept.

    Args:
        found: of image 0, 1, …, source pixels; poses without a box have the hull of their keypoints.
        padding: factor on a box's sides.
    """
    image, box, score = [np.zeros(0, dtype=np.int64)], [np.zeros((0, 4))], [np.zeros(0)]
    for i, poses in enumerate(found):
        boxes = np.where(np.isfinite(poses.box).all(1, keepdims=True), poses.box, poses.extent())
        whole = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(1))
        image.append(np.full(len(whole), i))
        box.append(boxes[whole])
        score.append(poses.score[whole])
    where, boxes = np.concatenate(image), np.concatenate(box)
    return Regions(where, boxes, np.full(len(where), -1), np.concatenate(score), padding, "detected")


def make_regions(labels: Labels, kind: str, padding: float) -> Regions:
    """Regions of the kinds that need only the labels: ``image`` or ``annotated``."""
    if kind == "image":
        return image_regions(labels)
    if kind == "annotated":
        return annotated_regions(labels, padding)
    raise ConfigError(f"regions '{kind}' are unknown. Use regions=image or regions=annotated.")
