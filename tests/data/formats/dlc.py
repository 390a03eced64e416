"""Example of a DeepLabCut project with two individuals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.data.formats._spots import PET, SUBJECTS, write_images

from kplab.data.formats import dlc
from kplab.structures.labels import Labels

NAMES = tuple(f"labeled-data/v/img{i}.png" for i in range(3))


def make(folder: Path) -> dict[str, Any]:
    """Write the example, and return the arguments that read it."""
    write_images(folder, NAMES)
    header = [
        ["scorer"] + ["Ann"] * 12,
        ["individuals"] + ["m1"] * 6 + ["m2"] * 6,
        ["bodyparts"] + [n for n in ("right_ear", "nose", "left_ear") for _ in "xy"] * 2,
        ["coords"] + ["x", "y"] * 6,
    ]
    rows = []
    for name, subjects in zip(NAMES, SUBJECTS, strict=True):
        points = [p for s in (*subjects, (None, None, None))[:2] for p in (s[2], s[0], s[1])]
        rows.append([name, *(str(float(v)) if p else "" for p in points for v in p or (0, 0))])
    (folder / "labeled-data/v/CollectedData_Ann.csv").write_text("\n".join(map(",".join, header + rows)) + "\n")
    return {"project": folder, "skeleton": PET}


def rewrite(labels: Labels, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write labels that were read with ``arguments``, and return the arguments that read what was written."""
    dlc.write(labels, folder, copy=True)
    return {**arguments, "project": folder}
