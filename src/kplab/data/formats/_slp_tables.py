"""The tables and JSON texts of a ``.slp`` file, as ``data.apart`` reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kplab.data.formats._hdf5 import array, group

COLUMNS = {
    "frames": ("video", "frame_idx", "instance_id_start", "instance_id_end"),
    "instances": ("instance_type", "skeleton", "track", "from_predicted", "score", "point_id_start", "point_id_end"),
    "points": ("x", "y", "visible"),
    "pred_points": ("x", "y", "visible"),
}


def tables(path: Path) -> dict[str, np.ndarray]:
    """The tables of ``COLUMNS``; ``json``, ``videos_json`` and ``tracks_json`` as JSON text; and ``format_id``.

    Raises:
        ValueError: a table is of another kind, or lies in another file.
    """
    with h5py.File(path, "r") as h5:
        meta = group(h5, "metadata").attrs
        found = {"json": np.array(_text(meta["json"])), "format_id": np.array(float(meta.get("format_id", 0)))}
        for key in ("videos_json", "tracks_json"):
            if key in h5:
                found[key] = np.array(json.dumps([_text(item) for item in array(h5, key)]))
        for name in COLUMNS:
            found[name] = array(h5, name)
    for name, columns in COLUMNS.items():
        dtype = found[name].dtype
        lacking = [c for c in columns if c not in (dtype.names or ())]
        if lacking:
            raise ValueError(f"table '{name}' lacks columns {', '.join(lacking)}")
        if found[name].ndim != 1 or any(dtype[c].kind not in "iufb" for c in columns):
            raise ValueError(f"table '{name}' is not one of numbers")
        # h5py gives booleans as an enumeration; only the columns that are read
        kinds = {"visible": bool, "x": float, "y": float, "score": float}
        fresh = np.empty(len(found[name]), [(c, kinds.get(c, dtype[c])) for c in columns])
        for c in columns:
            fresh[c] = found[name][c]
        found[name] = fresh
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else bytes(value).decode()
