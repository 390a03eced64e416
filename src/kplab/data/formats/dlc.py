"""DeepLabCut projects: ``CollectedData_<scorer>.csv`` and ``.h5``, single and multi-animal.

DeepLabCut stores pixel indices from 0. It stores no visibility (a labelled point is visible), no boxes and no areas: boxes
come from the keypoints, and areas are ``0.53 * w * h`` of the boxes. Individuals are not tracks: the same name may be given
to another animal in the next image. A table has three header rows (scorer, bodyparts, coords), or four with the individuals;
its rows are named by one path or by three columns (labeled-data, video, image). A ``.h5`` is read without PyTables, which
would run code that its attributes contain.

Source: DeepLabCut 2 and 3, ``docs/standardDeepLabCut_UserGuide``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
import pandas as pd

from kplab.data.formats._dlc_table import KEY, MULTI_LEVELS, SINGLE_LEVELS, check_table, read_csv, read_h5
from kplab.data.formats._files import copy_images, first_rows, image_sizes
from kplab.data.holds import Holds
from kplab.data.naming import Names
from kplab.data.reading import OUTSIDE_TOLERANCE, check_copies, labels_from, match_keypoints, some
from kplab.data.sources.files import FileSource
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.labels import Extras, Labels
from kplab.structures.skeleton import Skeleton

FORMAT = "dlc"
HOLDS = Holds(precision=1e-9)
#: ``write`` changes only what differs from the file that was read.
UPDATES = True
UNIQUE = "single"
"""The individual that DeepLabCut gives bodyparts which occur once in an image, such as the corners of an arena."""


@dataclass
class Head:
    """What ``Extras.head`` holds; ``Extras.instance`` holds each instance's individual.

    Args:
        columns: folder of each table, relative to the project, to the table's columns.
        three: whether rows were named by three columns.
        rename: as it was read with.
    """

    columns: dict[str, pd.MultiIndex] = field(default_factory=dict)
    three: bool = False
    rename: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Row:
    """What ``Extras.image`` holds of each image: the folder of its table, its name there, and the numbers of its row."""

    folder: str
    name: str
    values: np.ndarray


def recognise(path: Path) -> bool:
    """Whether a folder is a project with labelled tables."""
    if not path.is_dir():
        first, second = first_rows(path, 2)
        individuals = second[:1] == ["individuals"]
        return first[:1] == ["scorer"] and (individuals or path.parent.parent.name == "labeled-data")
    found = [*path.glob("labeled-data/*/CollectedData*.csv"), *path.glob("CollectedData*.csv")]
    return any(first_rows(file)[0][:1] == ["scorer"] for file in found)


def names(path: Path, labels: str = "csv", scorer: str | None = None) -> Names:
    """Bodyparts of the first table."""
    table, _ = (read_csv if labels == "csv" else read_h5)(_tables(path, labels, scorer)[0])
    return Names(tuple(dict.fromkeys(table.columns.get_level_values("bodyparts"))))


def read(
    project: str | Path,
    skeleton: Skeleton,
    labels: str = "csv",
    scorer: str | None = None,
    box_margin: float = 1.2,
    rename: Mapping[str, str] | None = None,
    allow_outside: bool = False,
) -> Labels:
    """Read every labelled folder of a DeepLabCut project; an image's group is its folder, one for each video.

    Args:
        project: one table, or the folder that holds ``labeled-data``; tables are ``labeled-data/<video>/CollectedData*``, or, where there
            are none, ``CollectedData*`` in the project itself (Lightning Pose).
        skeleton: its names must be the bodyparts of the tables, in any order.
        labels: csv or h5.
        scorer: whose labels to read, where a folder has tables of several labellers.
        box_margin: factor on the extent of the keypoints that makes a box.
        rename: bodypart to keypoint of the skeleton, where they differ.
        allow_outside: allow rows that name images outside the project.

    Raises:
        DataError: tables or images are missing, or a table contradicts itself or the skeleton.
    """
    root = _root(Path(project))
    head = Head(rename=rename)
    rows: list[Row] = []
    found: list[tuple[int, str, np.ndarray]] = []
    notes: list[str] = []
    tables = _tables(Path(project), labels, scorer)
    for path in tables:
        table, three = read_csv(path) if labels == "csv" else read_h5(path)
        check_table(table, path)
        head.three |= three
        folder = path.parent.relative_to(root).as_posix()
        head.columns[folder] = table.columns
        layout, left_out = _layout(table.columns, path, skeleton, rename)
        notes += left_out
        for individual, places in layout.items():
            points = np.where((places >= 0)[:, None], _points(table.to_numpy(np.float64))[:, places], np.nan)
            for row in np.flatnonzero(np.isfinite(points).any((1, 2))):
                found.append((len(rows) + int(row), individual, points[row]))
        values = zip(table.index, table.to_numpy(np.float64), strict=True)
        rows += [Row(folder, str(name), numbers) for name, numbers in values]
    names = [row.name for row in rows]
    doubled = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    if doubled:
        raise DataError(
            f"{root}: images are in several rows or tables: {some(doubled)} (read from {some(head.columns)}). Keep one row "
            "for each image."
        )
    found.sort(key=lambda instance: instance[0])
    image_id, instance_id = np.arange(1, len(rows) + 1), np.arange(1, len(found) + 1)
    individuals = {i + 1: individual for i, (_, individual, _) in enumerate(found)}
    placed = np.array([points for _, _, points in found]).reshape(-1, len(skeleton), 2)
    image_of = np.array([image for image, _, _ in found], dtype=np.int64)
    known = np.isfinite(placed).all(-1)
    notes += check_copies(str(root), instance_id, image_of, np.nan_to_num(placed), known, known.any(1))
    return labels_from(
        skeleton,
        FileSource(root, names, allow_outside),
        image_id,
        image_sizes(root, names),
        [PurePosixPath(name).parent.as_posix() for name in names],
        affine.from_pixel_index(placed),
        None,
        image_of,
        instance_id,
        box_margin=box_margin,
        notes=list(dict.fromkeys(notes)),
        extras=Extras(FORMAT, head, dict(zip(image_id.tolist(), rows, strict=True)), individuals),
        files=tables,
    )


def _root(path: Path) -> Path:
    """The folder of a project, of which one table may be given."""
    if not path.is_file():
        return path
    return path.parents[2] if path.parent.parent.name == "labeled-data" else path.parent


def _tables(root: Path, kind: str, scorer: str | None) -> list[Path]:
    if kind not in ("csv", "h5"):
        raise DataError(f"{root}: labels='{kind}' is unknown. Use labels=csv or labels=h5.")
    if root.is_file():
        return [root]
    pattern = f"CollectedData_{scorer}.{kind}" if scorer else f"CollectedData*.{kind}"
    found = sorted(root.glob(f"labeled-data/*/{pattern}")) or sorted(root.glob(pattern))
    if not found:
        raise DataError(
            f"{root}: no {pattern} in labeled-data/*/ nor in the folder itself. Give the DeepLabCut project folder "
            f"(the one with config.yaml), or labels={'h5' if kind == 'csv' else 'csv'}."
        )
    folders = [p.parent for p in found]
    doubled = [p.name for p in found if folders.count(p.parent) > 1]
    if doubled:
        raise DataError(f"{root}: folders hold several tables: {some(doubled)}. Choose one with scorer=.")
    return found


def _layout(
    columns: pd.MultiIndex, path: Path, skeleton: Skeleton, rename: Mapping[str, str] | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Columns of each individual's points: (K,) index of a pair of columns, -1 where it has no such bodypart.

    Unique bodyparts that the skeleton does not name are left out, with a note.
    """
    pairs = columns[::2]
    bodyparts = list(pairs.get_level_values("bodyparts"))
    individuals = (
        list(pairs.get_level_values("individuals")) if "individuals" in columns.names else [""] * len(bodyparts)
    )
    known = [(rename or {}).get(name, name) for name in bodyparts]
    out = sorted({n for n, i in zip(known, individuals, strict=True) if i == UNIQUE and n not in skeleton.keypoints})
    if len(set(zip(individuals, known, strict=True))) < len(known):
        raise DataError(f"{path}: an individual has a bodypart twice. Give each bodypart a column pair of its own.")
    match_keypoints([n for n in dict.fromkeys(known) if n not in out], skeleton, str(path))
    place = {pair: i for i, pair in enumerate(zip(individuals, known, strict=True))}
    layout = {i: np.array([place.get((i, n), -1) for n in skeleton.keypoints]) for i in dict.fromkeys(individuals)}
    notes = [f"unique bodyparts that skeleton '{skeleton.name}' lacks are left out: {', '.join(out)}"] if out else []
    return {i: places for i, places in layout.items() if (places >= 0).any()}, notes


