"""Example of COCO keypoint JSON, with fields that kplab does not use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.data.formats._spots import PET, SIZE, SUBJECTS, write_images

from kplab.data.formats import coco
from kplab.structures.labels import Labels

NAMES = ("a/0.png", "a/1.png", "2.png")


def make(folder: Path) -> dict[str, Any]:
    """Write the example, and return the arguments that read it."""
    write_images(folder / "images", NAMES)
    annotations = []
    for number, subjects in enumerate(SUBJECTS):
        for subject in subjects:
            # the file names right_ear before left_ear
            triplets = [v for p in (subject[0], subject[2], subject[1]) for v in ((*p, 2) if p else (0, 0, 0))]
            id_ = len(annotations) + 1
            annotations.append(
                {
                    "id": id_,
                    "image_id": 10 + number,
                    "category_id": 7,
                    "iscrowd": 0,
                    "num_keypoints": sum(p is not None for p in subject),
                    "keypoints": triplets,
                    "bbox": [1, 1, 20, 12],
                    "area": 30.5,
                    "track_id": id_ % 3,
                    "caption": f"pet {id_}",
                }
            )
    images = [
        {"id": 10 + i, "file_name": name, "width": SIZE[0], "height": SIZE[1], "weather": f"rain {i}"}
        for i, name in enumerate(NAMES)
    ]
    category = {"id": 7, "name": "pet", "keypoints": ["nose", "right_ear", "left_ear"], "skeleton": []}
    document = {"info": {"year": 1}, "images": images, "annotations": annotations, "categories": [category]}
    (folder / "labels.json").write_text(json.dumps(document))
    return {"annotations": folder / "labels.json", "images": folder / "images", "skeleton": PET, "keep_extras": True}


def rewrite(labels: Labels, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write labels that were read with ``arguments``, and return the arguments that read what was written."""
    return {**arguments, "annotations": coco.write(labels, folder / "again.json")}
