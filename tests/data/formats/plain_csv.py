"""Example of a plain CSV table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.data.formats._spots import PET, SUBJECTS, write_images

from kplab.data.formats import plain_csv
from kplab.structures.labels import Labels


def make(folder: Path) -> dict[str, Any]:
    """Write the example, and return the arguments that read it."""
    names = ("a/0.png", "a/1.png", "2.png")
    write_images(folder / "images", names)
    rows = ["file,right_ear_x,right_ear_y,nose_x,nose_y,left_ear_x,left_ear_y,track,x0,y0,x1,y1,area"]
    for name, subjects in zip(names, SUBJECTS, strict=True):
        for track, s in enumerate(subjects):
            points = [str(v) if p else "" for p in (s[2], s[0], s[1]) for v in p or (0, 0)]
            rows.append(",".join([name, *points, str(track), "1", "2.5", "20", "14", "77.5"]))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return {"table": folder / "labels.csv", "images": folder / "images", "skeleton": PET}


def rewrite(labels: Labels, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write labels that were read with ``arguments``, and return the arguments that read what was written."""
    return {**arguments, "table": plain_csv.write(labels, folder / "again.csv")}
