"""DeepLabCut projects: ``CollectedData_<scorer>.csv`` and ``.h5``, single and multi-animal, read and written.

DeepLabCut counts pixel centres from 0, so 0.5 is added. It stores no visibility (a labelled point is visible), no
boxes and no areas: boxes come from the keypoints, areas are ``0.53 * w * h`` of the boxes, and ``Labels`` says so. A
table has three header rows (scorer, bodyparts, coords), or four with the individuals; its rows are named by one path or
by three columns (labeled-data, video, image).

Source: DeepLabCut 2 and 3, ``docs/standardDeepLabCut_UserGuide``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from kplab.data.formats import (
    BOX_AREA_SHARE,
    OUTSIDE_TOLERANCE,
    boxes_around,
    drop_outside,
    match_keypoints,
    share_of_box,
    some,
)
from kplab.data.images import read_header
from kplab.errors import DataError
from kplab.structures.labels import Labels, make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

KEY = "df_with_missing"
SINGLE_LEVELS = ("scorer", "bodyparts", "coords")
MULTI_LEVELS = ("scorer", "individuals", "bodyparts", "coords")
UNIQUE = "single"
"""The individual that DeepLabCut gives bodyparts which occur once in a picture, such as the corners of an arena."""


@dataclass
class Source:
    """What ``Labels.extras`` holds for lossless writing.

    Args:
        tables: table's folder, relative to the project, to its content; rows are image paths.
        individual: instance id to the individual's name.
        columns: whether rows were named by three columns.
        rename: as it was read with.
    """

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    individual: dict[int, str] = field(default_factory=dict)
    columns: bool = False
    rename: Mapping[str, str] | None = None


def read(
    project: str | Path,
    skeleton: Skeleton,
    labels: str = "csv",
    scorer: str | None = None,
    box_margin: float = 1.2,
    rename: Mapping[str, str] | None = None,
) -> Labels:
    """Read every labelled folder of a DeepLabCut project; an image's group is its folder, that is its video.

    Args:
        project: folder that holds ``labeled-data``; tables are ``labeled-data/<video>/CollectedData*``, or, where there
            are none, ``CollectedData*`` in the project itself (Lightning Pose).
        skeleton: its names must be the bodyparts of the tables, in any order.
        labels: "csv" or "h5".
        scorer: whose labels to read, where a folder has tables of several.
        box_margin: factor on the extent of the keypoints that makes a box.
        rename: bodypart to keypoint of the skeleton, where they differ.

    Raises:
        DataError: tables or images are missing, or a table contradicts itself or the skeleton.
    """
    root = Path(project)
    source = Source(rename=rename)
    files: list[str] = []
    found: list[tuple[int, str, np.ndarray]] = []
    notes: list[str] = []
    for path in _tables(root, labels, scorer):
        table, columns = _read_csv(path) if labels == "csv" else _read_h5(path)
        _check(table, path)
        source.columns |= columns
        source.tables[path.parent.relative_to(root).as_posix()] = table
        layout, left_out = _layout(table.columns, path, skeleton, rename)
        notes += left_out
        for name, places in layout.items():
            points = np.where((places >= 0)[:, None], _points(table)[:, places], np.nan)
            for row in np.flatnonzero(np.isfinite(points).any((1, 2))):
                found.append((len(files) + int(row), name, points[row]))
        files += [str(f) for f in table.index]
    doubled = sorted({f for f in files if files.count(f) > 1}) if len(set(files)) < len(files) else []
    if doubled:
        raise DataError(f"{root}: images are in several rows or tables: {some(doubled)}. Keep one row for each image.")
    size = _sizes(root, files)
    found.sort(key=lambda instance: instance[0])
    image_of = np.array([image for image, _, _ in found], dtype=np.int64)
    source.individual = {i + 1: name for i, (_, name, _) in enumerate(found)}
    poses = Poses.make(np.array([points for _, _, points in found]).reshape(-1, len(skeleton), 2) + 0.5)
    visible, said = drop_outside(poses.xy, poses.visible, size[image_of])
    poses = Poses.make(poses.xy, visible, ignore=(visible == 0).all(1))
    poses.box, box_source = boxes_around(poses, box_margin)
    poses.area = share_of_box(poses.box)
    return make_labels(
        skeleton,
        root,
        files,
        np.arange(1, len(files) + 1),
        size,
        [PurePosixPath(f).parent.as_posix() for f in files],
        poses,
        image_of,
        np.arange(1, len(poses) + 1),
        box_source=box_source,
        area_source=f"{BOX_AREA_SHARE} x box ({box_source})",
        notes=[*dict.fromkeys(notes), *said],
        extras=source,
    )


def _tables(root: Path, kind: str, scorer: str | None) -> list[Path]:
    if kind not in ("csv", "h5"):
        raise DataError(f"{root}: labels='{kind}' is unknown. Use labels=csv or labels=h5.")
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


def _read_csv(path: Path) -> tuple[pd.DataFrame, bool]:
    """The table with image paths as rows, and whether three columns named them."""
    try:
        text = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a whole DeepLabCut table: {error}. Export it again from DeepLabCut.") from error
    cells = text.to_numpy(object)
    depth = len(MULTI_LEVELS) if len(cells) > 1 and cells[1, 0] == "individuals" else len(SINGLE_LEVELS)
    levels = MULTI_LEVELS if depth == len(MULTI_LEVELS) else SINGLE_LEVELS
    if tuple(cells[:depth, 0]) != levels:
        raise DataError(
            f"{path}: the header rows are {some(cells[:depth, 0])}, wanted {', '.join(levels)}. "
            "Export the table again from DeepLabCut."
        )
    columns = cells.shape[1] > 2 and cells[depth - 1, 1] == ""
    first = 3 if columns else 1
    rows = ["/".join(r) for r in cells[depth:, :first]]
    try:
        values = np.where(cells[depth:, first:] == "", "nan", cells[depth:, first:]).astype(np.float64)
    except ValueError as error:
        raise DataError(f"{path}: a cell is not a number: {error}. Correct it, or leave it empty.") from error
    header = pd.MultiIndex.from_arrays([list(r) for r in cells[:depth, first:]], names=list(levels))
    return pd.DataFrame(values, index=_posix(rows), columns=header), columns


def _read_h5(path: Path) -> tuple[pd.DataFrame, bool]:
    try:
        table = pd.read_hdf(path, key=KEY)
    except (KeyError, OSError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(
            f"{path}: no DeepLabCut table '{KEY}' can be read ({reason}). Use labels=csv, or convert the project with "
            "deeplabcut.convertcsv2h5."
        ) from error
    if not isinstance(table, pd.DataFrame) or tuple(table.columns.names) not in (SINGLE_LEVELS, MULTI_LEVELS):
        raise DataError(
            f"{path}: the columns are not {', '.join(SINGLE_LEVELS)} (and individuals). Use labels=csv, or export the "
            "table again from DeepLabCut."
        )
    columns = table.index.nlevels > 1
    rows = ["/".join(map(str, r)) for r in table.index] if columns else [str(r) for r in table.index]
    return pd.DataFrame(table.to_numpy(np.float64), index=_posix(rows), columns=table.columns), columns


def _posix(rows: list[str]) -> list[str]:
    return [r.replace("\\", "/") for r in rows]


def _check(table: pd.DataFrame, path: Path) -> None:
    coords = table.columns.get_level_values("coords")
    if list(coords) != ["x", "y"] * (len(coords) // 2):
        raise DataError(f"{path}: 'coords' is not x, y for each bodypart. Give labels, not predictions or 3-D data.")
    if np.isinf(table.to_numpy()).any():
        raise DataError(f"{path}: a coordinate is infinite. Leave the cell of an unlabelled point empty.")
    half = np.isnan(table.to_numpy()[:, 0::2]) != np.isnan(table.to_numpy()[:, 1::2])
    if half.any():
        rows = some(table.index[half.any(1)])
        raise DataError(f"{path}: points have x without y or y without x: {rows}. Complete or empty them.")


def _layout(
    columns: pd.MultiIndex, path: Path, skeleton: Skeleton, rename: Mapping[str, str] | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Where the points of each individual stand: (K,) index of a pair of columns, -1 where it has no such bodypart.

    Unique bodyparts that the skeleton does not name are left out, which the notes say.
    """
    pairs = columns[::2]
    what = list(pairs.get_level_values("bodyparts"))
    who = list(pairs.get_level_values("individuals")) if "individuals" in columns.names else [""] * len(what)
    known = [(rename or {}).get(name, name) for name in what]
    out = sorted({n for n, w in zip(known, who, strict=True) if w == UNIQUE and n not in skeleton.keypoints})
    if len(set(zip(who, known, strict=True))) < len(known):
        raise DataError(f"{path}: an individual has a bodypart twice. Give each bodypart a column pair of its own.")
    match_keypoints([n for n in dict.fromkeys(known) if n not in out], skeleton, str(path))
    place = {pair: i for i, pair in enumerate(zip(who, known, strict=True))}
    layout = {w: np.array([place.get((w, n), -1) for n in skeleton.keypoints]) for w in dict.fromkeys(who)}
    notes = [f"unique bodyparts that skeleton '{skeleton.name}' lacks are left out: {', '.join(out)}"] if out else []
    return {w: places for w, places in layout.items() if (places >= 0).any()}, notes


