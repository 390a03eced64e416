"""Example of Leeds Sports Pose Extended: one person in each image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.io
from tests.data.formats._spots import SIZE, image

from kplab.data.formats import lsp
from kplab.data.formats.lsp import JOINTS
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

FLIP = tuple(
    JOINTS.index(n.replace("left", "?").replace("right", "left").replace("?", "right")) if "_" in n and n != "head_top" else i
    for i, n in enumerate(JOINTS)
)  # fmt: skip
LSP = Skeleton("lsp", JOINTS, (), FLIP, (0.05,) * len(JOINTS), "made up")


def make(folder: Path) -> dict[str, Any]:
    """Write the example, and return the arguments that read it."""
    (folder / "images").mkdir(parents=True)
    joints = np.zeros((len(JOINTS), 3, 3))
    for number in range(3):
        points = [((3 * k + number) % SIZE[0], (5 * k + 2 * number) % SIZE[1]) for k in range(len(JOINTS))]
        cv2.imwrite(str(folder / "images" / f"im{number + 1:05d}.png"), image(points[1:]))
        joints[1:, :2, number] = np.array(points[1:]) + 1  # MATLAB counts from 1
        joints[1:, 2, number] = 1
    scipy.io.savemat(folder / "joints.mat", {"joints": joints})
    return {"folder": folder, "skeleton": LSP}


def rewrite(labels: Labels, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write labels that were read with ``arguments``, and return the arguments that read what was written."""
    lsp.write(labels, folder, copy=True)
    return {"folder": folder, "skeleton": arguments["skeleton"]}
