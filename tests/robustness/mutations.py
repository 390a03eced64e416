"""Mutations of files: of their bytes, and of the content of each kind of file. Each depends on its generator alone."""

from __future__ import annotations

import copy
import csv
import io
import json
import random
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import scipy.io
import yaml

#: values that readers of numbers, text and nested data have failed on
HARD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 3, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0, 1e9, 1e308, -1e308),
    *(float("nan"), float("inf"), "", "x", "1", "nan", "1e999", "../../secret", "/etc", "\x00", "\ud800", "é" * 300),
    *([], [[]], [None], [1, 2], {}, {"id": 1}, [{}], {"a": {"b": []}}),
)


NESTED = "__nested__"
"""Stands for a list nested 100,000 deep, deeper than a parser's stack."""

Mutation = Callable[[random.Random, bytes], bytes]


def flip_bytes(rng: random.Random, data: bytes) -> bytes:
    """Up to 16 bytes changed."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if out:
            out[rng.randrange(len(out))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(out)


def flip_bit(rng: random.Random, data: bytes) -> bytes:
    """One bit changed."""
    out = bytearray(data)
    if out:
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def write_integer(rng: random.Random, data: bytes) -> bytes:
    """An extreme integer over 4 or 8 bytes."""
    width = rng.choice((2, 4, 8))
    at = rng.randrange(max(1, len(data) - width))
    value = rng.choice((0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1))
    return data[:at] + value.to_bytes(width, rng.choice(("little", "big"))) + data[at + width :]


def truncate(rng: random.Random, data: bytes) -> bytes:
    """The end is missing."""
    return data[: rng.randrange(len(data) + 1)]


def splice(rng: random.Random, data: bytes) -> bytes:
    """A part is removed, repeated, moved or overwritten by another."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    part, at = data[a : min(b, a + 4096)], rng.randrange(len(data) + 1)
    return rng.choice((data[:a] + data[b:], data[:at] + part + data[at:], data[:at] + part + data[at + len(part) :]))


BINARY: tuple[Mutation, ...] = (flip_bytes, flip_bit, write_integer, truncate, splice)


def change_node(rng: random.Random, node: Any) -> Any:
    """A document with one node replaced, removed, repeated or exchanged with another."""
    places: list[tuple[Any, Any]] = []

    def collect(parent: Any) -> None:
        for key in parent if isinstance(parent, dict) else range(len(parent)) if isinstance(parent, list) else ():
            places.append((parent, key))
            collect(parent[key])

    box = [node]
    collect(box)
    parent, key = rng.choice(places)
    action = rng.randrange(8)
    if action < 4:
        parent[key] = NESTED if rng.random() < 0.02 else copy.deepcopy(rng.choice(HARD))
    elif action == 4:
        del parent[key]
    elif action == 5 and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), parent[key])
    elif action == 6:
        other, place = rng.choice(places)
        if place in other if isinstance(other, dict) else place < len(other):
            parent[key] = json.loads(json.dumps(other[place]))
    elif isinstance(parent, dict):
        parent[rng.choice(("id", "x", "", str(key).upper()))] = parent.pop(key)
    return box[0] if box else None


def dump_json(document: Any) -> bytes:
    """JSON of a mutated document, whose lone surrogates and NaN are written too."""
    return json.dumps(document).replace(f'"{NESTED}"', "[" * 100_000 + "]" * 100_000).encode("utf-8", "surrogatepass")


def mutate_json(rng: random.Random, data: bytes) -> bytes:
    """One to three nodes of a JSON document changed."""
    document = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        document = change_node(rng, document)
    return dump_json(document)


def mutate_yaml(rng: random.Random, data: bytes) -> bytes:
    """A node of a YAML document changed."""
    return yaml.safe_dump(change_node(rng, yaml.safe_load(data))).encode("utf-8", "surrogatepass")


