"""Example of points files of iBUG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.data.formats._spots import ALONE, PET, write_images

from kplab.data.formats import pts
from kplab.structures.labels import Labels


def make(folder: Path) -> dict[str, Any]:
    """Write the example, and return the arguments that read it."""
    names = ("a/0.png", "a/1.png", "2.png")
    write_images(folder, names, ALONE)
    for name, (subject,) in zip(names, ALONE, strict=True):
        # MATLAB counts from 1
        lines = [f"{p[0] + 1}.000 {p[1] + 1}.000" if p else "nan nan" for p in subject]
        text = "\n".join(["version: 1", f"n_points:  {len(lines)}", "{", *lines, "}", ""])
        (folder / name).with_suffix(".pts").write_text(text)
    return {"folder": folder, "skeleton": PET}


def rewrite(labels: Labels, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write labels that were read with ``arguments``, and return the arguments that read what was written."""
    pts.write(labels, folder, copy=True)
    return {**arguments, "folder": folder}
