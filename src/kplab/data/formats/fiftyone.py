"""Export for FiftyOne: one JSON file that ``fiftyone.Dataset.from_json`` reads.

Points and boxes are fractions of the image. Each subject is a ``Detection`` with its box, and a ``Keypoint`` with its points
and their visibility; both have the number ``subject``, and ``index``, its track, where it has one. Crowds are ``iscrowd``. A
point without a position is ``[NaN, NaN]``, as FiftyOne writes it, which is not strict JSON.

Source: Voxel51, FiftyOne user guide, "Keypoints", "Storing keypoint skeletons".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kplab.data.formats._files import clean, copy_images
from kplab.data.holds import Holds, instances_of
from kplab.structures.labels import Labels

HOLDS = Holds(visibility=True, boxes=True, areas=True, crowds=True, bare=True, tracks=True, groups=True, precision=1e-6)

CORE = "fiftyone.core"
#: The fields of a sample, by the names of FiftyOne's classes.
FIELDS = {
    "filepath": f"{CORE}.fields.StringField",
    "tags": f"{CORE}.fields.ListField({CORE}.fields.StringField)",
    "metadata": f"{CORE}.fields.EmbeddedDocumentField({CORE}.metadata.ImageMetadata)",
    "group_name": f"{CORE}.fields.StringField",
    "boxes": f"{CORE}.fields.EmbeddedDocumentField({CORE}.labels.Detections)",
    "keypoints": f"{CORE}.fields.EmbeddedDocumentField({CORE}.labels.Keypoints)",
}


def write(labels: Labels, path: str | Path, copy: bool = False) -> Path:
    """Write the JSON of a dataset.

    Args:
        labels: what to write.
        path: the JSON file.
        copy: copy the images beside it as well, and name those.
    """
    path, skeleton = Path(path), labels.skeleton
    if copy:
        copy_images(labels, path.parent, labels.names)
    samples = []
    for i, name in enumerate(labels.names):
        file = path.parent / str(name) if copy else labels.path(i)
        width, height = (int(v) for v in labels.size[i])
        sample: dict[str, Any] = {
            "_cls": "Sample",
            "_media_type": "image",
            "filepath": str(name) if file is None else file.absolute().as_posix(),
            "tags": [],
            "metadata": {"_cls": "ImageMetadata", "width": width, "height": height},
            "group_name": str(labels.group[i]),
            "boxes": {"_cls": "Detections", "detections": []},
            "keypoints": {"_cls": "Keypoints", "keypoints": []},
        }
        for row in instances_of(labels, i):
            _add(sample, labels, row, np.array([width, height], dtype=np.float64))
        samples.append(sample)
    content = {
        "name": skeleton.name,
        "media_type": "image",
        "skeletons": {"keypoints": _skeleton(labels)},
        "default_skeleton": _skeleton(labels),
        "sample_fields": FIELDS,
        "samples": samples,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def _skeleton(labels: Labels) -> dict[str, Any]:
    return {"labels": list(labels.skeleton.keypoints), "edges": [list(edge) for edge in labels.skeleton.edges]}


def _add(sample: dict[str, Any], labels: Labels, row: int, size: np.ndarray) -> None:
    """Add a subject to a sample."""
    p = labels.poses
    common: dict[str, Any] = {"label": labels.skeleton.name, "tags": [], "subject": int(labels.instance_id[row])}
    if p.track[row] >= 0:
        common["index"] = int(p.track[row])
    if np.isfinite(p.box[row]).all():
        corner, side = p.box[row, :2] / size, (p.box[row, 2:] - p.box[row, :2]) / size
        box = {"bounding_box": [clean(v) for v in (*corner, *side)], "iscrowd": int(labels.crowd[row])}
        more = {} if not np.isfinite(p.area[row]) else {"area": clean(p.area[row])}
        sample["boxes"]["detections"].append({"_cls": "Detection", **common, **box, **more})
    if (p.visible[row] > 0).any():
        points = [[float("nan")] * 2 if np.isnan(x) else [clean(x), clean(y)] for x, y in p.xy[row] / size]
        found = {"points": points, "visibility": [int(v) for v in p.visible[row]]}
        sample["keypoints"]["keypoints"].append({"_cls": "Keypoint", **common, **found})
