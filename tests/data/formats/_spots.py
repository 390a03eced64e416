"""Images for the examples of formats: one lit pixel for each labelled keypoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from kplab.structures.skeleton import Skeleton

SIZE = (24, 16)
PET = Skeleton("pet", ("nose", "left_ear", "right_ear"), ((0, 1), (0, 2)), (0, 2, 1), (0.03, 0.04, 0.04), "made up")

#: Pixel indices (column, row) of nose, left_ear and right_ear of every subject, image by image; None is unlabelled.
SUBJECTS: tuple[tuple[tuple[tuple[int, int] | None, ...], ...], ...] = (
    (((3, 5), (8, 2), (9, 9)), ((20, 12), None, (15, 13))),
    (((0, 0), (23, 15), None),),
    (((11, 7), (4, 14), (18, 1)),),
)

#: Pixel indices of the one subject of each image, for formats that have no more.
ALONE = tuple((subjects[0],) for subjects in SUBJECTS)


def image(points: Sequence[tuple[int, int] | None], size: tuple[int, int] = SIZE) -> np.ndarray:
    """(height, width, 3) uint8: black, with a white pixel at each point."""
    out = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    for point in points:
        if point is not None:
            out[point[1], point[0]] = 255
    return out


def write_images(
    folder: Path,
    names: Sequence[str],
    images: Sequence[Sequence[Sequence[tuple[int, int] | None]]] = SUBJECTS,
) -> None:
    """Write the images of subjects."""
    for name, subjects in zip(names, images, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image([p for subject in subjects for p in subject]))


def joints(names: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Pixel indices of the joints of one subject in each of three images, all different."""
    return [[((3 * k + n) % SIZE[0], (5 * k + 2 * n) % SIZE[1]) for k in range(len(names))] for n in range(3)]
