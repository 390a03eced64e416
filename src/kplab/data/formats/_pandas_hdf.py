"""Tables that pandas wrote to HDF5, read without pandas and PyTables, which run code that a file's attributes contain.

pandas has two layouts. "fixed" keeps the labels of rows and columns in arrays, a MultiIndex as levels and codes. "table"
keeps the rows in a compound array and the labels of the columns in an attribute, as a pickle of lists, tuples and text.
``literal`` reads such a pickle by itself and knows no classes and no calls.

Source: pandas 0.15 to 2, ``pandas/io/pytables.py``; Python, ``pickletools``.
"""

from __future__ import annotations

import json
import pickletools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from kplab.data.formats._hdf5 import array, group

#: Opcodes of a pickle that push a value of their own.
VALUES = (
    "INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "FLOAT", "BINFLOAT", "STRING", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE",
)  # fmt: skip
EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LAYOUTS = {"frame": "fixed", "frame_table": "table"}


def table(path: Path, key: str = "df_with_missing") -> dict[str, np.ndarray]:
    """A table as ``data.apart`` reads it: ``values``, and the labels of ``rows`` and ``columns`` and ``names`` of levels as JSON."""
    with h5py.File(path, "r") as file:
        frame = read_frame(file, key)
    labels = {"rows": frame.index, "columns": frame.columns}
    listed = {k: [list(row) if isinstance(row, tuple) else [row] for row in axis] for k, axis in labels.items()}
    names = {"names": list(frame.columns.names)}
    values = frame.to_numpy(np.float64)
    return {"values": values, **{k: np.array(json.dumps(v)) for k, v in {**listed, **names}.items()}}


def read_frame(file: h5py.File, key: str) -> pd.DataFrame:
    """A table of numbers with text as labels of rows and columns.

    Args:
        file: open for reading.
        key: name of the table's group.

    Raises:
        KeyError: a part is missing.
        ValueError: a part is not as pandas writes it, or is no number or text.
    """
    node = group(file, key)
    kind = text(node.attrs.get("pandas_type", b"none"))
    if kind not in LAYOUTS:
        raise ValueError(f"'{key}' is no table of pandas, but '{kind}'")
    rows, columns, values = _fixed(node) if LAYOUTS[kind] == "fixed" else _table(node)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"'{key}' has {len(rows)} rows and {len(columns)} columns, but values {values.shape}")
    return pd.DataFrame(values, index=rows, columns=columns)


def _fixed(node: h5py.Group) -> tuple[pd.Index, pd.Index, np.ndarray]:
    columns, rows = unique(_index(node, "axis0")), _index(node, "axis1")
    values = np.full((len(rows), len(columns)), np.nan)
    filled = np.zeros(len(columns), dtype=bool)
    for number in range(whole(node.attrs["nblocks"])):
        places = columns.get_indexer(_index(node, f"block{number}_items"))
        block = numbers(array(node, f"block{number}_values"), f"block{number}_values")
        if (places < 0).any() or block.shape != (len(rows), len(places)):
            raise ValueError(f"block {number} does not fit rows and columns")
        values[:, places] = block
        filled[places] = True
    if not filled.all():
        raise ValueError("columns have no values")
    return rows, columns, values


def _index(node: h5py.Group, name: str) -> pd.Index:
    """Labels of an axis."""
    variety = text(node.attrs[f"{name}_variety"])
    if variety == "regular":
        return pd.Index(texts(array(node, name)), name=_name(node[name]))
    if variety != "multi":
        raise ValueError(f"'{name}' is an axis of kind '{variety}'")
    count = whole(node.attrs[f"{name}_nlevels"])
    if not 0 < count < 10:
        raise ValueError(f"'{name}' has {count} levels")
    levels = [texts(array(node, f"{name}_level{i}")) for i in range(count)]
    codes = [array(node, f"{name}_label{i}") for i in range(count)]
    for level, code in zip(levels, codes, strict=True):
        if code.dtype.kind not in "iu" or code.ndim != 1 or ((code < 0) | (code >= len(level))).any():
            raise ValueError(f"'{name}' has codes of labels that do not exist")
    columns = [[level[c] for c in code.tolist()] for level, code in zip(levels, codes, strict=True)]
    return pd.MultiIndex.from_arrays(columns, names=[_name(node[f"{name}_level{i}"]) for i in range(count)])


def _name(dataset: h5py.Dataset) -> str | None:
    """Name of an axis or level; a missing one is stored as the pickle of None."""
    name = text(dataset.attrs.get("name", b"N."))
    return None if name == "N." else name


