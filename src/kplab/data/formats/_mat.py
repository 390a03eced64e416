"""Arrays and structures of MATLAB files, as ``data.apart`` reads them, and their writers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.io


def joints(path: Path) -> dict[str, np.ndarray]:
    """The array, as real numbers.

    Raises:
        ValueError: it is missing, or not an array of real numbers.
    """
    content = scipy.io.loadmat(path, variable_names=["joints"])
    if "joints" not in content:
        raise ValueError("it has no array 'joints'")
    array = np.asarray(content["joints"])
    if array.dtype.kind not in "iufb":
        raise ValueError(f"'joints' is of type {array.dtype}, not of real numbers")
    return {"joints": array.astype(np.float64)}


def variables(path: Path) -> dict[str, np.ndarray]:
    """Names of the variables in a file."""
    return {"names": np.array([name for name, _, _ in scipy.io.whosmat(path)] or [""], dtype=str)}


def mpii(path: Path) -> dict[str, np.ndarray]:
    """People of MPII's structure RELEASE.

    Returns:
        ``images`` (I,) names; ``image_of`` (N,) index of the image of each person; ``joints`` (N, 16, 3) x, y, visibility.

    Raises:
        ValueError: the structure is another one.
    """
    content = scipy.io.loadmat(path, variable_names=["RELEASE"], struct_as_record=False, squeeze_me=True)
    if "RELEASE" not in content:
        raise ValueError("it has no structure 'RELEASE'")
    images, image_of, joints = [], [], []
    for entry in np.atleast_1d(content["RELEASE"].annolist):
        name = entry.image.name
        if not isinstance(name, str):
            raise ValueError("an image has no name")
        images.append(name)
        for person in np.atleast_1d(entry.annorect):
            one = _joints_of(person)
            if one is not None:
                image_of.append(len(images) - 1)
                joints.append(one)
    return {
        "images": np.array(images, dtype=str),
        "image_of": np.array(image_of, dtype=np.int64),
        "joints": np.array(joints, dtype=np.float64).reshape(-1, 16, 3),
    }


def _joints_of(person: Any) -> np.ndarray | None:
    """(16, 3) x, y, visibility of a person; None where it has no joints, as in the test set."""
    points = getattr(getattr(person, "annopoints", None), "point", None)
    if points is None:
        return None
    out = np.full((16, 3), np.nan)
    out[:, 2] = 0
    for point in np.atleast_1d(points):
        number = int(point.id)
        if not 0 <= number < 16:
            raise ValueError(f"a joint has the id {number}")
        # is_visible is a number, a text, or empty for joints that were labelled in another round
        shown = str(getattr(point, "is_visible", "")).strip("[] ")
        out[number] = float(point.x), float(point.y), 1 if shown and float(shown) == 0 else 2
    return out


def write_mpii(people: list[tuple[str, np.ndarray, np.ndarray]], path: Path) -> None:
    """Write MPII's structure.

    Args:
        people: name of each image, (M, 16, 3) x, y, visibility, and (M, 4) boxes of its people.
        path: the file.
    """

    def records(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> np.ndarray:
        table = np.empty((1, len(rows)), dtype=[(column, object) for column in columns])
        for i, row in enumerate(rows):
            table[0, i] = tuple(row[column] for column in columns)
        return table

    entries = []
    for name, joints, boxes in people:
        rects = []
        for one, (x0, y0, x1, y1) in zip(joints, boxes, strict=True):
            points = [
                {"x": x, "y": y, "id": float(i), "is_visible": float(v == 2)} for i, (x, y, v) in enumerate(one) if v
            ]
            rects.append(
                {
                    "scale": (y1 - y0) / 200,
                    "objpos": {"x": (x0 + x1) / 2, "y": (y0 + y1) / 2},
                    "annopoints": {"point": records(points, ("x", "y", "id", "is_visible"))},
                }
            )
        rectangles: Any = records(rects, ("scale", "objpos", "annopoints")) if rects else np.zeros((0, 0))
        entries.append({"image": {"name": name}, "annorect": rectangles})
    release = {"annolist": records(entries, ("image", "annorect")), "img_train": np.ones((1, len(entries)))}
    scipy.io.savemat(path, {"RELEASE": release}, do_compression=True)


def write_joints(joints: np.ndarray, path: Path) -> None:
    """Write the array ``joints``."""
    scipy.io.savemat(path, {"joints": joints}, do_compression=True)
