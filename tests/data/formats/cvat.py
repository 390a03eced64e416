"""Example of CVAT's XML for images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.data.formats._spots import PET, SIZE, SUBJECTS, write_images

from kplab.data.formats import cvat
from kplab.structures.labels import Labels


def make(folder: Path) -> dict[str, Any]:
    """Write the example, and return the arguments that read it."""
    names = ("a/0.png", "a/1.png", "2.png")
    write_images(folder / "images", names)
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations><version>1.1</version>"]
    for number, (name, subjects) in enumerate(zip(names, SUBJECTS, strict=True)):
        lines.append(f'<image id="{number}" name="{name}" width="{SIZE[0]}" height="{SIZE[1]}">')
        for group, subject in enumerate(subjects, 1):
            lines.append(f'<box label="pet" group_id="{group}" xtl="1.00" ytl="2.00" xbr="23.00" ybr="15.00"></box>')
            lines.append(f'<skeleton label="pet" source="manual" group_id="{group}">')
            for label, p in zip(PET.keypoints, subject, strict=True):
                x, y = (p[0] + 0.5, p[1] + 0.5) if p else (0.0, 0.0)
                flags = f'outside="{int(p is None)}" occluded="0"'
                lines.append(f'<points label="{label}" {flags} points="{x:.2f},{y:.2f}"></points>')
            lines.append("</skeleton>")
        lines.append("</image>")
    (folder / "annotations.xml").write_text("\n".join([*lines, "</annotations>", ""]))
    return {"annotations": folder / "annotations.xml", "images": folder / "images", "skeleton": PET}


def rewrite(labels: Labels, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write labels that were read with ``arguments``, and return the arguments that read what was written."""
    return {**arguments, "annotations": cvat.write(labels, folder / "again.xml")}
