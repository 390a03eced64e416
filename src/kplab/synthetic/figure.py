"""Building blocks of subjects: rotations, limbs and named keypoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from kplab.synthetic.engine import Body, Box, Cone, Ellipsoid, Solid
from kplab.synthetic.paint import Paint

Pose = Mapping[str, Mapping[str, float]]
"""Part to its angles by name, degrees: what ``build`` of a subject takes in place of angles that it would draw."""

ANY: Pose = MappingProxyType({})
"""All angles are drawn."""


@dataclass(frozen=True)
class Subject:
    """A kind of subject that can be rendered.

    Args:
        name: as in ``generate``.
        keypoints: names, in the order of the arrays.
        edges: 0-based pairs.
        build: makes one individual in a random pose and orientation. People, faces and arms take a ``Pose`` as well.
        distance: (low, high) distance of the camera, in lengths of the body.
    """

    name: str
    keypoints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    build: Callable[..., Body]
    distance: tuple[float, float]


def turn(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    """(3, 3) rotation by degrees: about x, then y, then z. Limbs point down (-y): +x swings them back, +z to +x."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad([x, y, z])), np.sin(np.deg2rad([x, y, z]))
    return np.array(
        [
            [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
            [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
            [-sy, cy * sx, cy * cx],
        ]
    )


def view(rng: np.random.Generator, yaw: float, pitch: float, tilt: float, roll: float, pose: Pose = ANY) -> np.ndarray:
    """(3, 3) orientation of a subject to the camera: rotated by yaw, seen from ``pitch`` above, upright or rolled.

    The part "view" of a pose replaces yaw, pitch and roll.
    """
    lean = rng.uniform(-180, 180) if rng.random() < roll else rng.normal(0, tilt)
    angle = {"yaw": yaw, "pitch": pitch, "roll": lean, **pose.get("view", {})}
    return turn(z=angle["roll"]) @ turn(x=angle["pitch"]) @ turn(y=angle["yaw"])


class Figure:
    """Collects the solids and keypoints of a body under construction."""

    def __init__(self, names: Sequence[str]) -> None:
        self.solids: list[Solid] = []
        self.names = names
        self.points: dict[str, np.ndarray] = {}
        self.slack: dict[str, float] = {}

    def limb(
        self, a: np.ndarray, frame: np.ndarray, length: float, radius: tuple[float, float], paint: Paint
    ) -> np.ndarray:
        """Add a tapered limb from a along the frame's -y; returns its end."""
        b = a - length * frame[:, 1]
        self.solids.append(Cone(a, b, radius, frame, paint))
        return b

    def link(self, a: np.ndarray, b: np.ndarray, radius: tuple[float, float], frame: np.ndarray, paint: Paint) -> None:
        """Add a tapered limb between two points; the frame only orients the paint."""
        self.solids.append(Cone(np.asarray(a, dtype=float), np.asarray(b, dtype=float), radius, frame, paint))

    def ball(self, centre: np.ndarray, frame: np.ndarray, half: tuple[float, float, float], paint: Paint) -> None:
        """Add an ellipsoid with half axes along the frame."""
        self.solids.append(Ellipsoid(np.asarray(centre, dtype=float), half, frame, paint))

    def box(self, centre: np.ndarray, frame: np.ndarray, half: tuple[float, float, float], paint: Paint) -> None:
        """Add a box with half sides along the frame."""
        self.solids.append(Box(np.asarray(centre, dtype=float), half, frame, paint))

    def mark(self, name: str, point: np.ndarray, slack: float) -> None:
        """Add a keypoint, and its largest depth below its own surface."""
        self.points[name] = np.asarray(point, dtype=float)
        self.slack[name] = slack

    def front(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(N,) z of the surface visible along -z at (x, y), in body axes; -inf where there is none."""
        return np.maximum.reduce([solid.hit(x, y) for solid in self.solids])

    def add(self, other: Figure, frame: np.ndarray, at: np.ndarray) -> None:
        """Add another figure's solids, rotated and translated, without its keypoints."""
        for s in other.solids:
            if isinstance(s, Cone):
                self.solids.append(replace(s, a=at + frame @ s.a, b=at + frame @ s.b, frame=frame @ s.frame))
            else:
                self.solids.append(replace(s, centre=at + frame @ s.centre, frame=frame @ s.frame))

    def body(self, core: int | None = None) -> Body:
        """The finished body, keypoints in the order of the names; without ``core`` all solids are the subject."""
        points = np.array([self.points[n] for n in self.names]).reshape(-1, 3)
        slack = np.array([self.slack[n] for n in self.names])
        solids: list[Solid] = [*self.solids]
        return Body(solids, len(solids) if core is None else core, points, slack)
