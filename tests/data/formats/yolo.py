"""Example of YOLO-pose labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.data.formats._spots import PET, SIZE, SUBJECTS, write_images

from kplab.data.formats import yolo
from kplab.structures.labels import Labels


def make(folder: Path) -> dict[str, Any]:
    """Write the example, and return the arguments that read it."""
    names = ("a/0.png", "a/1.png", "2.png")
    write_images(folder / "images", names)
    for name, subjects in zip(names, SUBJECTS, strict=True):
        rows = []
        for subject in subjects:
            row = "0 0.5 0.5 0.8 0.75"
            for p in (subject[2], subject[0], subject[1]):
                row += f" {(p[0] + 0.5) / SIZE[0]:.9f} {(p[1] + 0.5) / SIZE[1]:.9f} 2" if p else " 0 0 0"
            rows.append(row)
        path = (folder / "labels" / name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(rows) + "\n")
    (folder / "pets.yaml").write_text(
        "path: .\ntrain: images\nval: images\nnames: {0: pet}\n"
        "kpt_names: {0: [right_ear, nose, left_ear]}\nkpt_shape: [3, 3]\n"
    )
    return {"folder": folder, "skeleton": PET}


def rewrite(labels: Labels, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write labels that were read with ``arguments``, and return the arguments that read what was written."""
    yolo.write(labels, folder, copy=True)
    return {**arguments, "folder": folder}