def _table(node: h5py.Group) -> tuple[pd.Index, pd.Index, np.ndarray]:
    ((axis, listed),) = literal(node.attrs["non_index_axes"])
    names = literal(node.attrs["info"])[axis]["names"]
    if any(len(labels) != len(names) for labels in listed):
        raise ValueError("a column has another number of labels than there are levels")
    labelled = [tuple(map(plain, labels)) for labels in listed]
    columns = unique(pd.MultiIndex.from_tuples(labelled, names=list(map(plain, names))))
    stored = array(node, "table")
    fields = list(stored.dtype.names or ())
    values = np.full((len(stored), len(columns)), np.nan)
    filled = np.zeros(len(columns), dtype=bool)
    meta = node["table"].attrs
    for field in literal(node.attrs["values_cols"]):
        block = numbers(stored[plain(field)], field).reshape(len(stored), -1)
        items = pd.MultiIndex.from_tuples([tuple(map(plain, labels)) for labels in literal(meta[f"{field}_kind"])])
        places = columns.get_indexer(items)
        if (places < 0).any() or block.shape[1] != len(places):
            raise ValueError(f"'{field}' does not fit the columns")
        values[:, places] = block
        filled[places] = True
    if not filled.all() or "index" not in fields:
        raise ValueError("rows have no names, or columns have no values")
    return pd.Index(texts(stored["index"])), columns, values


def unique(columns: pd.Index) -> pd.Index:
    """Columns without two of the same labels."""
    if not columns.is_unique:
        raise ValueError(f"a column occurs twice: {columns[columns.duplicated()][0]}")
    return columns


def numbers(values: np.ndarray, where: str) -> np.ndarray:
    """Numbers as float64."""
    if values.dtype.kind not in "iuf":
        raise ValueError(f"'{where}' holds no numbers but {values.dtype}")
    return values.astype(np.float64)


def texts(values: np.ndarray) -> list[str]:
    """A list of text from an array of fixed-length bytes, as pandas writes labels."""
    if values.dtype.kind != "S" or values.ndim != 1:
        raise ValueError(f"labels are {values.dtype}, not text of a fixed length")
    return [value.decode() for value in values.tolist()]


def text(value: Any) -> str:
    """Text of an attribute."""
    if isinstance(value, bytes):
        return value.decode()
    return str(plain(value))


def plain(value: Any) -> str:
    """Text, and no other value."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return str(value)


def whole(value: Any) -> int:
    """A whole number of an attribute."""
    if not isinstance(value, int | np.integer):
        raise ValueError(f"{value!r} is no whole number")
    return int(value)


def literal(attribute: Any) -> Any:
    r"""The lists, tuples, dicts, text and numbers of a pickle, without unpickling.

    >>> literal(b"(lp0\n(I1\nVx\np1\ntp2\na.")
    [(1, 'x')]

    Raises:
        ValueError: it is no pickle, or contains anything else, such as a class or a call.
    """
    if not isinstance(attribute, bytes):
        raise ValueError(f"an attribute is {type(attribute).__name__}, not the text that pandas writes")
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(attribute):
            name = opcode.name
            if name in VALUES:
                stack.append(argument)
            elif name in CONSTANTS:
                stack.append(CONSTANTS[name])
            elif name in EMPTY:
                stack.append(EMPTY[name]())
            elif name == "MARK":
                marks.append(len(stack))
            elif name in ("LIST", "TUPLE", "DICT"):
                items = _since(stack, marks)
                stack.append(items if name == "LIST" else tuple(items) if name == "TUPLE" else _pairs(items))
            elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
                count = int(name[-1])
                items = [stack.pop() for _ in range(count)][::-1]
                stack.append(tuple(items))
            elif name in ("APPEND", "APPENDS"):
                items = [stack.pop()] if name == "APPEND" else _since(stack, marks)
                stack[-1].extend(items)
            elif name in ("SETITEM", "SETITEMS"):
                items = [stack.pop(), stack.pop()][::-1] if name == "SETITEM" else _since(stack, marks)
                stack[-1].update(_pairs(items))
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name not in ("PROTO", "FRAME", "STOP"):
                raise ValueError(f"it contains more than lists, text and numbers ({name})")
        (value,) = stack
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"an attribute is not what pandas writes: {error}") from None
    return value


def _since(stack: list[Any], marks: list[int]) -> list[Any]:
    """Take what lies above the last mark from the stack."""
    mark = marks.pop()
    items = stack[mark:]
    del stack[mark:]
    return items


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """Keys and values that alternate, as a dict."""
    return dict(zip(items[::2], items[1::2], strict=True))
