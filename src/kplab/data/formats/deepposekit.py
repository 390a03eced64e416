"""DeepPoseKit annotation sets: HDF5 with images, keypoints and skeleton.

Keypoints are pixel indices from 0. The arrays are ``images`` (N, H, W, C), ``annotations`` (N, K, 2) with NaN where
unlabelled, ``annotated`` (N, K), which points a person has confirmed, and ``skeleton`` (K, 2), the parent of each point and
the point that it is exchanged with in a mirror image. Names are in ``skeleton.csv`` (name, parent, swap).

Assumption: the first pixel's centre is at 0; DeepPoseKit does not state it. Images are written as PNG files once.

Source: jgraving/DeepPoseKit, ``deepposekit/io/DataGenerator.py``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from kplab.data.apart import read_apart
from kplab.data.formats._builder import Builder
from kplab.data.formats._files import hdf5_names, read_table
from kplab.data.holds import Holds, singles
from kplab.data.naming import Names, numbered
from kplab.data.reading import match_keypoints, some
from kplab.data.video import frame_name
from kplab.errors import DataError
from kplab.ops import affine
from kplab.runs.files import check_may_write
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

HOLDS = Holds(several=False, sizes=False, precision=1e-9)
SKELETON = ("name", "parent", "swap")


def recognise(path: Path) -> bool:
    """Whether a file is DeepPoseKit's HDF5."""
    return path.suffix in (".h5", ".hdf5") and path.is_file() and {"images", "annotations"} <= hdf5_names(path)


def names(path: Path, skeleton_file: str | Path | None = None) -> Names:
    """Names, edges to parents and pairs of ``skeleton.csv``; or numbers, and what the file states."""
    table = _skeleton_file(path, skeleton_file)
    if table.is_file():
        rows = read_table(table, "skeleton of DeepPoseKit")
        if tuple(rows[0][:3]) != SKELETON:
            raise DataError(f"{table}: its columns are {some(rows[0])}, expected {', '.join(SKELETON)}.")
        listed = tuple(row[0] for row in rows[1:])
        index = {name: i for i, name in enumerate(listed)}
        unknown = sorted({cell for row in rows[1:] for cell in row[1:3] if cell and cell not in index})
        if unknown:
            raise DataError(f"{table}: parents or swaps that are no keypoints: {some(unknown)}. Correct them.")
        parents = [(index[row[1]], i) for i, row in enumerate(rows[1:]) if row[1]]
        swaps = [(i, index[row[2]]) for i, row in enumerate(rows[1:]) if row[2]]
    else:
        tree = _arrays(path)["skeleton"]
        listed = numbered(len(tree)).keypoints
        parents = [(int(parent), i) for i, (parent, _) in enumerate(tree) if 0 <= parent < len(tree)]
        swaps = [(i, int(swap)) for i, (_, swap) in enumerate(tree) if 0 <= swap < len(tree)]
    # a swap that its partner does not return is an error of the file: its names decide then
    mutual = all((j, i) in swaps for i, j in swaps)
    return Names(listed, tuple(parents), tuple((i, j) for i, j in swaps if i < j) if mutual else ())


def read(
    file: str | Path,
    skeleton: Skeleton,
    frames_to: str | Path,
    skeleton_file: str | Path | None = None,
    in_order: bool = False,
    confirmed: bool = False,
    box_margin: float = 1.2,
) -> Labels:
    """Read an annotation set; its images are written to a folder.

    Args:
        file: the HDF5 file.
        skeleton: its names must be those of ``skeleton.csv``.
        frames_to: folder for the images, as PNG files; those that are there are not written again.
        skeleton_file: the CSV file with the names; null: ``skeleton.csv`` beside the file.
        in_order: there is no such file, and the skeleton's order is that of the points.
        confirmed: read only the points that ``annotated`` marks as confirmed by a person.
        box_margin: factor on the extent of the keypoints that makes a box.

    Raises:
        DataError: the file is damaged, or contradicts itself or the skeleton.
    """
    path = Path(file)
    found = _arrays(path)
    points, marked, images = found["annotations"], found["annotated"], found["images"]
    if points.shape[1] != len(skeleton):
        raise DataError(
            f"{path}: has {points.shape[1]} keypoints, but skeleton '{skeleton.name}' has {len(skeleton)}. Choose the "
            "skeleton of this dataset."
        )
    table = _skeleton_file(path, skeleton_file)
    order = np.arange(len(skeleton))
    if not in_order and not table.is_file():
        raise DataError(
            f"{table}: no such file, which names the keypoints of {path.name}. Put it there, or name it with "
            "skeleton_file=; in_order=true takes the skeleton's order."
        )
    if not in_order:
        order = match_keypoints(names(path, skeleton_file).keypoints, skeleton, str(table))
        if len(order) != points.shape[1]:
            raise DataError(f"{table}: names {len(order)} keypoints, but {path} has {points.shape[1]}. Take its own.")
    builder = Builder(skeleton, path)
    folder = _write_images(path, images, Path(frames_to))
    labelled = np.isfinite(points).all(-1)
    weak = int((labelled & ~marked).sum())
    notes = (
        [f"{weak} of {int(labelled.sum())} points are not confirmed by a person (annotated is false)"] if weak else []
    )
    if confirmed and weak:
        notes = [f"{weak} points that are not confirmed by a person are taken as unlabelled"]
    for i in range(len(images)):
        image = builder.image(f"{folder.name}/{frame_name(i)}", images.shape[2:0:-1], group=folder.name)
        xy = affine.from_pixel_index(np.where((marked | (not confirmed))[i, :, None], points[i], np.nan))[order]
        if np.isfinite(xy).any():
            builder.instance(image, xy)
    return builder.labels(folder.parent, [path] if in_order else [path, table], box_margin=box_margin, notes=notes)