def _points(table: pd.DataFrame) -> np.ndarray:
    """(rows, pairs of columns, 2) pixel indices; NaN where unlabelled."""
    return table.to_numpy(np.float64).reshape(len(table), -1, 2)


def _sizes(root: Path, files: list[str]) -> np.ndarray:
    sizes, faults = [], []
    for name in files:
        try:
            sizes.append(read_header(root / name)[0])
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError(f"{root}: {len(faults)} of {len(files)} labelled images cannot be read:\n  " + some(faults, 5))
    return np.array(sizes, dtype=np.int64).reshape(-1, 2)


def write(
    labels: Labels,
    folder: str | Path,
    scorer: str = "kplab",
    kinds: Sequence[str] = ("csv", "h5"),
    columns: bool = True,
) -> list[Path]:
    """Write the tables of a DeepLabCut project; pictures are not copied.

    Labels that were read from DeepLabCut keep scorer, individuals, unique bodyparts, order and row names of their
    source. Others get one row an image, named ``labeled-data/<its folder>/<its name>``, and individuals where an image
    has several instances. Visibility, boxes and areas have no place in this format.

    Args:
        labels: what to write.
        folder: the project folder.
        scorer: name of the labeller for fresh tables.
        kinds: "csv", "h5" or both, which is what DeepLabCut expects.
        columns: name rows by three columns, as newer DeepLabCut does, rather than by one path; for fresh tables.

    Returns:
        The files written.

    Raises:
        DataError: an image has more instances than its table has individuals.
    """
    source = labels.extras if isinstance(labels.extras, Source) else Source(columns=columns)
    names = [_row_name(labels, i) for i in range(len(labels))]
    home = {str(row): where for where, table in source.tables.items() for row in table.index}
    folders = [home.get(n, _table_folder(n)) for n in names]
    header = next((t.columns for t in source.tables.values()), None)
    fresh = _header(labels, scorer) if header is None else header
    written = []
    for where in dict.fromkeys(folders):
        images = [i for i, f in enumerate(folders) if f == where]
        old = source.tables.get(where, pd.DataFrame(columns=fresh))
        table = _filled(labels, images, [names[i] for i in images], old, source, Path(folder) / where)
        if source.columns:
            table.index = pd.MultiIndex.from_tuples([tuple(n.split("/", 2)) for n in table.index])
        target = Path(folder) / where
        target.mkdir(parents=True, exist_ok=True)
        for kind in kinds:
            path = target / f"CollectedData_{table.columns[0][0]}.{kind}"
            table.to_csv(path) if kind == "csv" else table.to_hdf(path, key=KEY, mode="w")
            written.append(path)
    return written


