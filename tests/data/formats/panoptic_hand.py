"""Example of CMU Panoptic HandDB."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
from tests.data.formats._spots import image, joints

from kplab.data.formats.panoptic_hand import POINTS
from kplab.structures.skeleton import Skeleton

HAND = Skeleton("hand", POINTS, (), tuple(range(21)), (0.05,) * 21, "made up")


def make(folder: Path) -> dict[str, Any]:
    """Write the example, and return the arguments that read it."""
    for number, points in enumerate(joints(POINTS)):
        cv2.imwrite(str(folder / f"{number}_l.png"), image(points[1:]))
        content = {"hand_pts": [[0.0, 0.0, 0.0], *([float(x), float(y), 1.0] for x, y in points[1:])], "is_left": 1.0}
        (folder / f"{number}_l.json").write_text(json.dumps(content))
    return {"folder": folder, "skeleton": HAND}
