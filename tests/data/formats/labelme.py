"""Example of LabelMe files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.data.formats._spots import PET, SIZE, SUBJECTS, write_images

from kplab.data.formats import labelme
from kplab.structures.labels import Labels


def make(folder: Path) -> dict[str, Any]:
    """Write the example, and return the arguments that read it."""
    names = ("a/0.png", "a/1.png", "2.png")
    write_images(folder, names)
    for name, subjects in zip(names, SUBJECTS, strict=True):
        shapes: list[dict[str, Any]] = []
        for group, subject in enumerate(subjects):
            # opposite corners in any order
            box = [[23.0, 1.0], [1.5, 15.0]]
            shapes.append({"label": "pet", "points": box, "group_id": group, "shape_type": "rectangle", "flags": {}})
            for label, p in zip(PET.keypoints, subject, strict=True):
                if p is not None:
                    point = [[p[0] + 0.5, p[1] + 0.5]]
                    shapes.append(
                        {"label": label, "points": point, "group_id": group, "shape_type": "point", "flags": {}}
                    )
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": Path(name).name, "imageData": None}
        content |= {"imageHeight": SIZE[1], "imageWidth": SIZE[0]}
        (folder / name).with_suffix(".json").write_text(json.dumps(content))
    return {"folder": folder, "skeleton": PET}


def rewrite(labels: Labels, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write labels that were read with ``arguments``, and return the arguments that read what was written."""
    labelme.write(labels, folder, copy=True)
    return {**arguments, "folder": folder}
