"""Parts of an HDF5 file that lie in the file itself; links to other files and external storage are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np


def group(parent: h5py.Group, name: str) -> h5py.Group:
    """A group.

    Raises:
        KeyError: there is none of this name.
        ValueError: it is a link, or no group.
    """
    found = member(parent, name)
    if not isinstance(found, h5py.Group):
        raise ValueError(f"'{name}' is no group")
    return found


def array(parent: h5py.Group, name: str) -> np.ndarray:
    """All values of a dataset.

    Raises:
        KeyError: there is none of this name.
        ValueError: it is a link, no dataset, has no values, or its values lie in another file.
    """
    found = member(parent, name)
    if not isinstance(found, h5py.Dataset) or not found.shape:
        raise ValueError(f"'{name}' is no array")
    if found.is_virtual or found.external:
        raise ValueError(f"the values of '{name}' lie in another file")
    return np.asarray(found[()])


def member(parent: h5py.Group, name: str) -> Any:
    """A group or dataset that is no soft or external link."""
    link = parent.get(name, getlink=True)
    if link is None:
        raise KeyError(f"it has no '{name}'")
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"'{name}' is a link to another place")
    return parent[name]


def top_names(path: Path) -> dict[str, np.ndarray]:
    """Names at the top of a file, as ``data.apart`` reads them."""
    with h5py.File(path, "r") as file:
        return {"names": np.array([str(name) for name in list(file)[:1000]] or [""], dtype=str)}


def deepposekit(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an annotation set of DeepPoseKit, as ``data.apart`` reads them.

    Raises:
        ValueError: one is missing, or of another kind.
    """
    kinds = {"images": "u", "annotations": "f", "annotated": "b", "skeleton": "iu"}
    with h5py.File(path, "r") as file:
        found = {name: array(file, name) for name in kinds}
    for name, kind in kinds.items():
        if found[name].dtype.kind not in kind or (name == "images" and found[name].dtype != np.uint8):
            raise ValueError(f"'{name}' is of type {found[name].dtype}")
    return {**found, "annotations": found["annotations"].astype(np.float64)}
