"""Points and boxes of annotation tools, joined to subjects.

Tools keep the points and the box of a subject as separate shapes. They are joined by the identifier that the tool has for
this; a point without one belongs to the smallest box around it, or to the only subject of its image. A point that could
belong to several subjects, or to none, is an error: a guess would give one animal the limb of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kplab.data.reading import some
from kplab.errors import DataError
from kplab.structures.skeleton import Skeleton


@dataclass
class Part:
    """A point, or a box.

    Args:
        label: name of the keypoint, or class of the box.
        xy: (2,) of a point, continuous pixels.
        box: (4,) xyxy of a box.
        group: identifier of its subject; None where the tool gave it none.
        hidden: whether the point is labelled as hidden.
    """

    label: str
    xy: np.ndarray | None = None
    box: np.ndarray | None = None
    group: str | None = None
    hidden: bool = False


@dataclass
class Subject:
    """Points and box of one subject."""

    points: list[Part] = field(default_factory=list)
    box: np.ndarray | None = None

    def arrays(self, skeleton: Skeleton, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """(K, 2) xy, (K,) visibility and the box.

        Raises:
            DataError: a keypoint occurs twice.
        """
        xy, visible = np.full((len(skeleton), 2), np.nan), np.zeros(len(skeleton), dtype=np.int64)
        for part in self.points:
            k = skeleton.keypoints.index(part.label)
            if visible[k]:
                raise DataError(
                    f"{where}: a subject has two points '{part.label}'. Give the points of each subject a group of their "
                    "own (group_id, or the box as their parent), or delete one."
                )
            xy[k], visible[k] = part.xy, 1 if part.hidden else 2
        return xy, visible, self.box


def group_parts(parts: Sequence[Part], where: str) -> list[Subject]:
    """Subjects of one image, in the order of their first part.

    Raises:
        DataError: points can't be assigned; names them.
    """
    subjects: dict[str, Subject] = {}
    for number, part in enumerate(parts):
        key = f"box {number}" if part.group is None else f"group {part.group}"
        if part.group is not None or part.box is not None:
            subject = subjects.setdefault(key, Subject())
            if part.box is not None and subject.box is not None:
                raise DataError(f"{where}: a subject has two boxes ('{part.label}'). Give each subject one box.")
            if part.box is not None:
                subject.box = part.box
            else:
                subject.points.append(part)
    free = [part for part in parts if part.group is None and part.box is None]
    boxed = [subject for subject in subjects.values() if subject.box is not None]
    if free and not subjects:
        return [Subject(list(free))]
    orphans = []
    for part in free:
        home = boxed[0] if len(subjects) == 1 and boxed else _smallest_around(part, boxed)
        if home is None:
            orphans.append(part.label)
        else:
            home.points.append(part)
    if orphans:
        raise DataError(
            f"{where}: keypoints without a parent box: {some(orphans)} lie in none of the {len(boxed)} boxes, and have no "
            "group. Draw their box, or give them the group of their subject."
        )
    return list(subjects.values())


def _smallest_around(part: Part, subjects: Sequence[Subject]) -> Subject | None:
    around = [
        (float(np.prod(s.box[2:] - s.box[:2])), i)
        for i, s in enumerate(subjects)
        if s.box is not None and part.xy is not None and (part.xy >= s.box[:2]).all() and (part.xy <= s.box[2:]).all()
    ]
    return subjects[min(around)[1]] if around else None
