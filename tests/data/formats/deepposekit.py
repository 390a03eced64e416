"""Example of a DeepPoseKit annotation set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tests.data.formats._spots import ALONE, PET, image

from kplab.data.formats import deepposekit
from kplab.structures.labels import Labels


def make(folder: Path) -> dict[str, Any]:
    """Write the example, and return the arguments that read it."""
    pixels = np.stack([image(subject)[..., :1] for (subject,) in ALONE])
    order = (2, 0, 1)
    points = [[s[k] or (np.nan, np.nan) for k in order] for (s,) in ALONE]
    with h5py.File(folder / "set.h5", "w") as file:
        file["images"], file["annotations"] = pixels, np.array(points, dtype=np.float64)
        file["annotated"] = np.isfinite(np.array(points, dtype=np.float64)).all(-1)
        file["skeleton"] = np.array([[1, 2], [-1, -1], [1, 0]], dtype=np.int32)
    (folder / "skeleton.csv").write_text("name,parent,swap\nright_ear,nose,left_ear\nnose,,\nleft_ear,nose,right_ear\n")
    return {"file": folder / "set.h5", "skeleton": PET, "frames_to": folder / "frames"}


def rewrite(labels: Labels, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write labels that were read with ``arguments``, and return the arguments that read what was written."""
    file, _ = deepposekit.write(labels, folder / "again.h5")
    return {**arguments, "file": file, "frames_to": folder / "frames"}
