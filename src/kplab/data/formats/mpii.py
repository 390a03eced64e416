"""MPII Human Pose: ``mpii_human_pose_v1_u12_1.mat``, and the JSON lists of HRNet.

Keypoints are pixel indices from 1, as MATLAB counts. In the ``.mat``, a joint that is missing is unlabelled, and one with
``is_visible`` 0 is hidden. In the JSON, a joint with ``joints_vis`` 0 is unlabelled. Neither has boxes of whole people, nor
the sizes of images, which are read from the image files.

Source: Andriluka et al., "2D Human Pose Estimation: New Benchmark and State of the Art Analysis", CVPR 2014, README of the
annotations; leoxiaobin/deep-high-resolution-net.pytorch, ``data/mpii/annot``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np

from kplab.data.apart import read_apart
from kplab.data.formats._builder import Builder
from kplab.data.formats._files import copy_images, json_keys, posix, read_json
from kplab.data.holds import Holds, instances_of
from kplab.data.naming import Names
from kplab.data.reading import match_keypoints, some
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

JOINTS = (
    *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
    *("pelvis", "thorax", "upper_neck", "head_top"),
    *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
)
HOLDS = Holds(visibility=True, keypoints=JOINTS, precision=1e-9)


class Entry(msgspec.Struct):
    """A person of HRNet's JSON."""

    image: str
    joints: list[list[float]]
    joints_vis: list[float]


def recognise(path: Path) -> bool:
    """Whether a file is MPII's .mat or HRNet's JSON of it."""
    if path.suffix == ".mat" and path.is_file():
        with path.open("rb") as stream:
            if not stream.read(20).startswith(b"MATLAB 5.0"):
                return False
        try:
            return "RELEASE" in read_apart("kplab.data.formats._mat:variables", path)["names"].tolist()
        except DataError:
            return False
    return path.is_file() and {"image", "joints", "joints_vis"} <= json_keys(path)


def names(path: Path) -> Names:
    """The 16 joints, in MPII's order."""
    edges = (0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (8, 12), (12, 11), (11, 10), (8, 13)
    return Names(JOINTS, (*edges, (13, 14), (14, 15)))


def read(
    annotations: str | Path,
    images: str | Path,
    skeleton: Skeleton,
    skip_missing: bool = False,
    box_margin: float = 1.2,
    rename: Mapping[str, str] | None = None,
) -> Labels:
    """Read all images that have a labelled person; those of the test set have none.

    Args:
        annotations: the ``.mat`` or ``.json`` file.
        images: folder of the images.
        skeleton: names the 16 joints, in any order, e.g. ``mpii16``.
        skip_missing: leave out images that are not in the folder; their number is noted.
        box_margin: factor on the extent of the keypoints that makes a box.
        rename: name of a joint to keypoint of the skeleton, where they differ.

    Raises:
        DataError: the file is damaged or of another kind, or an image is missing.
    """
    path, home = Path(annotations), Path(images)
    order = match_keypoints(JOINTS, skeleton, str(path), rename)
    builder, known, missing = Builder(skeleton, path), {}, set()
    for name, joints in _people(path) if path.suffix == ".mat" else _entries(path):
        if skip_missing and not (home / name).is_file():
            missing.add(name)
            continue
        if name not in known:
            known[name] = builder.image(name)
        if joints is not None:
            builder.instance(
                known[name], affine.from_pixel_index(joints[order, :2], first=1), joints[order, 2].astype(int)
            )
    notes = [f"{len(missing)} images of the file are not in {home}: left out"] if missing else []
    return builder.labels(home, [path], box_margin=box_margin, notes=notes)


def _people(path: Path) -> Iterator[tuple[str, np.ndarray | None]]:
    """Image and (16, 3) x, y, visibility of each person of the .mat; None for an image without one."""
    if not path.is_file():
        raise DataError(f"{path}: no such file of MPII. Check its path.")
    found = read_apart("kplab.data.formats._mat:mpii", path)
    images, image_of, joints = found["images"].tolist(), found["image_of"].tolist(), found["joints"]
    if (~np.isfinite(joints[joints[..., 2] > 0])).any():
        raise DataError(f"{path}: a joint is not finite. Fetch the file again.")
    people: dict[int, list[np.ndarray]] = {}
    for i, one in zip(image_of, joints, strict=True):
        people.setdefault(i, []).append(one)
    for i, name in enumerate(images):
        for one in people.get(i, [None]):  # type: ignore[list-item]
            yield posix(name), one


def _entries(path: Path) -> Iterator[tuple[str, np.ndarray | None]]:
    """Image and (16, 3) x, y, visibility of each person of the JSON."""
    for n, entry in enumerate(read_json(path, "JSON list of MPII", list[Entry]), 1):
        if (
            len(entry.joints) != len(JOINTS)
            or len(entry.joints_vis) != len(JOINTS)
            or {len(j) for j in entry.joints} != {2}
        ):
            raise DataError(f"{path}: entry {n} ({entry.image}) has not 16 joints of x, y and joints_vis. Correct it.")
        seen = np.array(entry.joints_vis)
        if not np.isin(seen, (0, 1)).all():
            raise DataError(
                f"{path}: entry {n} ({entry.image}): joints_vis is {some(entry.joints_vis)}, expected 0 or 1."
            )
        xy = np.where(seen[:, None] == 1, np.array(entry.joints, dtype=np.float64), np.nan)
        yield posix(entry.image), np.column_stack([xy, 2 * seen])


def write(labels: Labels, path: str | Path, copy: bool = False) -> Path:
    """Write a ``.mat`` of MPII's structure.

    Args:
        labels: what to write.
        path: the ``.mat`` file; images are named relative to its folder.
        copy: copy the images there as well.

    Raises:
        DataError: the skeleton has other keypoints than MPII.
    """
    from kplab.data.formats._mat import write_mpii

    path = Path(path)
    order = match_keypoints(labels.skeleton.keypoints, _own(labels.skeleton), f"{path}: MPII has 16 joints of its own")
    people = []
    for i, name in enumerate(labels.names):
        rows = [
            row for row in instances_of(labels, i) if (labels.poses.visible[row] > 0).any() and not labels.crowd[row]
        ]
        xy = affine.to_pixel_index(labels.poses.xy[rows], first=1)[:, order]
        joints = np.concatenate([xy, labels.poses.visible[rows][:, order, None]], axis=2)
        people.append((str(name), joints, labels.poses.box[rows]))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mpii(people, path)
    if copy:
        copy_images(labels, path.parent, labels.names)
    return path


def _own(skeleton: Skeleton) -> Skeleton:
    """MPII's joints as a skeleton."""
    return Skeleton("MPII", JOINTS, (), tuple(range(len(JOINTS))), (1.0,) * len(JOINTS), skeleton.sigma_source)
