"""Lightning Pose: one CSV table of a project, with a row for each labelled frame.

The table has DeepLabCut's three header rows (scorer, bodyparts, coords) and names its images relative to the project's
folder. Coordinates are pixel indices from 0, every labelled point is visible, and empty cells are unlabelled. In tables with
several views, the bodyparts of each view have names of their own.

Source: paninski-lab/lightning-pose, "Organizing your data".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from kplab.data.formats._builder import Builder
from kplab.data.formats._files import clean, copy_images, first_rows
from kplab.data.holds import Holds, singles
from kplab.data.naming import Names
from kplab.data.reading import match_keypoints
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

HOLDS = Holds(several=False, precision=1e-9)


def recognise(path: Path) -> bool:
    """Whether a file is a CSV table with DeepLabCut's header."""
    first, second = first_rows(path, 2)
    return first[:1] == ["scorer"] and second[:1] == ["bodyparts"] and path.parent.parent.name != "labeled-data"


def names(path: Path) -> Names:
    """Bodyparts of the table."""
    from kplab.data.formats._dlc_table import check_table, read_csv

    table, _ = read_csv(path)
    check_table(table, path)
    return Names(tuple(dict.fromkeys(table.columns.get_level_values("bodyparts"))))


def read(
    table: str | Path,
    skeleton: Skeleton,
    images: str | Path | None = None,
    box_margin: float = 1.2,
    rename: Mapping[str, str] | None = None,
    allow_outside: bool = False,
) -> Labels:
    """Read a table; an image's group is its folder, one for each video.

    Args:
        table: the CSV file.
        skeleton: its names must be the bodyparts of the table, in any order.
        images: folder that the image paths in the table are relative to; null: that of the table.
        box_margin: factor on the extent of the keypoints that makes a box.
        rename: bodypart to keypoint of the skeleton, where they differ.
        allow_outside: allow rows that name images outside the folder.

    Raises:
        DataError: the table or an image is missing, or the table contradicts itself or the skeleton.
    """
    from kplab.data.formats._dlc_table import check_table, read_csv

    path = Path(table)
    if not path.is_file():
        raise DataError(f"{path}: no such table. Check its path.")
    frame, _ = read_csv(path)
    check_table(frame, path)
    if "individuals" in frame.columns.names:
        raise DataError(
            f"{path}: a table with individuals, which is DeepLabCut's. Read its project with the format dlc."
        )
    order = match_keypoints(list(frame.columns[::2].get_level_values("bodyparts")), skeleton, str(path), rename)
    points = frame.to_numpy(np.float64).reshape(len(frame), len(frame.columns) // 2, 2)[:, order]
    builder = Builder(skeleton, path)
    for name, xy in zip(frame.index, affine.from_pixel_index(points), strict=True):
        image = builder.image(str(name), group=PurePosixPath(str(name)).parent.as_posix())
        if np.isfinite(xy).any():
            builder.instance(image, xy)
    home = path.parent if images is None else Path(images)
    return builder.labels(home, [path], box_margin=box_margin, allow_outside=allow_outside)


def write(labels: Labels, path: str | Path, scorer: str = "kplab", copy: bool = False) -> Path:
    """Write a table.

    Args:
        labels: what to write.
        path: the CSV file; images are named relative to its folder.
        scorer: name of the labeller.
        copy: copy the images there as well.

    Raises:
        DataError: an image has several labelled subjects.
    """
    path, keypoints = Path(path), labels.skeleton.keypoints
    odd = [name for name in [scorer, *keypoints, *map(str, labels.names)] if any(c in name for c in ',"\r\n')]
    if odd:
        raise DataError(f"{path}: a name with a comma, a quote or a line end: {odd[0]!r}. Rename it.")
    rows = [
        ["scorer"] + [scorer] * (2 * len(keypoints)),
        ["bodyparts", *(name for name in keypoints for _ in "xy")],
        ["coords"] + ["x", "y"] * len(keypoints),
    ]
    for name, row in zip(labels.names, singles(labels, path), strict=True):
        xy = np.full(2 * len(keypoints), np.nan)
        if row is not None:
            xy = affine.to_pixel_index(labels.poses.xy[row]).ravel()
        rows.append([str(name), *("" if np.isnan(v) else str(clean(v, 12)) for v in xy)])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8")
    if copy:
        copy_images(labels, path.parent, labels.names)
    return path
