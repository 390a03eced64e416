"""Example of a SLEAP file with its video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
from tests.data.formats._spots import PET, SIZE, SUBJECTS, image
from tests.data.test_sleap import NAN, slp, user

from kplab.data.formats import sleap
from kplab.structures.labels import Labels


def make(folder: Path) -> dict[str, Any]:
    """Write the example, and return the arguments that read it."""
    # FFV1 keeps every pixel
    film = cv2.VideoWriter(str(folder / "film.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 10, SIZE)
    frames = []
    for number, subjects in enumerate(SUBJECTS):
        film.write(image([p for subject in subjects for p in subject]))
        instances = [
            user(*((NAN, NAN) if p is None else p for p in (s[2], s[0], s[1])), track=i) for i, s in enumerate(subjects)
        ]
        frames.append((0, number, instances))
    film.release()
    path = slp(folder / "labels.slp", frames, nodes=("right_ear", "nose", "left_ear"))
    return {"labels": path, "skeleton": PET, "frames_to": folder / "frames"}


def rewrite(labels: Labels, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write labels that were read with ``arguments``, and return the arguments that read what was written."""
    return {
        "labels": sleap.write(labels, folder / "again.slp", copy=True),
        "skeleton": arguments["skeleton"],
        "frames_to": folder,
    }
