"""Example of HRNet's JSON of MPII; what is written is MPII's own .mat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
from tests.data.formats._spots import image, joints

from kplab.data.formats import mpii
from kplab.data.formats.mpii import JOINTS
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

FLIP = (5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10)
MPII = Skeleton("mpii", JOINTS, (), FLIP, (0.05,) * len(JOINTS), "made up")


def make(folder: Path) -> dict[str, Any]:
    """Write the example, and return the arguments that read it."""
    people = joints(JOINTS)
    (folder / "images").mkdir(parents=True)
    entries = []
    for number, points in enumerate(people):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), image(points[1:]))
        place = [[-1, -1], *([x + 1, y + 1] for x, y in points[1:])]  # MATLAB counts from 1
        entries.append({"image": f"{number}.png", "joints": place, "joints_vis": [0] + [1] * 15, "scale": 1.5})
    (folder / "labels.json").write_text(json.dumps(entries))
    return {"annotations": folder / "labels.json", "images": folder / "images", "skeleton": MPII}


def rewrite(labels: Labels, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write labels that were read with ``arguments``, and return the arguments that read what was written."""
    return {**arguments, "annotations": mpii.write(labels, folder / "again.mat")}