def _points(values: np.ndarray) -> np.ndarray:
    """(rows, pairs of columns, 2) pixel indices of (rows, columns) numbers; NaN where unlabelled."""
    return values.reshape(len(values), values.shape[1] // 2, 2)


def write(
    labels: Labels,
    folder: str | Path,
    scorer: str = "kplab",
    kinds: Sequence[str] = ("csv", "h5"),
    columns: bool = True,
    copy: bool = False,
) -> list[Path]:
    """Write the tables of a DeepLabCut project.

    Labels that were read from DeepLabCut, and parts of them, keep scorer, individuals, unique bodyparts and row names of
    their source. Others get one row an image, named ``labeled-data/<its folder>/<its name>``, and individuals where an
    image has several instances. The format cannot hold visibility, boxes, areas and tracks.

    Args:
        labels: what to write.
        folder: the project folder.
        scorer: name of the labeller for new tables.
        kinds: "csv", "h5" or both; DeepLabCut expects both.
        columns: name rows by three columns, as newer DeepLabCut does, rather than by one path; for new tables.
        copy: copy the images to where the tables name them.

    Returns:
        The files written.

    Raises:
        DataError: an image has more instances than its table has individuals.
    """
    extras = labels.extras
    if extras is None or extras.format != FORMAT:
        extras = Extras(FORMAT, Head(three=columns))
    head: Head = extras.head
    known: list[Row | None] = [extras.image.get(int(i)) for i in labels.image_id]
    names = [_row_name(labels, i) if row is None else row.name for i, row in enumerate(known)]
    folders = [_table_folder(n) if row is None else row.folder for n, row in zip(names, known, strict=True)]
    header = next(iter(head.columns.values()), None)
    fresh = _header(labels, scorer) if header is None else header
    written = []
    for where in dict.fromkeys(folders):
        images = [i for i, f in enumerate(folders) if f == where]
        target = Path(folder) / where
        header = head.columns.get(where, fresh)
        before = [np.full(len(header), np.nan) if row is None else row.values for row in (known[i] for i in images)]
        values = _filled(labels, images, names, np.array(before), header, extras, target)
        index = [names[i] for i in images]
        table = pd.DataFrame(values, index=index, columns=header)
        if head.three:
            table.index = pd.MultiIndex.from_tuples([tuple(n.split("/", 2)) for n in index])
        target.mkdir(parents=True, exist_ok=True)
        for kind in kinds:
            path = target / f"CollectedData_{header[0][0]}.{kind}"
            table.to_csv(path) if kind == "csv" else table.to_hdf(path, key=KEY, mode="w")
            written.append(path)
    if copy:
        copy_images(labels, Path(folder), names)
    return written


def _row_name(labels: Labels, i: int) -> str:
    """A path as DeepLabCut names images; images of other formats come below the name of their own folder."""
    path = PurePosixPath(labels.names[i])
    if path.parts[0] == "labeled-data":
        return path.as_posix()
    parent = "_".join(path.parent.parts) or PurePath(str(labels.source)).name or "images"
    return f"labeled-data/{parent}/{path.name}"


def _table_folder(row: str) -> str:
    parent = PurePosixPath(row).parent
    return parent.as_posix() if len(parent.parts) > 1 else "."


def _header(labels: Labels, scorer: str) -> pd.MultiIndex:
    most = int(np.diff(labels.start).max(initial=1))
    individuals = [f"individual{i + 1}" for i in range(most)]
    if most == 1:
        return pd.MultiIndex.from_product([[scorer], labels.skeleton.keypoints, ["x", "y"]], names=SINGLE_LEVELS)
    return pd.MultiIndex.from_product(
        [[scorer], individuals, labels.skeleton.keypoints, ["x", "y"]], names=MULTI_LEVELS
    )


def _filled(
    labels: Labels,
    images: list[int],
    names: list[str],
    values: np.ndarray,
    columns: pd.MultiIndex,
    extras: Extras,
    where: Path,
) -> np.ndarray:
    """Numbers of one table: the source's where nothing changed, the labels' everywhere else.

    Args:
        images: index of the image of each row.
        names: row name of every image of ``labels``.
        values: (rows, columns) the source's numbers.
        where: the table's folder, for messages.
    """
    layout, _ = _layout(columns, where, labels.skeleton, extras.head.rename)
    before = _points(values)
    after = before.copy()
    for places in layout.values():
        after[:, places[places >= 0]] = np.nan
    for row, image in enumerate(images):
        free = list(layout)
        for i in range(int(labels.start[image]), int(labels.start[image + 1])):
            name = extras.instance.get(int(labels.instance_id[i]), free[0] if free else "")
            if name not in free:
                raise DataError(
                    f"{where}: image {names[image]} has more instances than its table has individuals "
                    f"({some(layout)}). Set labels.extras to None to write a new table."
                )
            free.remove(name)
            places = layout[name]
            after[row, places[places >= 0]] = affine.to_pixel_index(labels.poses.xy[i, places >= 0])
    # half a pixel added and taken away again costs a last digit; and what was unlabelled as outside was not removed
    size, there = labels.size[images][:, None], affine.from_pixel_index(before)
    outside = ((there < -OUTSIDE_TOLERANCE) | (there > size + OUTSIDE_TOLERANCE)).any(-1, keepdims=True)
    same = (np.abs(after - before) < 1e-9) | (np.isnan(after) & outside)
    return np.where(same, before, after).reshape(values.shape)
