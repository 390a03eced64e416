"""Example of dlib's XML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.data.formats._spots import PET, SUBJECTS, write_images

from kplab.data.formats import dlib
from kplab.structures.labels import Labels


def make(folder: Path) -> dict[str, Any]:
    """Write the example, and return the arguments that read it."""
    names = ("a/0.png", "a/1.png", "2.png")
    write_images(folder / "images", names)
    lines = ["<?xml version='1.0' encoding='ISO-8859-1'?>", "<dataset>", "<name>pets</name>", "<images>"]
    for name, subjects in zip(names, SUBJECTS, strict=True):
        lines.append(f"<image file='{name}'>")
        for subject in subjects:
            lines.append("<box top='1' left='2' width='20' height='12'>")
            lines += [
                f"<part name='{label}' x='{p[0]}' y='{p[1]}'/>"
                for label, p in zip(PET.keypoints, subject, strict=True)
                if p is not None
            ]
            lines.append("</box>")
        lines.append("</image>")
    (folder / "pets.xml").write_text("\n".join([*lines, "</images>", "</dataset>", ""]))
    return {"annotations": folder / "pets.xml", "images": folder / "images", "skeleton": PET}


def rewrite(labels: Labels, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write labels that were read with ``arguments``, and return the arguments that read what was written."""
    return {**arguments, "annotations": dlib.write(labels, folder / "again.xml")}
