"""Films of one subject that moves: the pose of each frame is given, and individual, light, background and camera stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from kplab.errors import ConfigError
from kplab.structures.poses import Poses
from kplab.synthetic import photo
from kplab.synthetic.engine import SUPER, Body, Buffers, Camera, cast
from kplab.synthetic.figure import Pose, Subject
from kplab.synthetic.paint import Noise
from kplab.synthetic.scene import find_subject, truth

VIEW = ("yaw", "pitch", "roll")
_LIMB = ("swing", "lift", "roll", "bend")
ANGLES: dict[str, dict[str, tuple[str, ...]]] = {
    "person": {
        "view": VIEW, "trunk": ("lean",), "left_arm": _LIMB, "right_arm": _LIMB, "left_leg": _LIMB, "right_leg": _LIMB,
    },
    "face": {"view": VIEW},
    "arm": {"view": VIEW, "joints": ("turret", "shoulder", "elbow", "wrist", "grip", "jaw")},
}  # fmt: skip
"""Subject to part to names of its angles."""


@dataclass(frozen=True)
class Film:
    """The frames of a film, drawn when they are read: an ``ImageSource`` with exact keypoints.

    Args:
        subject: what is shown.
        bodies: one for each frame.
        cameras: one for each frame.
        size: (width, height) of a frame, pixels.
        rate: frames per second.
        seed: of light and background.
    """

    subject: Subject
    bodies: list[Body]
    cameras: list[Camera]
    size: tuple[int, int]
    rate: float
    seed: int

    def __len__(self) -> int:
        return len(self.bodies)

    @property
    def times(self) -> np.ndarray:
        """(T,) seconds since the first frame."""
        return np.arange(len(self)) / self.rate

    @cached_property
    def xy(self) -> np.ndarray:
        """(T, K, 2) exact keypoints, hidden ones too; continuous pixels."""
        both = zip(self.bodies, self.cameras, strict=True)
        return np.array([camera.screen(body.keypoints)[:, :2] / SUPER for body, camera in both])

    @property
    def points(self) -> np.ndarray:
        """(T, K, 3) keypoints in the body's frame: x to the right, y up, z towards the camera."""
        return np.array([body.keypoints for body in self.bodies])

    def camera_matrix(self, i: int) -> np.ndarray:
        """(3, 3) camera matrix of frame i, pixels. The camera is at z = ``cameras[i].distance``, and looks along -z."""
        camera = self.cameras[i]
        focal = camera.scale * camera.distance
        return np.array([[focal, 0, camera.centre[0]], [0, focal, camera.centre[1]], [0, 0, SUPER]]) / SUPER

    def projection(self, i: int) -> np.ndarray:
        """(3, 4) matrix from homogeneous points of the body's frame to homogeneous pixels of frame i."""
        away = np.array([[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, self.cameras[i].distance]])
        return self.camera_matrix(i) @ away

    def name(self, i: int) -> str:
        """What frame i is called, as frames of a video are."""
        return f"{self.subject.name}.mp4#{i:06d}"

    def read(self, i: int) -> np.ndarray:
        """Frame i, (H, W, 3) uint8 RGB."""
        noise = Noise(np.random.default_rng([self.seed, 1]))
        # the same numbers for each frame: light and background don't move
        cameras, buffers = [self.cameras[i]], self._buffers(i)
        colour, alpha, light = photo.shade(np.random.default_rng([self.seed, 2]), buffers, cameras, noise)
        image = photo.cast_shadow(np.random.default_rng([self.seed, 3]), self._background, alpha, light)
        return photo.quantise(image * (1 - alpha[..., None]) + colour)

    def truth(self, i: int) -> Poses:
        """The true pose of frame i, with visibility, box and area."""
        return truth([self.bodies[i]], [self.cameras[i]], self._buffers(i))[0]

    @cached_property
    def _background(self) -> np.ndarray:
        noise = Noise(np.random.default_rng([self.seed, 1]))
        return photo.background(np.random.default_rng([self.seed, 4]), self.size, noise)

    def _buffers(self, i: int) -> Buffers:
        return cast([self.bodies[i]], [self.cameras[i]], (self.size[0] * SUPER, self.size[1] * SUPER))


def film(
    subject: str, poses: Sequence[Pose], size: tuple[int, int] = (256, 256), seed: int = 0, rate: float = 25.0,
    anchor: Sequence[str] = (), fill: float = 0.85,
) -> Film:  # fmt: skip
    """A film of one individual in given poses; it depends on the parameters only.

    Args:
        subject: person, face or arm.
        poses: of each frame; each has the same angles, see ``ANGLES``. Other angles are those of the individual.
        size: (width, height), pixels.
        seed: of the individual, light and background.
        rate: frames per second.
        anchor: names of keypoints whose mean stays in place, such as the ankles of a person who squats; none: the origin of
            the body does.
        fill: largest share of the frame, in width or height, that the whole motion takes up.

    Raises:
        ConfigError: the subject takes no poses, an angle is unknown, or there are no frames.
    """
    what = find_subject(subject)
    _check(subject, poses)
    bodies = [what.build(np.random.default_rng([seed, 0]), pose) for pose in poses]
    centres = np.array([s.origin for s in bodies[0].solids])
    low, high = what.distance
    distance = (low + high) * float(np.linalg.norm(centres - centres.mean(0), axis=1).max())
    near = Camera(1.0, (0.0, 0.0), distance)
    rows = [what.keypoints.index(name) for name in anchor]
    still = np.array([near.screen(b.keypoints[rows])[:, :2].mean(0) if rows else np.zeros(2) for b in bodies])
    boxes = np.array([body.bounds(near) for body in bodies]) - np.tile(still, 2)
    box = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
    samples = np.array(size) * SUPER
    scale = float((fill * samples / (box[2:] - box[:2])).min())
    place = samples / 2 - scale * (box[:2] + box[2:]) / 2
    cameras = [replace(near, scale=scale, centre=tuple((place - scale * s).tolist())) for s in still]
    return Film(what, bodies, cameras, size, rate, seed)


def _check(subject: str, poses: Sequence[Pose]) -> None:
    """Raise a ConfigError for poses that the subject doesn't take."""
    if subject not in ANGLES:
        raise ConfigError(f"a film of '{subject}' can't be made: it takes no poses. Choose {', '.join(ANGLES)}.")
    if not len(poses):
        raise ConfigError(f"a film of '{subject}' needs the pose of one frame or more, but got none.")
    for i, pose in enumerate(poses):
        for part, angles in pose.items():
            known = ANGLES[subject].get(part, ())
            wrong = [name for name in angles if name not in known]
            if wrong or not known:
                choice = f"Its angles: {', '.join(known)}." if known else f"Parts: {', '.join(ANGLES[subject])}."
                raise ConfigError(f"pose {i} of '{subject}': unknown '{part}' {', '.join(wrong)}. {choice}")
