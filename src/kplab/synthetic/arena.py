"""Insects that walk on a floor, seen from above: rendered frames of known paths, with identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kplab.structures.poses import Poses
from kplab.structures.predictions import Predictions
from kplab.structures.skeleton import Skeleton
from kplab.synthetic import photo
from kplab.synthetic.engine import SUPER, Body, Camera, cast
from kplab.synthetic.figure import Figure, turn
from kplab.synthetic.paint import Noise, Paint, hsv

INSECT = Skeleton.from_config(
    {
        "name": "insect3",
        "keypoints": ["head", "thorax", "abdomen"],
        "edges": [["head", "thorax"], ["thorax", "abdomen"]],
        "flip_pairs": [],
        "sigmas": "uniform",
    }
)
#: Places along the body, from the thorax forwards, body lengths.
PLACES = (0.28, 0.0, -0.42)


@dataclass(frozen=True)
class Walk:
    """A path of straight legs at constant speed, with a rest at each corner; after the last corner the insect stays.

    Args:
        corners: (P, 2) positions of the thorax, pixels; two or more, consecutive ones differ.
        speed: pixels per second.
        rest: seconds at each corner, the first included.
    """

    corners: Sequence[tuple[float, float]]
    speed: float
    rest: float = 0.0

    def at(self, time: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions (..., 2), headings (...) in radians from the x axis towards the y axis, and distances walked (...).

        Args:
            time: (...) seconds since the start, 0 or more.
        """
        corners = np.asarray(self.corners, dtype=np.float64)
        legs = np.diff(corners, axis=0)
        length = np.linalg.norm(legs, axis=1)
        start = self.rest + np.concatenate([[0.0], np.cumsum(length / self.speed + self.rest)[:-1]])
        time = np.asarray(time, dtype=np.float64)
        leg = np.clip(np.searchsorted(start, time, side="right") - 1, 0, len(legs) - 1)
        along = np.clip((time - start[leg]) * self.speed, 0.0, length[leg])
        walked = np.concatenate([[0.0], np.cumsum(length)])[leg] + along
        return corners[leg] + legs[leg] * (along / length[leg])[..., None], np.arctan2(*legs[leg].T[::-1]).T, walked


@dataclass(frozen=True)
class Arena:
    """Insects on a floor; the identity of an insect is the index of its walk.

    Args:
        walks: one per insect.
        size: (width, height) of the frames, pixels.
        length: of an insect, pixels.
        seed: of the looks of insects and floor.
    """

    walks: Sequence[Walk]
    size: tuple[int, int] = (256, 256)
    length: float = 26.0
    seed: int = 0

    def poses(self, time: float) -> Poses:
        """The true poses at a time, continuous pixels."""
        xy = []
        for walk in self.walks:
            place, heading, _ = walk.at(time)
            forward = np.array([np.cos(heading), np.sin(heading)])
            xy.append(place + self.length * np.outer(PLACES, forward))
        return Poses.make(np.array(xy), track=np.arange(len(self.walks)))

    def predictions(self, times: Sequence[float], sigma: float = 0.0, missing: float = 0.0) -> Predictions:
        """The true poses of frames in the form of predictions; image ids count from 1.

        Args:
            times: of the frames, seconds.
            sigma: standard deviation of normal noise on each coordinate, pixels.
            missing: share of the poses that are left out, at random.
        """
        poses = {}
        for n, time in enumerate(times):
            rng = np.random.default_rng([self.seed, n])
            true = self.poses(time)
            xy = true.xy + sigma * rng.standard_normal(true.xy.shape)
            poses[n + 1] = Poses.make(xy, track=true.track)[rng.random(len(true)) >= missing]
        made = {"made": "true poses of rendered insects", "noise_px": sigma, "missing": missing}
        return Predictions(INSECT, poses, made, {n: f"arena.mp4#{n - 1:06d}" for n in poses})

    def frame(self, time: float) -> np.ndarray:
        """(H, W, 3) uint8 RGB frame at a time."""
        samples = (self.size[0] * SUPER, self.size[1] * SUPER)
        bodies, cameras = [], []
        for n, walk in enumerate(self.walks):
            (x, y), heading, walked = walk.at(time)
            bodies.append(self._insect(n, float(heading), float(walked) / self.length))
            cameras.append(Camera(self.length * SUPER, (float(x) * SUPER, float(y) * SUPER), 50.0, 100.0 * n))
        # the same numbers for each frame: floor and light don't change
        rng = np.random.default_rng([self.seed, len(self.walks)])
        noise = Noise(rng)
        floor = hsv(rng.random(), 0.12, 0.85) * (1 + 0.06 * noise.picture(rng, self.size, 2.0, 0))
        buffers = cast(bodies, cameras, samples)
        colour, alpha, light = photo.shade(rng, buffers, cameras, noise)
        return photo.quantise(photo.cast_shadow(rng, floor, alpha, light) * (1 - alpha[..., None]) + colour)

    def _insect(self, number: int, heading: float, walked: float) -> Body:
        """Insect ``number``, its legs in the phase of the distance that it has walked, body lengths."""
        rng = np.random.default_rng([self.seed, number, 1])
        # steps of the golden ratio keep the hues of any number of insects apart
        shell = Paint(hsv((0.05 + 0.618 * number) % 1, 0.65, rng.uniform(0.4, 0.6)), gloss=0.5)
        dark = Paint(np.full(3, 0.1), gloss=0.3)
        # forwards is +y of the body, and headings turn clockwise on the screen
        frame = turn(z=-np.rad2deg(heading) - 90)
        fig = Figure(INSECT.keypoints)
        for name, along, half in zip(
            INSECT.keypoints,
            (0.24, 0.0, -0.33),
            ((0.09, 0.1, 0.08), (0.13, 0.16, 0.12), (0.16, 0.24, 0.14)),
            strict=True,
        ):
            fig.ball(frame @ np.array([0.0, along, 0.0]), frame, half, shell)
            fig.mark(name, frame @ np.array([0.0, PLACES[INSECT.index(name)], 0.0]), 0.3)
        for i, along in enumerate((0.1, 0.0, -0.1)):
            for side in (-1.0, 1.0):
                swing = 18 * np.sin(2 * np.pi * (1.5 * walked + 0.5 * ((i + (side > 0)) % 2)))
                limb = frame @ turn(z=-side * (62 + 32 * i) + swing)
                fig.limb(frame @ np.array([side * 0.08, along, -0.02]), limb @ turn(z=180), 0.42, (0.03, 0.015), dark)
        return fig.body()
