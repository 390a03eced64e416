"""dlib's XML (imglab, iBUG): images with boxes, and parts of each box.

Parts are pixel indices from 0 in whole numbers, which is all that dlib reads; boxes are whole pixels. A box with
``ignore="1"`` is a crowd. A part that is missing is unlabelled.

Source: davisking/dlib, ``dlib/data_io/image_dataset_metadata.h``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from kplab.data.formats._builder import Builder
from kplab.data.formats._files import copy_images, number, posix, read_xml, write_xml, xml_root
from kplab.data.holds import Holds, instances_of
from kplab.data.naming import Names
from kplab.errors import DataError
from kplab.ops import affine
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

HALF = 1 / 2
HOLDS = Holds(boxes=True, crowds=True, bare=True, precision=HALF + 1e-6)


def recognise(path: Path) -> bool:
    """Whether a file is dlib's XML."""
    return xml_root(path) == "dataset"


def names(path: Path, prefix: str = "") -> Names:
    """Names of all parts, sorted, as dlib does."""
    root = read_xml(path, "dlib XML file", "dataset")
    return Names(tuple(prefix + name for name in sorted({part.get("name", "") for part in root.iter("part")})))


def read(
    annotations: str | Path,
    images: str | Path,
    skeleton: Skeleton,
    prefix: str = "",
    rename: Mapping[str, str] | None = None,
    box_margin: float = 1.2,
    allow_outside: bool = False,
) -> Labels:
    """Read a dataset of dlib; image sizes are those that the file states, or else of the image files.

    Args:
        annotations: the XML file.
        images: folder that the file names in it are relative to.
        skeleton: its names must be those of the parts.
        prefix: text that is put before the names of parts, such as ``point`` for ``00``, ``01``, …
        rename: name of a part (with its prefix) to keypoint of the skeleton, where they differ.
        box_margin: factor on the extent of the keypoints that makes a missing box.
        allow_outside: allow file names that lead out of the image folder.

    Raises:
        DataError: the file is damaged, or a part is unknown.
    """
    path = Path(annotations)
    root = read_xml(path, "dlib XML file", "dataset")
    builder = Builder(skeleton, path)
    builder.check_names((prefix + part.get("name", "") for part in root.iter("part")), rename)
    for element in root.iter("image"):
        name = element.get("file", "")
        sides = [number(element.get(key, ""), f"{path}, image {name}") for key in ("width", "height")]
        size = (int(sides[0]), int(sides[1])) if np.isfinite(sides).all() else None
        image = builder.image(posix(name), size)
        for box in element.findall("box"):
            left, top, width, height = (_whole(box, key, path) for key in ("left", "top", "width", "height"))
            xy = np.full((len(skeleton), 2), np.nan)
            for part in box.findall("part"):
                label = prefix + part.get("name", "")
                k = skeleton.keypoints.index((rename or {}).get(label, label))
                if np.isfinite(xy[k]).any():
                    raise DataError(f"{path}: image {name}: a box has the part '{label}' twice. Remove one.")
                xy[k] = affine.from_pixel_index(np.array([_whole(part, key, path) for key in ("x", "y")]))
            crowd = box.get("ignore") == "1"
            builder.instance(image, xy, box=(left, top, left + width, top + height), crowd=crowd)
    return builder.labels(Path(images), [path], box_margin=box_margin, allow_outside=allow_outside)


def _whole(element: Element, key: str, path: Path) -> float:
    value = number(element.get(key, ""), f"{path}, <{element.tag}>, {key}")
    if not np.isfinite(value):
        raise DataError(f"{path}: a <{element.tag}> has no {key}. Write it, or remove the element.")
    return value


def write(labels: Labels, path: str | Path, copy: bool = False) -> Path:
    """Write a dataset of dlib; coordinates are rounded to whole pixels.

    Args:
        labels: what to write.
        path: the XML file; images are named relative to its folder.
        copy: copy the images there as well.
    """
    path = Path(path)
    root = ElementTree.Element("dataset")
    ElementTree.SubElement(root, "name").text = labels.skeleton.name
    images = ElementTree.SubElement(root, "images")
    for i, name in enumerate(labels.names):
        width, height = (str(int(v)) for v in labels.size[i])
        image = ElementTree.SubElement(images, "image", file=str(name), width=width, height=height)
        for row in instances_of(labels, i):
            if not np.isfinite(labels.poses.box[row]).all():
                continue
            x0, y0, x1, y1 = np.rint(labels.poses.box[row]).astype(int).tolist()
            sides = {"top": y0, "left": x0, "width": max(1, x1 - x0), "height": max(1, y1 - y0)}
            box = ElementTree.SubElement(image, "box", {key: str(value) for key, value in sides.items()})
            if labels.crowd[row]:
                box.set("ignore", "1")
            for k in np.flatnonzero(labels.poses.visible[row] > 0):
                x, y = np.rint(affine.to_pixel_index(labels.poses.xy[row, k])).astype(int).tolist()
                ElementTree.SubElement(box, "part", name=labels.skeleton.keypoints[k], x=str(x), y=str(y))
    if copy:
        copy_images(labels, path.parent, labels.names)
    return write_xml(root, path)
