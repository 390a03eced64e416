"""Faults of image files, of splits, and of labels beside predictions, planted for bench/measure_linter.py.

Each of ``FILES`` is a function ``(path, other, rng) -> bool`` that damages the file of one image, given that of another one, and
returns whether it could. Each of ``MODEL`` is a function ``(labels, predictions, i, rng)`` that makes instance i contradict the
predictions, or takes it away.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from label_faults import copied, hull_of
from PIL import Image

from kplab.data.sources.files import FileSource
from kplab.structures.labels import Labels
from kplab.structures.poses import Poses

IMAGES = 100
"""Images of a dataset whose files are damaged, at most."""


@dataclass(frozen=True)
class FileFault:
    """A kind of fault, and the rules that are about it."""

    rules: tuple[str, ...]
    plant: Callable[[Path, Path, np.random.Generator], bool]
    splits: bool = False


def with_files(splits: Mapping[str, Labels], folder: Path, rng: np.random.Generator) -> Labels:
    """Up to ``IMAGES`` images of a dataset as files of their own, without groups."""
    labels = max(splits.values(), key=len)
    labels = labels.select(np.sort(rng.choice(len(labels), min(IMAGES, len(labels)), replace=False)))
    names = []
    for i in range(len(labels)):
        path = labels.path(i)
        names.append(f"{i:04d}{path.suffix if path is not None else '.png'}")
        if path is not None:
            shutil.copyfile(path, folder / names[-1])
        else:
            Image.fromarray(labels.read(i)).save(folder / names[-1])
    return replace(labels, source=FileSource(folder, names), group=np.array(names, dtype=object))


def missing(path: Path, other: Path, rng: np.random.Generator) -> bool:
    """No file."""
    path.unlink()
    return True


def truncated(path: Path, other: Path, rng: np.random.Generator) -> bool:
    """A file cut at 5 to 95 % of its length."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * rng.uniform(0.05, 0.95))])
    return True


def no_image(path: Path, other: Path, rng: np.random.Generator) -> bool:
    """Random bytes."""
    path.write_bytes(rng.bytes(1000))
    return True


def resized(path: Path, other: Path, rng: np.random.Generator) -> bool:
    """The image at 0.4 to 0.9 of its size."""
    with Image.open(path) as image:
        scale = rng.uniform(0.4, 0.9)
        small = image.convert("RGB").resize([max(1, round(side * scale)) for side in image.size])
    small.save(path)
    return True


def turned(path: Path, other: Path, rng: np.random.Generator) -> bool:
    """An EXIF orientation, with the pixels as they are."""
    with Image.open(path) as image:
        exif, pixels = image.getexif(), image.convert("RGB")
    exif[0x0112] = int(rng.choice([3, 6, 8]))
    pixels.save(path, exif=exif)
    return True


def copy(path: Path, other: Path, rng: np.random.Generator) -> bool:
    """The file of another image."""
    if path.suffix != other.suffix:
        return False
    shutil.copyfile(other, path)
    return True


def nearly(path: Path, other: Path, rng: np.random.Generator) -> bool:
    """Another image, scaled to 0.6 to 0.95 of its size and compressed again."""
    with Image.open(other) as image:
        scale = rng.uniform(0.6, 0.95)
        small = image.convert("RGB").resize([max(1, round(side * scale)) for side in image.size])
    small.save(path, format="JPEG", quality=70)
    return True


FILES = {
    "image missing": FileFault(("missing-image",), missing),
    "image truncated": FileFault(("unreadable-image",), truncated),
    "file that is no image": FileFault(("unreadable-image",), no_image),
    "image of another size": FileFault(("image-size",), resized),
    "image with EXIF orientation": FileFault(("exif-orientation", "turned-image"), turned),
    "image copied within a split": FileFault(("copied-image",), copy),
    "image copied to another split": FileFault(("same-image-in-splits",), copy, True),
    "image scaled and compressed in another split": FileFault(("near-image-in-splits",), nearly, True),
}