def mutate_csv(rng: random.Random, data: bytes) -> bytes:
    """Cells, rows or columns of a CSV table changed."""
    rows = list(csv.reader(io.StringIO(data.decode())))
    for _ in range(rng.choice((1, 1, 2, 5))):
        if not rows:
            break
        r = rng.randrange(len(rows))
        action = rng.randrange(8)
        if action < 4 and rows[r]:
            value = rng.choice(HARD)
            cell = value if isinstance(value, str) else json.dumps(value)
            rows[r][rng.randrange(len(rows[r]))] = rng.choice((cell, '"', ",", "\n", "0x10", "1_0", "-", "٣", "1e400"))
        elif action == 4:
            rows.insert(rng.randrange(len(rows) + 1), list(rows[r]))
        elif action == 5:
            del rows[r]
        elif action == 6 and rows[r]:
            del rows[r][rng.randrange(len(rows[r]))]
        else:
            c = rng.randrange(max(map(len, rows)) + 1)
            for row in rows:
                row[c : c + 1] = rng.choice(([], row[c : c + 1] * 2))
    out = io.StringIO()
    csv.writer(out, lineterminator=rng.choice(("\n", "\n", "\r\n", "\r"))).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def mutate_h5(rng: random.Random, data: bytes) -> bytes:
    """A value, an attribute, a type or a shape of an HDF5 file changed, by the library itself."""
    file = io.BytesIO(data)
    with h5py.File(file, "r+") as h5:
        names: list[str] = []
        h5.visit(names.append)
        name = rng.choice(names)
        node = h5[name]
        if node.attrs and rng.random() < 0.7:
            key = rng.choice(list(node.attrs))
            value = node.attrs[key]
            text = value.decode() if isinstance(value, bytes) else value
            if isinstance(text, str) and text[:1] in "{[" and rng.random() < 0.9:
                node.attrs[key] = np.bytes_(mutate_json(rng, text.encode())[:60_000])
            else:
                change = rng.choice((b"", b"x", 2**63 - 1, -1.5, float("nan"), np.zeros(3), h5py.Empty("f")))
                node.attrs[key] = change
        elif isinstance(node, h5py.Dataset) and rng.random() < 0.75 and node.size:
            _change_values(rng, node)
        elif rng.random() < 0.5:
            del h5[name]
        else:
            del h5[name]
            h5[name] = rng.choice((np.zeros(0), np.zeros((2, 2)), np.array(5), np.array([b"x"]), h5py.Empty("f")))
    return file.getvalue()


def _change_values(rng: random.Random, node: h5py.Dataset) -> None:
    values = node[()]
    if values.dtype.names:
        for _ in range(rng.choice((1, 1, 3))):
            row, column = rng.randrange(len(values)), rng.choice(values.dtype.names)
            values[column][row] = _extreme(rng, values.dtype[column])
    elif values.dtype.kind in "iuf":
        values.reshape(-1)[rng.randrange(values.size)] = _extreme(rng, values.dtype)
    elif values.dtype.kind in "SO":
        flat = values.reshape(-1)
        at = rng.randrange(len(flat))
        try:
            flat[at] = mutate_json(rng, bytes(flat[at]))[:60_000]
        except ValueError:
            flat[at] = b"x"
    node[...] = values


def _extreme(rng: random.Random, dtype: np.dtype) -> Any:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return rng.choice((limits.min, limits.max, 0, 1, min(limits.max, 1000)))
    if dtype.kind == "f":
        return rng.choice((np.nan, np.inf, -np.inf, 1e30, -1e30, -3.0, 1e9))
    return rng.choice((0, 1))


def mutate_mat(rng: random.Random, data: bytes) -> bytes:
    """Numbers of a MATLAB file changed, or an array replaced by another kind."""
    content = {k: v for k, v in scipy.io.loadmat(io.BytesIO(data)).items() if not k.startswith("__")}
    arrays = [array for value in content.values() for array in _numeric(value)]
    for _ in range(rng.choice((1, 1, 3))):
        array = rng.choice(arrays)
        value = rng.choice((np.nan, np.inf, -1, 1e9, 1e30, 2, 0.5, 0, -1e30))
        with np.errstate(all="ignore"):
            array[tuple(rng.randrange(n) for n in array.shape)] = np.array(value).astype(array.dtype)
    name = rng.choice(list(content))
    if rng.randrange(6) == 0:
        first = arrays[0]
        strange = (first[:, :2], first.astype(complex), np.array([["x"]]), first.astype(np.uint8), np.zeros((14, 3, 0)))
        content[name] = rng.choice(strange)
    if rng.randrange(10) == 0:
        content["x"] = content.pop(name)
    out = io.BytesIO()
    scipy.io.savemat(out, content, do_compression=rng.random() < 0.5)
    return out.getvalue()


def _numeric(value: np.ndarray) -> list[np.ndarray]:
    """The arrays of numbers in an array of MATLAB: itself, or those of its cells and fields."""
    if value.dtype.names:
        return [array for name in value.dtype.names for array in _numeric(value[name])]
    if value.dtype == object:
        return [array for cell in value.ravel() if isinstance(cell, np.ndarray) for array in _numeric(cell)]
    return [value] if value.size and value.dtype.kind in "iuf" else []


BY_SUFFIX: dict[str, tuple[Mutation, ...]] = {
    ".json": (mutate_json,),
    ".csv": (mutate_csv,),
    ".slp": (mutate_h5,),
    ".h5": (mutate_h5,),
    ".mat": (mutate_mat,),
    ".yaml": (mutate_yaml,),
}
