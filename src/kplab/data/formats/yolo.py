"""YOLO-pose text labels (Ultralytics): one file for each image, one row for each subject.

A row is ``class cx cy w h x1 y1 v1 x2 y2 v2 …``, as fractions of the image's width and height, continuous from its corner. A
dataset with ``kpt_shape: [K, 2]`` has no visibility, and its unlabelled keypoints are ``0 0``. The names of the keypoints
are in ``kpt_names`` of the dataset's YAML file, where it has them; else their order is the skeleton's.

Source: Ultralytics, "Pose Estimation Datasets Overview".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from kplab.data.formats._builder import Builder
from kplab.data.formats._files import copy_images, image_sizes, read_text
from kplab.data.holds import Holds, instances_of
from kplab.data.images import find_images
from kplab.data.naming import Names, numbered
from kplab.data.reading import match_keypoints, some
from kplab.errors import DataError
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

HOLDS = Holds(visibility=True, boxes=True, bare=True, precision=1e-5)
BEYOND = 1.01
"""Fraction up to which Ultralytics takes a coordinate for one of the image."""


def recognise(path: Path) -> bool:
    """Whether a folder has labels/ with text files and images/, or a YAML file states kpt_shape."""
    if path.is_file():
        return path.suffix in (".yaml", ".yml") and "kpt_shape" in path.read_text(errors="replace")
    return (path / "images").is_dir() and (path / "labels").is_dir() and any((path / "labels").rglob("*.txt"))


def names(path: Path, config: str | Path | None = None) -> Names:
    """Names of the dataset's YAML file, or numbers."""
    folder = _home(path)
    found = _config(folder, config)
    listed, pairs = _listed(found), _pairs(found)
    if listed:
        return Names(tuple(listed), pairs=pairs)
    return Names(numbered(_shape(found, folder)[0]).keypoints, pairs=pairs)


def read(
    folder: str | Path,
    skeleton: Skeleton,
    images: str | Path | None = None,
    config: str | Path | None = None,
    classes: Sequence[int] | None = None,
    rename: Mapping[str, str] | None = None,
    box_margin: float = 1.2,
) -> Labels:
    """Read all images of a dataset; an image without a label file, or with an empty one, has no subject.

    Args:
        folder: folder that holds ``labels`` and ``images``.
        skeleton: its names must be ``kpt_names``; of a dataset without names, its order is that of the rows.
        images: folder of the images, in the same subfolders as the labels; null: ``images`` beside ``labels``.
        config: the dataset's YAML file; null: the only one in the folder, if any.
        classes: numbers of the classes to read; null reads all.
        rename: name in the YAML file to keypoint of the skeleton, where they differ.
        box_margin: factor on the extent of the keypoints that makes a missing box.

    Raises:
        DataError: a row is no pose, is not in fractions, or has another number of keypoints.
    """
    root = _home(Path(folder))
    home = root / "images" if images is None else Path(images)
    stated = _config(root, config)
    listed = _listed(stated)
    order = (
        match_keypoints(listed, skeleton, f"{stated['file']}: kpt_names", rename)
        if listed
        else np.arange(len(skeleton))
    )
    shape = _shape(stated, root)
    if shape[0] != len(skeleton):
        raise DataError(
            f"{root}: its labels have {shape[0]} keypoints, but skeleton '{skeleton.name}' has {len(skeleton)} "
            f"({some(skeleton.keypoints, 3)}). Choose the skeleton of this dataset."
        )
    pictures = [p.relative_to(home).as_posix() for p in find_images(str(home))[0]]
    stems = {PurePosixPath(name).with_suffix("").as_posix(): name for name in pictures}
    files = sorted((root / "labels").rglob("*.txt"))
    alone = [p for p in files if p.relative_to(root / "labels").with_suffix("").as_posix() not in stems]
    if alone or len(stems) < len(pictures):
        raise DataError(f"{root}: label files without an image, or images of one name: {some(alone)}. Use images=.")
    builder, texts = Builder(skeleton, root), {}
    builder.remarks += [] if listed else ["the dataset names no keypoints: their order is taken for the skeleton's"]
    for path in files:
        texts[stems[path.relative_to(root / "labels").with_suffix("").as_posix()]] = path
    sizes = image_sizes(home, pictures)
    for name, size in zip(pictures, sizes.tolist(), strict=True):
        image = builder.image(name, tuple(size))
        for box, xy, visible in _rows(texts.get(name), shape, classes, builder):
            where = np.array(size, dtype=np.float64)
            builder.instance(image, (xy * where)[order], visible[order], box * np.tile(where, 2))
    _note_classes(stated, builder)
    used = [p for p in files if p.stat().st_size] + _config_files(root, config)
    return builder.labels(home, used, box_margin=box_margin)