def simulated(labels: Labels, rng: np.random.Generator) -> dict[int, Poses]:
    """Predictions as of a fairly good model, that never saw these labels.

    Each keypoint deviates by a normal error of 3 % of the diagonal of the subject; 3 % of the keypoints are 0.2 to 1 diagonals
    off, with scores of 0 to 0.6 in place of 0.5 to 1; 3 % of the subjects are not found.
    """
    found: dict[int, Poses] = {}
    p = labels.poses
    for i in range(len(labels)):
        rows = np.arange(labels.start[i], labels.start[i + 1])
        rows = rows[~p.ignore[rows] & p.labelled[rows].any(1) & (rng.random(len(rows)) >= 0.03)]
        xy, score = p.xy[rows].copy(), rng.uniform(0.5, 1, p.visible[rows].shape)
        for n, row in enumerate(rows):
            diagonal = hull_of(p, int(row))[1]
            xy[n] += rng.normal(0, 0.03 * diagonal, xy[n].shape)
            off = rng.random(len(xy[n])) < 0.03
            angle = rng.uniform(0, 2 * np.pi, off.sum())
            direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
            xy[n, off] += rng.uniform(0.2, 1, (off.sum(), 1)) * diagonal * direction
            score[n, off] = rng.uniform(0, 0.6, off.sum())
        known = np.isfinite(xy).all(-1)
        mean = np.where(known, score, 0).sum(1) / np.maximum(known.sum(1), 1)
        found[int(labels.image_id[i])] = Poses.make(xy, score=mean, keypoint_score=np.where(known, score, np.nan))
    return found


def off(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """A keypoint 0.3 to 1 diagonals from its place."""
    p = labels.poses
    k, angle = rng.choice(np.flatnonzero(p.labelled[i])), rng.uniform(0, 2 * np.pi)
    p.xy[i, k] += rng.uniform(0.3, 1) * hull_of(p, i)[1] * np.array([np.cos(angle), np.sin(angle)])
    return True


def sides(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """Left and right exchanged."""
    p, flip = labels.poses, labels.skeleton.flip_array
    paired = p.labelled[i] & p.labelled[i, flip] & (flip != np.arange(len(flip)))
    p.xy[i], p.visible[i] = p.xy[i, flip], p.visible[i, flip]
    return bool(paired.any())


def added(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """A label where nothing is: the subject moved by 2 to 3 diagonals."""
    p, angle = labels.poses, rng.uniform(0, 2 * np.pi)
    p.xy[i] += rng.uniform(2, 3) * hull_of(p, i)[1] * np.array([np.cos(angle), np.sin(angle)])
    return True


def unlabelled(labels: Labels, i: int, rng: np.random.Generator) -> bool:
    """A subject without labels; the place is its image."""
    p = labels.poses
    p.xy[i], p.visible[i] = np.nan, 0
    return True


#: Kind to (rules, unit, function).
MODEL: dict[str, tuple[tuple[str, ...], str, Callable[[Labels, int, np.random.Generator], bool]]] = {
    "keypoint 0.3 to 1 diagonals off, with a run": (("model-contradicts",), "instance", off),
    "left and right exchanged, with a run": (("model-left-right",), "instance", sides),
    "subject moved by 2 to 3 diagonals, with a run": (("model-misses",), "instance", added),
    "subject not labelled, with a run": (("model-finds-more",), "image", unlabelled),
}


def contradicting(labels: Labels, kind: str, share: float, rng: np.random.Generator) -> tuple[Labels, set[int]]:
    """Labels with a fault, and the places of the faults."""
    _, unit, change = MODEL[kind]
    out, p = copied(labels), labels.poses
    usable = np.flatnonzero(~p.ignore & (p.labelled.sum(1) >= 4))
    rows = rng.choice(usable, max(1, round(share * len(usable))), replace=False)
    places = {int(i) for i in rows if change(out, int(i), rng)}
    if unit == "image":
        places = {int(labels.image_of()[i]) for i in places}
    return out, places
