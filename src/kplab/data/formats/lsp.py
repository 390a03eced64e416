"""Leeds Sports Pose: ``joints.mat`` and a folder of images, of the extended training set (LSPET) and of the original set.

Assumption: the coordinates are MATLAB pixel indices, which count from 1; the dataset does not state it. Of LSPET the array is
(14, 3, N), and its third row is 1 where a joint is labelled. Of the original set it is (3, 14, N), every joint is labelled, and
its third row is 1 where one is hidden.

Source: Johnson & Everingham, "Learning Effective Human Pose Estimation from Inaccurate Annotation", CVPR 2011.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from kplab.data.apart import read_apart
from kplab.data.formats._files import copy_images
from kplab.data.holds import Holds, singles
from kplab.data.images import read_header
from kplab.data.naming import Names
from kplab.data.reading import labels_from, match_keypoints, some
from kplab.data.sources.files import FileSource
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

JOINTS = (
    *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
    *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
    *("neck", "head_top"),
)
HOLDS = Holds(several=False, empty=False, keypoints=JOINTS, precision=1e-9)


def recognise(path: Path) -> bool:
    """Whether a folder holds joints.mat."""
    return (path / "joints.mat").is_file()


def names(path: Path) -> Names:
    """The 14 joints, in LSPET's order."""
    edges = (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 12), (12, 9), (9, 10), (10, 11), (12, 13)
    return Names(JOINTS, edges)


def read(folder: str | Path, skeleton: Skeleton, images: str = "images", box_margin: float = 1.2) -> Labels:
    """Read the images that are there with their one labelled person each; image ``im00001.jpg`` is column 0.

    Boxes come from the keypoints, areas are ``0.53 * w * h`` of the boxes, and each image is its own group. A joint
    labelled more than 1 px outside its image becomes unlabelled, and is counted in the notes.

    Args:
        folder: folder that holds ``joints.mat`` and the image folder.
        skeleton: names the 14 joints, in any order, e.g. ``lsp14``.
        images: name of the image folder, where ``im<number>.jpg`` lie.
        box_margin: factor on the extent of the keypoints that makes a box.

    Raises:
        DataError: a file is missing or is not what LSP publishes.
    """
    root = Path(folder)
    joints = _joints(root / "joints.mat")  # (14, 3, N)
    files = sorted(p for p in (root / images).glob("*") if re.fullmatch(r"im\d+\.(jpg|png)", p.name))
    if not files:
        raise DataError(f"{root / images}: no images im<number>.jpg. Check the folder, or name it with images=.")
    number = np.array([int(p.stem[2:]) for p in files])
    beyond = number[(number < 1) | (number > joints.shape[2])]
    if len(beyond):
        raise DataError(
            f"{root / 'joints.mat'}: {joints.shape[2]} columns, but there are images {some(beyond)}. "
            "Take joints.mat and the images from one release."
        )
    table = joints[match_keypoints(JOINTS, skeleton, str(root / "joints.mat"))][..., number - 1]
    absent = joints.shape[2] - len(files)
    left_out = f"{absent} of {joints.shape[2]} labelled images are not in {root / images}: left out"
    return labels_from(
        skeleton,
        FileSource(root, [f"{images}/{p.name}" for p in files]),
        number,
        np.array([read_header(p)[0] for p in files], dtype=np.int64),
        None,
        affine.from_pixel_index(np.moveaxis(table[:, :2], -1, 0), first=1),
        table[:, 2].T.astype(np.int64),
        np.arange(len(files)),
        number,
        box_margin=box_margin,
        notes=[left_out] if absent else [],
        files=[root / "joints.mat"],
    )


def _joints(path: Path) -> np.ndarray:
    """(14, 3, N) x, y, visibility as in COCO."""
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give the folder of LSPET that holds joints.mat and the images.")
    try:
        joints = read_apart("kplab.data.formats._mat:joints", path)["joints"]
    except DataError as error:
        raise DataError(
            f"{str(error).removesuffix('.')}: no array 'joints' can be read. Fetch the file again."
        ) from error
    original = joints.ndim == 3 and joints.shape[:2] == (3, len(JOINTS))
    if original:
        joints = np.moveaxis(joints, 0, 1).copy()
    if joints.ndim != 3 or joints.shape[:2] != (len(JOINTS), 3):
        raise DataError(
            f"{path}: 'joints' is {joints.shape}, expected (14, 3, N) or (3, 14, N). Take joints.mat of LSP."
        )
    if not np.isfinite(joints).all() or not np.isin(joints[:, 2], (0, 1)).all():
        raise DataError(f"{path}: 'joints' holds values that are not finite, or flags besides 0 and 1. Fetch it again.")
    joints[:, 2] = 2 - joints[:, 2] if original else 2 * joints[:, 2]
    return joints


def write(labels: Labels, folder: str | Path, copy: bool = False) -> Path:
    """Write ``joints.mat`` as LSPET has it; image i is ``images/im<number>``, numbered in the order of the labels with a subject.

    Images whose names are ``images/im<number>`` already keep them.

    Args:
        labels: what to write.
        folder: the dataset's folder.
        copy: copy the images there as well, under these names.

    Raises:
        DataError: an image has several labelled subjects, or the skeleton has other keypoints than LSP.
    """
    from kplab.data.formats._mat import write_joints

    target = Path(folder)
    own = Skeleton("LSP", JOINTS, (), tuple(range(len(JOINTS))), (1.0,) * len(JOINTS), labels.skeleton.sigma_source)
    order = match_keypoints(labels.skeleton.keypoints, own, f"{target}: LSP has 14 joints of its own")
    rows = singles(labels, target)
    kept = [i for i, row in enumerate(rows) if row is not None]
    if not kept:
        raise DataError(f"{target}: no image has a labelled subject. Choose other labels.")
    stored = [re.fullmatch(r"images/im(\d+)\.(jpg|png)", str(labels.names[i])) for i in kept]
    numbers = [int(m[1]) for m in stored if m]
    if len(set(numbers)) < len(kept) or not 0 < min(numbers) <= max(numbers) < 10_000_000:
        numbers = list(range(1, len(kept) + 1))
    joints = np.zeros((len(JOINTS), 3, max(numbers)))
    for i, n in zip(kept, numbers, strict=True):
        xy = affine.to_pixel_index(labels.poses.xy[rows[i]], first=1)[order]
        joints[:, :2, n - 1] = np.nan_to_num(xy)
        joints[:, 2, n - 1] = np.isfinite(xy[:, 0])
    target.mkdir(parents=True, exist_ok=True)
    write_joints(joints, target / "joints.mat")
    if copy:
        ends = [".jpg" if str(labels.names[i]).lower().endswith((".jpg", ".jpeg")) else ".png" for i in kept]
        copy_images(labels.select(kept), target, [f"images/im{n:05d}{e}" for n, e in zip(numbers, ends, strict=True)])
    return target / "joints.mat"