def _note_classes(config: Mapping[str, Any], builder: Builder) -> None:
    """Note that all rows have class 0 where the YAML file names several classes: X-AnyLabeling has written such files."""
    classes = config.get("names")
    if isinstance(classes, dict | list) and len(classes) > 1 and builder.classes == {0}:
        builder.remarks.append(
            f"all rows have class 0, although the dataset names {len(classes)} classes: the export probably lost them"
        )


def _home(path: Path) -> Path:
    """The folder that holds ``labels``."""
    folder = path if path.is_dir() else path.parent
    if folder.name == "labels" and not (folder / "labels").is_dir():
        folder = folder.parent
    if not (folder / "labels").is_dir():
        raise DataError(f"{path}: there is no folder 'labels'. Give the folder that holds images and labels.")
    return folder


def _config_files(folder: Path, config: str | Path | None) -> list[Path]:
    """The YAML files that describe the labels."""
    if config is not None:
        return [Path(config)]
    listed = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    found = [p for p in listed if b"kpt_shape" in p.read_bytes()]
    if listed and not found:
        raise DataError(
            f"{folder}: no YAML file there states kpt_shape: {some(listed)}. Name the right one with config=."
        )
    return found


def _config(folder: Path, config: str | Path | None) -> dict[str, Any]:
    """The content of the dataset's YAML file; empty where there is none."""
    files = _config_files(folder, config)
    if len(files) > 1:
        raise DataError(f"{folder}: has several YAML files with kpt_shape: {some(files)}. Choose one with config=.")
    if not files:
        return {}
    try:
        content = yaml.safe_load(read_text(files[0], "YAML file of a dataset"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{files[0]}: not YAML: {' '.join(str(error).split())[:200]}. Correct it.") from error
    if not isinstance(content, dict):
        raise DataError(f"{files[0]}: not the YAML file of a dataset. Write kpt_shape, names and kpt_names.")
    return {**content, "file": files[0]}


def _listed(config: Mapping[str, Any]) -> list[str]:
    """Names of the keypoints; those of all classes must be equal."""
    listed = config.get("kpt_names") or []
    per_class = list(listed.values()) if isinstance(listed, dict) else [listed]
    if any(
        not isinstance(one, list) or one != per_class[0] or not all(isinstance(n, str) for n in one)
        for one in per_class
    ):
        raise DataError(f"{config['file']}: kpt_names are not one list of names for all classes. Correct them.")
    return list(per_class[0]) if per_class else []


def _pairs(config: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    flip = config.get("flip_idx")
    if not isinstance(flip, list) or not all(isinstance(i, int) and 0 <= i < len(flip) for i in flip):
        return ()
    if any(flip[flip[i]] != i for i in range(len(flip))):
        return ()
    return tuple((i, j) for i, j in enumerate(flip) if i < j)


def _shape(config: Mapping[str, Any], folder: Path) -> tuple[int, int]:
    """Number of keypoints, and numbers of each: as the YAML file states, or from the first row."""
    shape = config.get("kpt_shape")
    if shape is not None:
        if not (isinstance(shape, list) and len(shape) == 2 and type(shape[0]) is int and 0 < shape[0] < 10_000):
            shape = [0, 0]
        if shape[1] not in (2, 3):
            raise DataError(f"{config['file']}: kpt_shape is {config['kpt_shape']}, expected [K, 2] or [K, 3].")
        return int(shape[0]), int(shape[1])
    for path in sorted((folder / "labels").rglob("*.txt")):
        words = path.read_text(errors="replace").split("\n", 1)[0].split()
        if words:
            _refuse_detections(len(words), path)
            rest = len(words) - 5
            depth = 3 if rest % 3 == 0 and all(_flag(word) for word in words[7::3]) else 2
            return rest // depth, depth
    raise DataError(
        f"{folder / 'labels'}: no label file has a row, and no YAML file states kpt_shape. Check the folder."
    )


def _flag(word: str) -> bool:
    """Whether a number is a visibility."""
    return re.fullmatch(r"[012](\.0*)?", word) is not None


def _refuse_detections(columns: int, path: Path) -> None:
    if columns == 5:
        raise DataError(
            f"{path}: five columns: these are boxes without keypoints (YOLO detection). Export them as YOLO-pose, with "
            "5 + 2K or 5 + 3K columns."
        )


def _rows(
    path: Path | None, shape: tuple[int, int], classes: Sequence[int] | None, builder: Builder
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Box, (K, 2) xy and (K,) visibility of the rows of a file, in fractions."""
    if path is None or path.stat().st_size == 0:
        return []
    count, depth = shape
    found = []
    for line, words in enumerate((row.split() for row in read_text(path, "YOLO label file").splitlines()), 1):
        if not words:
            continue
        _refuse_detections(len(words), path)
        if len(words) != 5 + count * depth:
            raise DataError(
                f"{path}, row {line}: {len(words)} columns, expected {5 + count * depth} (5 + {count} x {depth})."
            )
        try:
            values = np.array([float(word) for word in words])
        except ValueError as error:
            raise DataError(f"{path}, row {line}: {error}. Correct the number.") from error
        if not np.isfinite(values).all() or values[0] % 1 or values[0] < 0:
            raise DataError(f"{path}, row {line}: the class is no whole number, or a number is not finite. Correct it.")
        points = values[5:].reshape(count, depth)
        seen = points[:, 2] if depth == 3 else np.where(points.any(1), 2, 0)
        if not np.isin(seen, (0, 1, 2)).all():
            raise DataError(f"{path}, row {line}: a visibility is not 0, 1 or 2. Correct it, or state kpt_shape.")
        if np.abs(values[1:5]).max() > 2 or np.abs(points[seen > 0, :2]).max(initial=0) > 2:
            raise DataError(
                f"{path}, row {line}: numbers up to {np.abs(values[1:]).max():g} are pixels, in place of fractions 0..1 of "
                "the image. Divide x by the width and y by the height."
            )
        if (points[seen > 0, :2] > BEYOND).any():
            builder.notes["rows have keypoints beyond 1.01 of the image"] += 1
        if classes is not None and int(values[0]) not in classes:
            builder.notes["rows of other classes are left out"] += 1
            continue
        builder.classes.add(int(values[0]))
        cx, cy, w, h = values[1:5]
        box = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
        found.append((box, np.where((seen > 0)[:, None], points[:, :2], np.nan), seen))
    return found


def line_of(box: np.ndarray, xy: np.ndarray, visible: np.ndarray, size: np.ndarray) -> str:
    """The line of an instance: class 0, the box and the keypoints as fractions of the sides of the image.

    Args:
        box: (4,) xyxy, pixels.
        xy: (K, 2) pixels, continuous; NaN where not labelled.
        visible: (K,) as in COCO.
        size: (2,) width and height of the image, pixels.
    """
    corners = box.reshape(2, 2) / size
    numbers = [*corners.mean(0), *(corners[1] - corners[0])]
    words = ["0", *(f"{v:.10g}" for v in numbers)]
    for (x, y), seen in zip(np.nan_to_num(xy / size), visible, strict=True):
        words += [f"{x:.10g}", f"{y:.10g}", str(int(seen))]
    return " ".join(words) + "\n"


def write(labels: Labels, folder: str | Path, copy: bool = False) -> list[Path]:
    """Write ``labels/*.txt`` and ``data.yaml``, with names and pairs of the keypoints.

    Args:
        labels: what to write.
        folder: the dataset's folder.
        copy: copy the images into ``images`` as well, where YOLO looks for them.

    Returns:
        The files written, the YAML file first.
    """
    target, skeleton = Path(folder), labels.skeleton
    stems = [PurePosixPath(str(name)).with_suffix("").as_posix() for name in labels.names]
    if len(set(stems)) < len(stems):
        raise DataError(f"{target}: images of one name in different formats would have one label file. Rename them.")
    content = {
        "path": ".",
        "train": "images",
        "val": "images",
        "names": {0: skeleton.name},
        "flip_idx": list(skeleton.flip),
        "kpt_names": {0: list(skeleton.keypoints)},
        "kpt_shape": [len(skeleton), 3],  # the last line: a truncated file is without it
    }
    written = [target / "data.yaml"]
    target.mkdir(parents=True, exist_ok=True)
    written[0].write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    for i, stem in enumerate(stems):
        size, rows = labels.size[i].astype(np.float64), []
        for row in instances_of(labels, i):
            if not labels.crowd[row] and np.isfinite(labels.poses.box[row]).all():
                rows.append(line_of(labels.poses.box[row], labels.poses.xy[row], labels.poses.visible[row], size))
        path = target / "labels" / f"{stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(rows))
        written.append(path)
    if copy:
        copy_images(labels, target / "images", labels.names)
    return written
