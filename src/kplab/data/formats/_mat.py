"""The array ``joints`` of a MATLAB file, as ``data.apart`` reads it."""

from __future__ import annotations

from pathlib import Path

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
