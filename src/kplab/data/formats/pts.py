"""Points files of iBUG (300-W, 300-VW, LFPW, Helen): one ``.pts`` for each image, with the points of one face.

Coordinates are pixel indices from 1, as MATLAB counts. The files have no names: the points are in the skeleton's order. A
point that is written as ``nan nan`` is unlabelled (no published set has one).

Source: iBUG, 300-W challenge; Sagonas et al., ICCV Workshops 2013.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import numpy as np

from kplab.data.formats._builder import Builder
from kplab.data.formats._files import clean, copy_images, find_image, read_text
from kplab.data.holds import Holds, singles
from kplab.data.naming import Names, numbered
from kplab.data.reading import some
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

HOLDS = Holds(several=False, empty=False, names=False, precision=1e-6)
BODY = re.compile(r"\s*version:\s*1(?:\.0)?\s+n_points:\s*(\d+)\s*\{\s*([^{}]*?)\s*\}\s*")


def recognise(path: Path) -> bool:
    """Whether a folder has, or a file is, a points file."""
    return path.suffix == ".pts" or (path.is_dir() and any(path.rglob("*.pts")))


def names(path: Path) -> Names:
    """Numbers in place of names."""
    files = _files(path)
    return numbered(len(_points(files[0])))


def read(
    folder: str | Path,
    skeleton: Skeleton,
    images: str | Path | None = None,
    box_margin: float = 1.2,
) -> Labels:
    """Read all points files of a folder and its subfolders; an image has the name of its points file.

    Args:
        folder: folder of the ``.pts`` files.
        skeleton: with as many keypoints as the files have points, in their order, e.g. ``face68``.
        images: folder of the images, in the same subfolders; null: beside the points files.
        box_margin: factor on the extent of the keypoints that makes a box.

    Raises:
        DataError: a file is damaged, has another number of points, or has no image.
    """
    root, files = Path(folder), _files(Path(folder))
    root = root if root.is_dir() else root.parent
    home = root if images is None else Path(images)
    builder = Builder(skeleton, Path(folder))
    missing = []
    for path in files:
        stem = path.relative_to(root).with_suffix("").as_posix()
        name = find_image(home, stem)
        points = _points(path)
        if len(points) != len(skeleton):
            raise DataError(
                f"{path}: has {len(points)} points, but skeleton '{skeleton.name}' has {len(skeleton)} "
                f"({some(skeleton.keypoints, 3)}). Choose the skeleton of this dataset."
            )
        if name is None:
            missing.append(f"{home / stem}.*")
            continue
        builder.instance(builder.image(name), affine.from_pixel_index(points, first=1))
    if missing:
        raise DataError(
            f"{home}: {len(missing)} of {len(files)} points files have no image: {some(missing)}. Use images=."
        )
    return builder.labels(home, files, box_margin=box_margin)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(path.rglob("*.pts"))
    if not found:
        raise DataError(f"{path}: no points file (.pts). Give the folder that holds one for each image.")
    return found


def _points(path: Path) -> np.ndarray:
    """(K, 2) numbers of a file."""
    match = BODY.fullmatch(read_text(path, "points file"))
    try:
        numbers = np.array([float(word) for word in match[2].split()]) if match else np.zeros(0)
    except ValueError as error:
        raise DataError(f"{path}: not a points file: {error}. Correct the number.") from error
    if match is None or not 0 < len(numbers) == 2 * int(match[1][:9]):
        raise DataError(
            f"{path}: not a whole points file: expected 'version: 1', 'n_points: N' and N pairs in braces, found "
            f"{len(numbers)} numbers. Fetch it again."
        )
    return numbers.reshape(-1, 2)


def write(labels: Labels, folder: str | Path, copy: bool = False) -> list[Path]:
    """Write a points file for each image with a labelled subject.

    Args:
        labels: what to write.
        folder: to write to.
        copy: copy the images there as well.

    Raises:
        DataError: an image has several labelled subjects, or two images would have the same file.
    """
    target, written, seen = Path(folder), [], []
    for i, row in enumerate(singles(labels, folder)):
        if row is None:
            continue
        path = target / PurePosixPath(str(labels.names[i])).with_suffix(".pts")
        if path in written:
            raise DataError(f"{path}: several images would have this points file. Rename the images.")
        points = affine.to_pixel_index(labels.poses.xy[row], first=1)
        lines = [" ".join("nan" if np.isnan(v) else str(clean(v)) for v in point) for point in points]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(["version: 1", f"n_points: {len(lines)}", "{", *lines, "}", ""]))
        written.append(path)
        seen.append(i)
    if copy:
        copy_images(labels.select(seen), target, [labels.names[i] for i in seen])
    return written
