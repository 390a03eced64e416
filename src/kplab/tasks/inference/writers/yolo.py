"""Predictions as labels in Ultralytics' format: a text file a frame, a line an instance.

``class x y w h x1 y1 v1 x2 y2 v2 …``: the centre and the sides of the box and the keypoints, as fractions of the sides of the
image, continuous; v is 2 for a keypoint that was found in the image and 0, with x and y 0, for all others. Boxes are clipped to
the image, as the format requires. It has no scores and no tracks.

Source: Ultralytics, ``docs/en/datasets/pose``.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from kplab.data.formats.yolo import line_of
from kplab.errors import ConfigError
from kplab.runs.files import PART
from kplab.structures.frames import Frame
from kplab.structures.poses import Poses
from kplab.tasks.inference.writers.about import About


@contextmanager
def write_yolo(path: Path, about: About) -> Iterator[Callable[[Frame], None]]:
    """Write a folder of labels; yields the function that adds a frame. Labels of an earlier prediction are replaced.

    Raises:
        ConfigError: the folder holds other files, or two images would have the same label file.
    """
    others = [p for p in path.rglob("*") if p.is_symlink() or (p.is_file() and p.suffix != ".txt")]
    if path.is_symlink() or others:
        raise ConfigError(
            f"{others[0] if others else path}: is no label file, and write=yolo replaces {path}. Remove it."
        )
    often = Counter(p.with_suffix("").absolute() for p in about.images or ())
    if doubled := [str(p) for p, count in often.items() if count > 1]:
        raise ConfigError(f"write=yolo: several images are called {doubled[0]}, but for their suffix. Rename them.")
    part = path.with_name(path.name + PART)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()

    def add(frame: Frame) -> None:
        file = part / label_name(frame.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x") as labels:
            labels.write(lines_of(frame.poses, frame.size or (1, 1)))

    try:
        yield add
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if path.is_dir():
        shutil.rmtree(path)
    part.rename(path)


def label_name(name: str) -> PurePosixPath:
    """The label file of a frame.

    >>> str(label_name("a/x.jpg")), str(label_name("clip.mp4#000012"))
    ('a/x.txt', 'clip_000012.txt')
    """
    path, _, number = name.partition("#")
    stem = PurePosixPath(path).with_suffix("")
    return stem.with_name(f"{stem.name}{'_' if number else ''}{number}.txt")


def lines_of(poses: Poses, size: tuple[int, int]) -> str:
    """The lines of an image.

    Args:
        poses: source pixels; without a box they have the hull of their keypoints.
        size: (width, height) of the image, pixels.
    """
    poses, sides = inside(poses, size), np.array(size, dtype=np.float64)
    box, xy, visible = np.nan_to_num(poses.box), np.nan_to_num(poses.xy), np.where(poses.labelled, 2, 0)
    return "".join(line_of(box[n], xy[n], visible[n], sides) for n in range(len(poses)))


def inside(poses: Poses, size: tuple[int, int]) -> Poses:
    """What lies in an image: boxes are clipped to it, and keypoints outside become unlabelled.

    Args:
        poses: source pixels; without a box they have the hull of their keypoints.
        size: (width, height) of the image, pixels.
    """
    there = poses.labelled & ((poses.xy >= 0) & (poses.xy <= size)).all(-1)
    box = np.where(np.isfinite(poses.box).all(1, keepdims=True), poses.box, poses.extent())
    return replace(
        poses,
        xy=np.where(there[..., None], poses.xy, np.nan),
        visible=np.where(there, poses.visible, 0).astype(np.uint8),
        box=np.clip(box, 0, np.tile(size, 2)),
    )
