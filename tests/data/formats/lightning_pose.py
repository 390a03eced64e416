"""Example of a Lightning Pose table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.data.formats._spots import ALONE, PET, write_images

from kplab.data.formats import lightning_pose
from kplab.structures.labels import Labels


def make(folder: Path) -> dict[str, Any]:
    """Write the example, and return the arguments that read it."""
    names = tuple(f"labeled-data/v/img{i}.png" for i in range(3))
    write_images(folder, names, ALONE)
    header = ["scorer" + ",Ann" * 6, "bodyparts,right_ear,right_ear,nose,nose,left_ear,left_ear", "coords" + ",x,y" * 3]
    rows = [
        ",".join([name, *(f"{v:.1f}" if p else "" for p in (s[2], s[0], s[1]) for v in p or (0, 0))])
        for name, (s,) in zip(names, ALONE, strict=True)
    ]
    (folder / "CollectedData.csv").write_text("\n".join(header + rows) + "\n")
    return {"table": folder / "CollectedData.csv", "skeleton": PET}


def rewrite(labels: Labels, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write labels that were read with ``arguments``, and return the arguments that read what was written."""
    return {**arguments, "table": lightning_pose.write(labels, folder / "again.csv", copy=True)}
