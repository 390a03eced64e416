"""Text tables: numbers aligned right, words left, a dash for a missing value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from rich.cells import cell_len


def cell(value: Any) -> str:
    """Format a value: four significant digits; a dash for None and NaN.

    >>> [cell(v) for v in (0.71834, 12345.6, 2.0, 3, None, float("nan"), True, "top-down", 1e-5)]
    ['0.7183', '12346', '2', '3', '–', '–', 'yes', 'top-down', '1e-05']
    """
    if value is None:
        return "–"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, Real) and not isinstance(value, Integral):
        number = float(value)
        if np.isnan(number):
            return "–"
        return f"{number:.0f}" if 1e4 <= abs(number) < 1e15 else f"{number:.4g}"
    return str(value)


def text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Format rows as aligned text with a rule under the heading.

    Args:
        rows: column name to value; a missing value is a dash.
        columns: names in order; None takes those of all rows, in order of first occurrence.

    >>> print(text([{"run": "heatmap", "AP": 0.712}, {"run": "simcc", "AP": None}]))
    run         AP
    -------  -----
    heatmap  0.712
    simcc        –
    """
    columns = _columns(rows) if columns is None else columns
    grid = [list(columns), *([cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(cell_len(line[i]) for line in grid) for i in range(len(columns))]
    right = [_numeric(rows, column) for column in columns]
    grid.insert(1, ["-" * width for width in widths])

    def padded(word: str, width: int, align_right: bool) -> str:
        space = " " * (width - cell_len(word))
        return space + word if align_right else word + space

    return "\n".join(
        "  ".join(padded(*entry) for entry in zip(line, widths, right, strict=True)).rstrip() for line in grid
    )


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row))


def _numeric(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Whether all present values of a column are numbers."""
    values = [row[column] for row in rows if row.get(column) is not None]
    return bool(values) and all(isinstance(v, Real) and not isinstance(v, bool) for v in values)
