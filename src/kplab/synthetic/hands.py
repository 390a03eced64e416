"""Left and right hands in many gestures: the subject 'hand' with the 21 keypoints of OneHand10K and FreiHAND."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from kplab.errors import ConfigError
from kplab.synthetic.engine import Body
from kplab.synthetic.figure import Figure, Subject, turn, view
from kplab.synthetic.paint import SKINS, Paint, between, beyond, cloth

FINGERS = ("thumb", "index", "middle", "ring", "little")
KEYPOINTS = ("wrist", *(f"{finger}{i}" for finger in FINGERS for i in (1, 2, 3, 4)))
EDGES = tuple(edge for f in range(5) for edge in [(0, 4 * f + 1)] + [(4 * f + i, 4 * f + i + 1) for i in (1, 2, 3)])

# unit: wrist to the knuckle of the middle finger. Knuckle (x towards the thumb, y), then the three bones
_BONES = {
    "index": ((0.29, -0.96), (0.47, 0.28, 0.23), 0.105),
    "middle": ((0.09, -1.0), (0.52, 0.32, 0.24), 0.108),
    "ring": ((-0.12, -0.95), (0.48, 0.30, 0.24), 0.102),
    "little": ((-0.31, -0.83), (0.37, 0.21, 0.20), 0.088),
}
GESTURES = {
    "open": (0.1, 0.05, 0.05, 0.05, 0.05),
    "fist": (0.8, 1.0, 1.0, 1.0, 1.0),
    "point": (0.7, 0.05, 0.95, 1.0, 1.0),
    "two": (0.8, 0.05, 0.05, 0.95, 1.0),
    "thumb": (0.0, 1.0, 1.0, 1.0, 1.0),
    "ring": (0.6, 0.6, 0.1, 0.1, 0.1),
    "relaxed": (0.3, 0.3, 0.35, 0.4, 0.4),
    "half closed": (0.5, 0.55, 0.55, 0.55, 0.55),
    "horns": (0.0, 0.05, 0.95, 0.95, 0.05),
    "four": (0.8, 0.05, 0.05, 0.05, 0.05),
}
"""How far each finger is bent, 0 straight to 1 in the fist: thumb, index, middle, ring, little."""


def build(rng: np.random.Generator, gesture: str | None = None) -> Body:
    """One hand with part of the forearm: fingers along -y and palm towards +z before rotation.

    Args:
        gesture: of ``GESTURES``, to which each finger adds a deviation of 0.1 (standard deviation); None draws one of them,
            or of a quarter of the hands each finger by itself.
    """
    fig = Figure(KEYPOINTS)
    side = 1.0 if rng.random() < 0.5 else -1.0
    back = between(rng, SKINS)
    palm = np.clip(back * rng.uniform(1.05, 1.25) + [0.06, 0.01, 0.0], 0, 1)
    skin = Paint(back, palm, beyond(2, 0.02, soft=0.12), 0.05, 0.2, rng.uniform(0.05, 0.35))
    nail = Paint(np.clip(palm * 1.1 + 0.04, 0, 1) if rng.random() < 0.75 else rng.random(3), gloss=0.6)
    frame = view(rng, rng.uniform(-180, 180), rng.normal(0, 30), 60, 0.6)
    drawn = list(GESTURES)[rng.integers(len(GESTURES))]
    bent = np.clip(np.array(GESTURES[gesture or drawn]) + rng.normal(0, 0.1, 5), -0.08, 1.05)
    if rng.random() < 0.25 and gesture is None:
        bent = rng.uniform(0, 1, 5)
    spread = rng.uniform(-0.3, 1.3) * (1 - 0.7 * bent[1:].mean())
    stout, long = rng.uniform(0.85, 1.2), rng.uniform(0.88, 1.12)

    wrist = np.zeros(3)
    fig.mark("wrist", wrist, 0.3 * stout)
    fig.ball(frame @ np.array([0.0, -0.55, 0.0]), frame, (0.40 * stout, 0.52, 0.15 * stout), skin)
    fig.ball(frame @ np.array([side * 0.22, -0.36, 0.09]), frame @ turn(z=side * 25), (0.17 * stout, 0.33, 0.14), skin)
    fig.ball(frame @ np.array([-side * 0.24, -0.36, 0.05]), frame, (0.13 * stout, 0.36, 0.12), skin)
    for n, (finger, (knuckle, bones, thick)) in enumerate(_BONES.items()):
        at = frame @ np.array([side * knuckle[0], knuckle[1], -0.02])
        fig.link(wrist, at, (0.17 * stout, thick * 1.15 * stout), frame, skin)
        splay = side * (1.5 - n) * 7.0 * spread
        curl = bent[n + 1] * np.array([85.0, 100.0, 60.0]) + rng.normal(0, 4, 3)
        first = frame @ turn(z=splay) @ turn(x=-curl[0])
        _finger(fig, finger, at, first, -curl[1:, None] * [1.0, 0.0], np.array(bones) * long, thick * stout, skin, nail)
    at = frame @ np.array([side * 0.24, -0.2, 0.07])
    fig.link(wrist, at, (0.17 * stout, 0.16 * stout), frame, skin)
    first = frame @ turn(z=side * (58 - 42 * bent[0])) @ turn(x=-(15 + 35 * bent[0])) @ turn(y=side * 60)
    hinge = -np.array([[8 + 38 * bent[0], 0.0], [4 + 55 * bent[0], 0.0]])
    _finger(fig, "thumb", at, first, hinge, np.array([0.46, 0.36, 0.29]) * long, 0.125 * stout, skin, nail)
    arm = frame @ turn(x=rng.normal(0, 22), z=rng.normal(0, 12))
    stub, elbow = wrist + arm[:, 1] * 0.3, wrist + arm[:, 1] * 3.2
    fig.link(wrist, stub, (0.215 * stout, 0.22 * stout), arm, skin)
    core = len(fig.solids)
    fig.link(stub, elbow, (0.22 * stout, 0.36 * stout), arm, skin)
    if rng.random() < 0.6:
        cuff = wrist + arm[:, 1] * rng.uniform(0.4, 1.6)
        fig.link(cuff, elbow, (0.3 * stout, 0.45 * stout), arm, cloth(rng))
    return fig.body(core)


def _finger(
    fig: Figure, name: str, at: np.ndarray, frame: np.ndarray, bends: np.ndarray, bones: np.ndarray, thick: float,
    skin: Paint, nail: Paint,
) -> None:  # fmt: skip
    """Add a finger: three bones from a knuckle; ``bends`` (2, 2) rotates the second and third about x and z."""
    taper = thick * np.array([1.0, 0.86, 0.76, 0.62])
    for i in range(3):
        if i:
            frame = frame @ turn(x=bends[i - 1, 0], z=bends[i - 1, 1])
        fig.mark(f"{name}{i + 1}", at, 2.1 * taper[i])
        end = fig.limb(at, frame, bones[i], (taper[i], taper[i + 1]), skin)
        if i == 2:
            spot = end + frame @ np.array([0.0, 0.25 * taper[3], -0.62 * taper[3]])
            fig.ball(spot, frame, (0.7 * taper[3], 1.0 * taper[3], 0.45 * taper[3]), nail)
        at = end
    fig.mark(f"{name}4", at, 1.6 * taper[3])


HAND = Subject("hand", KEYPOINTS, EDGES, build, (2.5, 8.0))


def gesturing(gesture: str) -> Subject:
    """Hands of one gesture, in any view; ``scene.render`` and ``scene.keypoints`` take the subject.

    Raises:
        ConfigError: the gesture is unknown.
    """
    if gesture not in GESTURES:
        raise ConfigError(f"gesture '{gesture}' is unknown. Choose one of: {', '.join(GESTURES)}.")
    return replace(HAND, build=partial(build, gesture=gesture))