def _row_name(labels: Labels, i: int) -> str:
    """A path as DeepLabCut names images; those of other formats are filed under the folder that they lie in."""
    path = PurePosixPath(str(labels.files[i]))
    if path.parts[0] == "labeled-data":
        return path.as_posix()
    parent = "_".join(path.parent.parts) or labels.root.name or "images"
    return f"labeled-data/{parent}/{path.name}"


def _table_folder(row: str) -> str:
    parent = PurePosixPath(row).parent
    return parent.as_posix() if len(parent.parts) > 1 else "."


def _header(labels: Labels, scorer: str) -> pd.MultiIndex:
    most = int(np.diff(labels.start).max(initial=1))
    who = [f"individual{i + 1}" for i in range(most)]
    if most == 1:
        return pd.MultiIndex.from_product([[scorer], labels.skeleton.keypoints, ["x", "y"]], names=SINGLE_LEVELS)
    return pd.MultiIndex.from_product([[scorer], who, labels.skeleton.keypoints, ["x", "y"]], names=MULTI_LEVELS)


def _filled(
    labels: Labels, images: list[int], rows: list[str], old: pd.DataFrame, source: Source, where: Path
) -> pd.DataFrame:
    """One table: the source's numbers where nothing changed, the labels' everywhere else."""
    layout, _ = _layout(old.columns, where, labels.skeleton, source.rename)
    table = old.reindex(rows).astype(np.float64)
    before = _points(table)
    after = before.copy()
    for places in layout.values():
        after[:, places[places >= 0]] = np.nan
    for row, image in enumerate(images):
        free = list(layout)
        for i in range(int(labels.start[image]), int(labels.start[image + 1])):
            name = source.individual.get(int(labels.instance_id[i]), free[0] if free else "")
            if name not in free:
                raise DataError(
                    f"{where}: image {rows[row]} has more instances than its table has individuals ({some(layout)}). "
                    "Set labels.extras to None to write a fresh table."
                )
            free.remove(name)
            places = layout[name]
            after[row, places[places >= 0]] = labels.poses.xy[i, places >= 0] - 0.5
    # half a pixel added and taken away again costs a last digit; and what was unlabelled as outside was not removed
    size = labels.size[images][:, None]
    outside = ((before + 0.5 < -OUTSIDE_TOLERANCE) | (before + 0.5 > size + OUTSIDE_TOLERANCE)).any(-1, keepdims=True)
    same = (np.abs(after - before) < 1e-9) | (np.isnan(after) & outside)
    values = np.where(same, before, after).reshape(len(rows), -1)
    return pd.DataFrame(values, index=rows, columns=old.columns)
