"""Tables of DeepLabCut and Lightning Pose: header rows of scorer, (individuals,) bodyparts and coords, and a row an image."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd

from kplab.data.apart import read_apart
from kplab.data.reading import some
from kplab.errors import DataError

KEY = "df_with_missing"
SINGLE_LEVELS = ("scorer", "bodyparts", "coords")
MULTI_LEVELS = ("scorer", "individuals", "bodyparts", "coords")


def read_csv(path: Path) -> tuple[pd.DataFrame, bool]:
    """The table with image paths as rows, and whether three columns named them."""
    try:
        cells = _cells(path.read_text(encoding="utf-8-sig"))
    except (csv.Error, ValueError) as error:
        raise DataError(f"{path}: not a whole DeepLabCut table: {error}. Export it again from DeepLabCut.") from error
    depth = len(MULTI_LEVELS) if len(cells) > 1 and cells[1, 0] == "individuals" else len(SINGLE_LEVELS)
    levels = MULTI_LEVELS if depth == len(MULTI_LEVELS) else SINGLE_LEVELS
    if tuple(cells[:depth, 0]) != levels:
        raise DataError(
            f"{path}: the header rows are {some(cells[:depth, 0])}, expected {', '.join(levels)}. "
            "Export the table again from DeepLabCut."
        )
    three = cells.shape[1] > 2 and cells[depth - 1, 1] == ""
    first = 3 if three else 1
    rows = ["/".join(r) for r in cells[depth:, :first]]
    try:
        values = np.where(cells[depth:, first:] == "", "nan", cells[depth:, first:]).astype(np.float64)
    except ValueError as error:
        raise DataError(f"{path}: a cell is not a number: {error}. Correct it, or leave it empty.") from error
    header = pd.MultiIndex.from_arrays([list(r) for r in cells[:depth, first:]], names=list(levels))
    return pd.DataFrame(values, index=posix_rows(rows), columns=header), three


def _cells(text: str) -> np.ndarray:
    """(rows, columns) text of a CSV file; a row without any number may be shorter than the header, as spreadsheets save it.

    Raises:
        ValueError: the table is empty, truncated, or a row has another number of cells than the header.
    """
    lines = [line for line in csv.reader(text.splitlines(), skipinitialspace=True) if line]
    if not lines:
        raise ValueError("it is empty")
    width = len(lines[0])
    first = 3 if lines[0][1:3] == ["", ""] else 1
    for number, line in enumerate(lines, 1):
        last = number == len(lines) and not text.endswith(("\n", "\r"))
        if len(line) > width or (len(line) < width and (last or any(line[first:]))):
            raise ValueError(f"row {number} has {len(line)} cells, the header has {width}")
    return np.array([line + [""] * (width - len(line)) for line in lines], dtype=object)


def read_h5(path: Path) -> tuple[pd.DataFrame, bool]:
    try:
        found = read_apart("kplab.data.formats._pandas_hdf:table", path)
    except DataError as error:
        raise DataError(
            f"{str(error).removesuffix('.')}: no DeepLabCut table '{KEY}' can be read. Use labels=csv, or convert the project with "
            "deeplabcut.convertcsv2h5."
        ) from error
    rows, columns, names = (json.loads(str(found[key])) for key in ("rows", "columns", "names"))
    if tuple(names) not in (SINGLE_LEVELS, MULTI_LEVELS):
        raise DataError(
            f"{path}: the columns are not {', '.join(SINGLE_LEVELS)} (and individuals). Use labels=csv, or export the "
            "table again from DeepLabCut."
        )
    three = any(len(row) > 1 for row in rows)
    header = pd.MultiIndex.from_tuples([tuple(column) for column in columns], names=names)
    index = posix_rows(["/".join(map(str, row)) for row in rows])
    return pd.DataFrame(found["values"], index=index, columns=header), three


def posix_rows(rows: list[str]) -> list[str]:
    return [r.replace("\\", "/") for r in rows]


def check_table(table: pd.DataFrame, path: Path) -> None:
    coords = table.columns.get_level_values("coords")
    if list(coords) != ["x", "y"] * (len(coords) // 2):
        raise DataError(f"{path}: 'coords' is not x, y for each bodypart. Give labels, not predictions or 3-D data.")
    if np.isinf(table.to_numpy()).any():
        raise DataError(f"{path}: a coordinate is infinite. Leave the cell of an unlabelled point empty.")
    half = np.isnan(table.to_numpy()[:, 0::2]) != np.isnan(table.to_numpy()[:, 1::2])
    if half.any():
        rows = some(table.index[half.any(1)])
        raise DataError(f"{path}: points have x without y or y without x: {rows}. Complete or empty them.")