def _skeleton_file(path: Path, given: str | Path | None) -> Path:
    return path.parent / "skeleton.csv" if given is None else Path(given)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays, of shapes that fit together."""
    if not path.is_file():
        raise DataError(f"{path}: no such DeepPoseKit file. Check its path.")
    found = read_apart("kplab.data.formats._hdf5:deepposekit", path)
    shapes = {name: found[name].shape for name in ("images", "annotations", "annotated", "skeleton")}
    n, k = shapes["annotations"][:2] if len(shapes["annotations"]) == 3 else (-1, -1)
    images = shapes["images"]
    if (
        len(images) != 4
        or images[3] not in (1, 3)
        or not 0 < images[0] == n
        or min(images) < 1
        or shapes["annotations"] != (n, k, 2)
        or shapes["annotated"] != (n, k)
        or shapes["skeleton"] != (k, 2)
    ):
        raise DataError(f"{path}: arrays of DeepPoseKit that do not fit together: {shapes}. Fetch the file again.")
    return found


def _write_images(path: Path, images: np.ndarray, folder: Path) -> Path:
    """Write the images that are not there yet; returns their folder, whose name has a hash of their pixels."""
    into = folder / f"{path.stem}-{hashlib.sha256(images.tobytes()).hexdigest()[:12]}"
    missing = [i for i in range(len(images)) if not (into / frame_name(i)).is_file()]
    if missing:
        check_may_write(into / frame_name(missing[0]))
        into.mkdir(parents=True, exist_ok=True)
    for i in missing:
        pixels = images[i, ..., 0] if images.shape[3] == 1 else cv2.cvtColor(images[i], cv2.COLOR_RGB2BGR)
        beside = into / f".part-{frame_name(i)}"
        if not cv2.imwrite(str(beside), pixels):
            raise DataError(f"{beside}: the image cannot be written. Check the folder that frames are written to.")
        beside.replace(into / frame_name(i))
    return into


def write(labels: Labels, path: str | Path) -> list[Path]:
    """Write an annotation set with its images, and ``skeleton.csv`` beside it.

    Args:
        labels: what to write.
        path: the HDF5 file.

    Raises:
        DataError: an image has several labelled subjects, or the images are of different sizes.
    """
    import h5py

    path, skeleton = Path(path), labels.skeleton
    if len(np.unique(labels.size, axis=0)) > 1:
        raise DataError(
            f"{path}: DeepPoseKit stores images of one size, but these have several. Scale or cut them first."
        )
    points = np.full((len(labels), len(skeleton), 2), np.nan)
    for i, row in enumerate(singles(labels, path)):
        if row is not None:
            points[i] = affine.to_pixel_index(labels.poses.xy[row])
    parent = np.full(len(skeleton), -1)
    for a, b in skeleton.edges:
        parent[b] = a if parent[b] < 0 else parent[b]
    swap = np.where(skeleton.flip_array == np.arange(len(skeleton)), -1, skeleton.flip_array)
    images = np.stack([labels.read(i) for i in range(len(labels))])
    if (images == images[..., :1]).all():
        images = images[..., :1]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["images"], file["annotations"] = images, points
        file["annotated"] = np.isfinite(points).all(-1)
        file["skeleton"] = np.stack([parent, swap], axis=1).astype(np.int32)
    named = [(name, *(skeleton.keypoints[j] if j >= 0 else "" for j in (parent[i], swap[i])))
             for i, name in enumerate(skeleton.keypoints)]  # fmt: skip
    table = path.with_name("skeleton.csv")
    table.write_text("\n".join(",".join(row) for row in [SKELETON, *named]) + "\n", encoding="utf-8")
    return [path, table]
