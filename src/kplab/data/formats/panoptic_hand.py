"""CMU Panoptic HandDB, manual annotations: one JSON file for each hand.

``hand_pts`` are 21 pixel indices (x, y, labelled) of one hand, in the order of ``hand21``. The image has the name of the
file, or the one that the file states. Left and right hands have the same names.

Assumption: the first pixel's centre is at 0; the dataset does not state it.

Source: Simon et al., "Hand Keypoint Detection in Single Images using Multiview Bootstrapping", CVPR 2017, HandDB.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from kplab.data.formats._builder import Builder
from kplab.data.formats._files import find_image, json_keys, read_json
from kplab.data.holds import Holds
from kplab.data.naming import Names
from kplab.data.reading import match_keypoints
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

FINGERS = ("thumb", "index", "middle", "ring", "little")
POINTS = ("wrist", *(f"{finger}{i}" for finger in FINGERS for i in range(1, 5)))
HOLDS = Holds(several=False, keypoints=POINTS, precision=1e-9)


class Hand(msgspec.Struct):
    """A file, as far as kplab uses it."""

    hand_pts: list[list[float]]
    is_left: float | None = None


def recognise(path: Path) -> bool:
    """Whether a folder has, or a file is, JSON of HandDB."""
    return "hand_pts" in json_keys(path)


def names(path: Path) -> Names:
    """The 21 points, wrist first, each finger from base to tip."""
    return Names(POINTS, tuple((0 if i % 4 == 1 else i - 1, i) for i in range(1, 21)))


def read(folder: str | Path, skeleton: Skeleton, images: str | Path | None = None, box_margin: float = 1.2) -> Labels:
    """Read all files of a folder; each is one image with one hand, other hands in it are not labelled.

    Args:
        folder: folder of the ``.json`` files.
        skeleton: names the 21 points, in any order, e.g. ``hand21``.
        images: folder of the images, which have the names of the files; null: the same folder.
        box_margin: factor on the extent of the keypoints that makes a box.

    Raises:
        DataError: a file is damaged or of another kind, or has no image.
    """
    root = Path(folder)
    files = [root] if root.is_file() else sorted(root.glob("*.json"))
    home = (root.parent if root.is_file() else root) if images is None else Path(images)
    if not files:
        raise DataError(f"{root}: no file of HandDB (.json). Give the folder that holds one for each hand.")
    order = match_keypoints(POINTS, skeleton, str(root))
    builder = Builder(skeleton, root)
    for path in files:
        points = read_json(path, "file of HandDB", Hand).hand_pts
        if len(points) != len(POINTS) or any(len(point) != 3 or point[2] not in (0, 1) for point in points):
            raise DataError(f"{path}: hand_pts are not {len(POINTS)} points of x, y and 0 or 1. Fetch the file again.")
        name = find_image(home, path.stem)
        if name is None:
            raise DataError(f"{path}: there is no image {path.stem}.* in {home}. Name the folder with images=.")
        found = np.array(points)[order]
        xy = np.where(found[:, 2:] == 1, affine.from_pixel_index(found[:, :2]), np.nan)
        builder.instance(builder.image(name), xy)
    return builder.labels(home, files, box_margin=box_margin)
