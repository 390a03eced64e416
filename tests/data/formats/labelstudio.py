"""Example of a Label Studio export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.data.formats._spots import PET, SIZE, SUBJECTS, write_images

from kplab.data.formats import labelstudio
from kplab.structures.labels import Labels


def make(folder: Path) -> dict[str, Any]:
    """Write the example, and return the arguments that read it."""
    names = ("a/0.png", "a/1.png", "2.png")
    write_images(folder / "images", names)
    tasks = []
    for number, subjects in enumerate(SUBJECTS):
        common = {"original_width": SIZE[0], "original_height": SIZE[1], "image_rotation": 0, "to_name": "image"}
        results: list[dict[str, Any]] = []
        for n, subject in enumerate(subjects):
            box = {"x": 5, "y": 6.25, "width": 90, "height": 75, "rotation": 0, "rectanglelabels": ["pet"]}
            results.append({"id": f"r{n}", "type": "rectanglelabels", "from_name": "box", "value": box, **common})
            for label, p in zip(PET.keypoints, subject, strict=True):
                if p is not None:
                    place = {"x": (p[0] + 0.5) / SIZE[0] * 100, "y": (p[1] + 0.5) / SIZE[1] * 100, "width": 0.5}
                    value = {**place, "keypointlabels": [label]}
                    region = {"id": f"k{n}{label}", "type": "keypointlabels", "from_name": "kp", "value": value}
                    results.append({**region, "parentID": f"r{n}", **common})
        address = ["/data/local-files/?d=a/0.png", "a/1.png", "/data/upload/3/2.png"][number]
        annotation = {"id": number, "result": results, "was_cancelled": False}
        tasks.append({"id": number, "data": {"image": address}, "annotations": [annotation], "predictions": []})
    (folder / "export.json").write_text(json.dumps(tasks))
    return {"annotations": folder / "export.json", "images": folder / "images", "skeleton": PET}


def rewrite(labels: Labels, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write labels that were read with ``arguments``, and return the arguments that read what was written."""
    return {**arguments, "annotations": labelstudio.write(labels, folder / "again.json")[0]}
