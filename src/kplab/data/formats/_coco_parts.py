"""The parts of COCO-WholeBody: feet, face and hands of a person, which its annotations keep in fields of their own.

A part with ``<part>_valid`` false is unlabelled. Some hands have scores between 0 and 1 in place of visibilities, as they
were detected and not labelled: a score above 0 is taken as visible. Names are those of the fields' order in COCO-WholeBody.

Source: Jin et al., "Whole-Body Human Pose Estimation in the Wild", ECCV 2020, data format of the repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kplab.data.formats._coco_columns import Annotation, Category, File, Image
from kplab.errors import DataError


def _hand(side: str) -> tuple[str, ...]:
    fingers = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
    return (f"{side}_hand_root", *(f"{side}_{finger}{i}" for finger in fingers for i in range(1, 5)))


@dataclass(frozen=True)
class Part:
    """A part.

    Args:
        field: start of its fields: ``<field>_kpts``, ``<field>_valid``, ``<field>_box``.
        names: of its keypoints.
    """

    field: str
    names: tuple[str, ...]


PARTS = {
    "foot": Part("foot", tuple(f"{side}_{p}" for side in ("left", "right") for p in ("big_toe", "small_toe", "heel"))),
    "face": Part("face", tuple(f"face-{i}" for i in range(68))),
    "left_hand": Part("lefthand", _hand("left")),
    "right_hand": Part("righthand", _hand("right")),
}
BODY = "body"


class WholeAnnotation(Annotation, gc=False):
    """An annotation with the fields of the parts."""

    foot_kpts: list[float] | None = None
    face_kpts: list[float] | None = None
    lefthand_kpts: list[float] | None = None
    righthand_kpts: list[float] | None = None
    foot_valid: bool = True
    face_valid: bool = True
    lefthand_valid: bool = True
    righthand_valid: bool = True
    face_box: list[float] | None = None
    lefthand_box: list[float] | None = None
    righthand_box: list[float] | None = None


class WholeFile(msgspec.Struct, gc=False):
    """A file of COCO-WholeBody."""

    images: list[Image]
    annotations: list[WholeAnnotation]
    categories: list[Category]


def joined(file: WholeFile, parts: Sequence[str], path: Path) -> File:
    """The file with the keypoints of these parts as the only keypoints of its annotations and categories.

    Of one part that has a box, the box is that of the part, and the area is made from it.

    Raises:
        DataError: a part is unknown, or an annotation has another number of its keypoints.
    """
    known = (BODY, *PARTS)
    wrong = [part for part in parts if part not in known]
    if wrong or not parts or len(set(parts)) < len(parts):
        raise DataError(f"{path}: parts={list(parts)}. Use each of these at most once: {', '.join(known)}.")
    for category in file.categories:
        body = category.keypoints or []
        if body:
            category.keypoints = [n for part in parts for n in (body if part == BODY else PARTS[part].names)]
            category.skeleton = category.skeleton if parts[0] == BODY else None
    lengths = {len(c.keypoints or []) for c in file.categories}
    alone = PARTS[parts[0]].field if len(parts) == 1 and parts[0] != BODY else None
    for one in file.annotations:
        numbers: list[float] = []
        for part in parts:
            numbers += _body(one, parts, lengths) if part == BODY else _numbers(one, PARTS[part], path)
        one.keypoints, one.num_keypoints = numbers, None
        if alone is not None:
            box = getattr(one, f"{alone}_box", None)
            one.bbox = box if box and any(box) else None
            one.area = None
    return File(file.images, list(file.annotations), file.categories)


def _body(one: WholeAnnotation, parts: Sequence[str], lengths: set[int]) -> list[float]:
    """The numbers of the body; zeros where it has none, as crowds do."""
    others = sum(len(PARTS[part].names) for part in parts if part != BODY)
    return one.keypoints or [0.0] * 3 * (max(lengths, default=others) - others)


def _numbers(one: WholeAnnotation, part: Part, path: Path) -> list[float]:
    numbers = getattr(one, f"{part.field}_kpts")
    if numbers is None or not getattr(one, f"{part.field}_valid"):
        return [0.0] * 3 * len(part.names)
    if len(numbers) != 3 * len(part.names):
        raise DataError(
            f"{path}: annotation {one.id} has {len(numbers)} numbers in {part.field}_kpts, expected {3 * len(part.names)}. "
            "Correct it."
        )
    return [_visibility(v) if i % 3 == 2 else v for i, v in enumerate(numbers)]


def _visibility(value: float) -> float:
    """2 for a score between 0 and 1; other values are kept."""
    return 2 if 0 < value < 1 else value


def split(document: dict[str, Any]) -> dict[str, Any]:
    """A document of ``coco.write`` with the keypoints of the parts in fields of their own.

    Raises:
        DataError: the keypoints are not those of a body and of whole parts.
    """
    (category,) = document["categories"]
    listed = category["keypoints"]
    present = [part for part in PARTS.values() if set(part.names) & set(listed)]
    if not all(set(part.names) <= set(listed) for part in present):
        raise DataError("parts=true: the skeleton lacks keypoints of a part of COCO-WholeBody. Write without it.")
    inside = {name for part in present for name in part.names}
    body = [name for name in listed if name not in inside]
    index = {name: i for i, name in enumerate(listed)}
    number = {name: i + 1 for i, name in enumerate(body)}
    old = {i + 1: name for i, name in enumerate(listed)}
    edges = [[number[old[i]] for i in edge] for edge in category["skeleton"] if all(old[i] in number for i in edge)]
    annotations = []
    for one in document["annotations"]:
        triplets = [one["keypoints"][3 * i : 3 * i + 3] for i in range(len(listed))]

        def of(names: Sequence[str], triplets: Any = triplets) -> list[float]:
            return [value for name in names for value in triplets[index[name]]]

        fields: dict[str, Any] = {"keypoints": of(body)}
        fields["num_keypoints"] = sum(v > 0 for v in fields["keypoints"][2::3])
        for part in present:
            numbers = of(part.names)
            fields |= {f"{part.field}_kpts": numbers, f"{part.field}_valid": any(numbers[2::3])}
        annotations.append({**one, **fields})
    return {**document, "annotations": annotations, "categories": [{**category, "keypoints": body, "skeleton": edges}]}
