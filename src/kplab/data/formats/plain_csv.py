"""A plain CSV table: one row for each subject, with columns ``image``, ``NAME_x`` and ``NAME_y`` of every keypoint.

Optional columns are ``NAME_v`` (0 unlabelled, 1 hidden, 2 visible), ``x0 y0 x1 y1`` (the box, continuous pixels), ``area``,
``track``, ``crowd`` (0 or 1), ``group``, ``width`` and ``height`` (of the image). The image is the first column, whatever
its name. Empty cells are unlabelled or unknown; a row without any number is an image without a subject. A table whose other
columns are numbers (0, 1, 2, …) has x and y of its keypoints in turn, in the skeleton's order.

Coordinates are pixel indices from 0 unless ``pixels`` states another convention.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kplab.data.formats._builder import Builder
from kplab.data.formats._files import clean, copy_images, first_rows, number, posix, read_table
from kplab.data.holds import Holds, instances_of
from kplab.data.images import read_header
from kplab.data.naming import Names, numbered
from kplab.data.reading import match_keypoints, some
from kplab.data.sources.files import FileSource
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

HOLDS = Holds(visibility=True, boxes=True, areas=True, crowds=True, bare=True, tracks=True, groups=True, precision=1e-8)
PIXELS = ("index", "index from 1", "continuous", "fraction")
BOX = ("x0", "y0", "x1", "y1")
OTHERS = (*BOX, "area", "track", "crowd", "group", "width", "height")


def recognise(path: Path) -> bool:
    """Whether a CSV file has columns NAME_x and NAME_y, or numbered columns."""
    return bool(_columns(first_rows(path)[0]))


def _columns(header: list[str]) -> dict[str, tuple[int, int]]:
    """Columns of x and y of each keypoint; empty where the header is of another kind."""
    place = {name: i for i, name in enumerate(header)}
    found = {
        name[:-2]: (i, place[name[:-2] + "_y"])
        for name, i in place.items()
        if name.endswith("_x") and name[:-2] + "_y" in place
    }
    rest = header[1:]
    if not found and rest == [str(i) for i in range(len(rest))] and rest and len(rest) % 2 == 0:
        return {n: (1 + 2 * i, 2 + 2 * i) for i, n in enumerate(numbered(len(rest) // 2).keypoints)}
    return found


def names(path: Path) -> Names:
    """Names of the columns."""
    found = _columns(read_table(path, "CSV table")[0])
    if not found:
        raise DataError(f"{path}: no columns NAME_x and NAME_y, nor 0, 1, 2, …. Name the columns.")
    return Names(tuple(found))


def read(
    table: str | Path,
    images: str | Path,
    skeleton: Skeleton,
    pixels: str = "index",
    skip_missing: bool = False,
    rename: Mapping[str, str] | None = None,
    box_margin: float = 1.2,
    allow_outside: bool = False,
) -> Labels:
    """Read a table; rows of one image may lie anywhere in it.

    Args:
        table: the CSV file.
        images: folder that the image paths in the table are relative to.
        skeleton: its names must be those of the columns; of numbered columns its order is theirs.
        pixels: convention of the keypoints: ``index`` (the first pixel's centre is 0), ``index from 1`` (MATLAB),
            ``continuous`` (the image's corner is 0), or ``fraction`` of the image's width and height.
        skip_missing: leave out rows whose image is not in the folder; their number is noted.
        rename: name in the columns to keypoint of the skeleton, where they differ.
        box_margin: factor on the extent of the keypoints that makes a missing box.
        allow_outside: allow file names that lead out of the image folder.

    Raises:
        DataError: the table or an image is missing, or the table contradicts itself or the skeleton.
    """
    path, home = Path(table), Path(images)
    if pixels not in PIXELS:
        raise DataError(f"{path}: pixels='{pixels}' is unknown. Use one of: {', '.join(PIXELS)}.")
    rows = read_table(path, "CSV table")
    header, columns = rows[0], _columns(rows[0])
    if not columns:
        raise DataError(f"{path}: no columns NAME_x and NAME_y, nor 0, 1, 2, …: {some(header)}. Name the columns.")
    found = list(columns)
    if "0" in header:
        found = [*skeleton.keypoints, *found[len(skeleton) :]] if len(found) >= len(skeleton) else found
        columns = dict(zip(found, columns.values(), strict=True))
    order = [found[i] for i in match_keypoints(found, skeleton, str(path), rename)]
    place = {name: i for i, name in enumerate(header) if i}
    known = {*(f"{n}_{c}" for n in found for c in "xyv"), *OTHERS}
    unknown = [name for name in place if name not in known and "0" not in header]
    builder, seen, missing = Builder(skeleton, path), {}, set()
    for line, row in enumerate(rows[1:], 2):
        where = f"{path}, row {line}"

        def value(name: str, row: list[str] = row, where: str = where) -> float:
            return number(row[place[name]], f"{where}, {name}") if name in place else float("nan")

        name = posix(row[0])
        if skip_missing and not (home / name).is_file():
            missing.add(name)
            continue
        if name not in seen:
            FileSource(home, [name], allow_outside)  # refuses names outside before any file is opened
            sides = (value("width"), value("height"))
            size = (int(sides[0]), int(sides[1])) if np.isfinite(sides).all() else read_header(home / name)[0]
            group = row[place["group"]] if "group" in place else ""
            seen[name] = (builder.image(name, size, group or None), np.array(size, dtype=np.float64))
        image, size_of = seen[name]
        xy = np.array([[number(row[i], f"{where}, {header[i]}") for i in columns[n]] for n in order])
        visible = np.array([value(f"{n}_v") for n in order])
        visible = np.where(np.isnan(visible), np.where(np.isfinite(xy[:, 0]), 2, 0), visible)
        if not np.isin(visible, (0, 1, 2)).all() or (np.isnan(xy[:, 0]) & (visible > 0)).any():
            raise DataError(f"{where}: a visibility is not 0, 1 or 2, or is of a keypoint without x. Correct it.")
        xy[visible == 0] = np.nan
        box = np.array([value(side) for side in BOX])
        if not np.isfinite(box).any() and not np.isfinite(xy).any():
            continue
        builder.instance(
            image,
            _continuous(xy, pixels, size_of, where),
            visible.astype(np.int64),
            box if np.isfinite(box).all() else None,
            value("area"),
            -1 if np.isnan(value("track")) else int(value("track")),
            value("crowd") == 1,
        )
    notes = [f"columns that kplab does not use are left out: {some(unknown)}"] if unknown else []
    if missing:
        notes.append(f"{len(missing)} images of the table are not in {home}: left out")
    return builder.labels(home, [path], box_margin=box_margin, allow_outside=allow_outside, notes=notes)


def _continuous(xy: np.ndarray, pixels: str, size: np.ndarray, where: str) -> np.ndarray:
    if pixels == "fraction":
        if np.nanmax(xy, initial=0) > 2:
            raise DataError(f"{where}: a coordinate is {np.nanmax(xy):g}, which is no fraction. Use pixels=index.")
        return xy * size
    return xy if pixels == "continuous" else affine.from_pixel_index(xy, first=int(pixels == "index from 1"))


def write(labels: Labels, path: str | Path, copy: bool = False) -> Path:
    """Write a table with all columns; coordinates are pixel indices from 0.

    Args:
        labels: what to write.
        path: the CSV file; images are named relative to its folder.
        copy: copy the images there as well.
    """
    path, keypoints, p = Path(path), labels.skeleton.keypoints, labels.poses
    taken = [name for name in keypoints if name[-2:] in ("_x", "_y", "_v")]
    if taken or set(OTHERS) & {f"{n}_{c}" for n in keypoints for c in "xyv"}:
        raise DataError(f"{path}: keypoints that end in _x, _y or _v can't be columns: {some(taken)}. Rename them.")

    def cell(value: float) -> str:
        return str(clean(value)) if np.isfinite(value) else ""

    rows = [
        [
            "image",
            "width",
            "height",
            "group",
            *BOX,
            "area",
            "track",
            "crowd",
            *(f"{n}_{c}" for n in keypoints for c in "xyv"),
        ]
    ]
    for i, name in enumerate(labels.names):
        group = "" if labels.group[i] == name else str(labels.group[i])
        head = [str(name), *(str(int(v)) for v in labels.size[i]), group]
        for row in instances_of(labels, i):
            track = str(int(p.track[row])) if p.track[row] >= 0 else ""
            cells = [*map(cell, p.box[row]), cell(p.area[row]), track, str(int(labels.crowd[row]))]
            for (x, y), visible in zip(affine.to_pixel_index(p.xy[row]), p.visible[row], strict=True):
                cells += [cell(x), cell(y), str(int(visible))]
            rows.append(head + cells)
        if not instances_of(labels, i):
            rows.append(head + [""] * (len(rows[0]) - len(head)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)
    if copy:
        copy_images(labels, path.parent, labels.names)
    return path
