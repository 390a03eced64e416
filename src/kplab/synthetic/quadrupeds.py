"""Four-legged animals, from cats to giraffes: the subject 'quadruped' with the 17 keypoints of AP-10K."""

from __future__ import annotations

import numpy as np

from kplab.synthetic.engine import Body
from kplab.synthetic.figure import Figure, Subject, turn, view
from kplab.synthetic.paint import Paint, Pattern, between, blotches, stripes

KEYPOINTS = (
    "left_eye", "right_eye", "nose", "neck", "root_of_tail", "left_shoulder", "left_elbow", "left_front_paw",
    "right_shoulder", "right_elbow", "right_front_paw", "left_hip", "left_knee", "left_back_paw", "right_hip",
    "right_knee", "right_back_paw",
)  # fmt: skip
EDGES = (
    (0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (5, 6), (6, 7), (3, 8), (8, 9), (9, 10), (4, 11), (11, 12),
    (12, 13), (4, 14), (14, 15), (15, 16),
)  # fmt: skip
FURS = np.array(
    [[0.08, 0.07, 0.07], [0.30, 0.20, 0.13], [0.55, 0.38, 0.22], [0.78, 0.62, 0.42], [0.93, 0.90, 0.85],
     [0.50, 0.48, 0.47], [0.18, 0.17, 0.17]]
)  # fmt: skip
_GAITS = (6.0, 18.0, 32.0)


class _Coat:
    """The fur of one animal."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.base, self.mark = between(rng, FURS), between(rng, FURS)
        self.kind = rng.choice(["plain", "patches", "spots", "stripes"], p=[0.4, 0.25, 0.15, 0.2])
        self.scale = rng.uniform(0.25, 0.7) if self.kind == "patches" else rng.uniform(0.06, 0.14)
        self.share = rng.uniform(0.25, 0.6)
        self.grain = rng.uniform(0.06, 0.2)
        self.socks = rng.random() < 0.3

    def paint(self, along: int, marked: bool = False) -> Paint:
        """Paint of a part whose long axis is x, y or z (0, 1, 2)."""
        pattern: Pattern | None = None
        if self.kind in ("patches", "spots"):
            pattern = blotches(self.scale, self.share)
        elif self.kind == "stripes":
            pattern = stripes(np.eye(3)[along], self.scale, waver=0.3)
        base, second = (self.mark, self.base) if marked and self.socks else (self.base, self.mark)
        return Paint(base, second, pattern, self.grain, 0.12, 0.08, field=1)


def build(rng: np.random.Generator) -> Body:
    """One animal. The unit is the distance from shoulder to hip; z forward, x to its left, y up before rotation."""
    fig = Figure(KEYPOINTS)
    coat = _Coat(rng)
    yaw = rng.choice([-90.0, 90.0]) + rng.normal(0, 30) if rng.random() < 0.55 else rng.uniform(-180, 180)
    root = view(rng, yaw, rng.normal(8, 13), 8, 0.06)
    stout = rng.uniform(0.8, 1.25)
    wide, high = 0.17 * stout, 0.215 * stout
    sits = rng.random() < 0.12
    trunk = root @ turn(x=-rng.uniform(30, 50) if sits else rng.normal(0, 4))
    long = rng.uniform(0.32, 0.85)
    body = coat.paint(2)
    fig.ball(trunk @ np.array([0, -0.02, 0.32]), trunk, (wide, high * 1.1, 0.34), body)
    fig.ball(trunk @ np.array([0, -0.03, 0.0]), trunk, (wide * rng.uniform(0.9, 1.2), high, 0.42), body)
    fig.ball(trunk @ np.array([0, 0.01, -0.36]), trunk, (wide * 0.95, high * 1.02, 0.27), body)

    thick = rng.uniform(0.8, 1.3) * (0.7 + 0.45 * long)
    swings = rng.normal(0, _GAITS[rng.integers(3)], 4)
    for i, (side, name) in enumerate(((1.0, "left"), (-1.0, "right"))):
        x = side * wide * 0.62
        front, hind = swings[i], swings[2 + i]
        upright = root if sits else trunk
        _foreleg(fig, name, trunk @ np.array([x, -0.02, 0.40]), upright, front, long, thick, wide, coat)
        _hindleg(fig, name, trunk @ np.array([x, 0.02, -0.38]), trunk, hind, sits, long, thick, wide, coat)
    tail = trunk @ np.array([0, 0.5 * high, -0.56])
    fig.mark("root_of_tail", tail, 0.12 * stout)
    _tail(rng, fig, tail, trunk, coat)
    _neck(rng, fig, trunk, high, stout, coat, sits)
    return fig.body()


def _foreleg(
    fig: Figure, name: str, at: np.ndarray, frame: np.ndarray, swing: float, long: float, thick: float, wide: float,
    coat: _Coat,
) -> None:  # fmt: skip
    """Add a front leg: shoulder, elbow, wrist and paw."""
    upper = frame @ turn(x=22 - swing)
    elbow = fig.limb(at, upper, 0.38 * long + 0.08, (0.115 * thick, 0.075 * thick), coat.paint(1))
    fore = upper @ turn(x=-26 - max(swing, 0) * 0.2)
    ankle = fig.limb(elbow, fore, 0.44 * long, (0.066 * thick, 0.042 * thick), coat.paint(1))
    pastern = fore @ turn(x=max(-swing, 0) * 0.8)
    paw = fig.limb(ankle, pastern, 0.2 * long, (0.043 * thick, 0.04 * thick), coat.paint(1, marked=True))
    fig.link(paw, paw + pastern[:, 2] * 0.05, (0.047 * thick, 0.042 * thick), pastern, coat.paint(1, marked=True))
    fig.mark(f"{name}_shoulder", at, wide + 0.03)
    fig.mark(f"{name}_elbow", elbow, 0.125 * thick)
    fig.mark(f"{name}_front_paw", paw, 0.09 * thick)


def _hindleg(
    fig: Figure, name: str, at: np.ndarray, frame: np.ndarray, swing: float, sits: bool, long: float, thick: float,
    wide: float, coat: _Coat,
) -> None:  # fmt: skip
    """Add a hind leg: hip, knee, hock and paw."""
    thigh = frame @ turn(x=-75 if sits else -20 - swing)
    knee = fig.limb(at, thigh, 0.36 * long + 0.1, (0.14 * thick, 0.085 * thick), coat.paint(1))
    shin = thigh @ turn(x=140 if sits else 52 + max(swing, 0) * 0.3)
    hock = fig.limb(knee, shin, 0.36 * long + 0.02, (0.078 * thick, 0.042 * thick), coat.paint(1))
    foot = shin @ turn(x=-115 if sits else -34 + max(-swing, 0) * 0.4)
    paw = fig.limb(hock, foot, 0.3 * long, (0.043 * thick, 0.04 * thick), coat.paint(1, marked=True))
    fig.link(paw, paw + foot[:, 2] * 0.05, (0.047 * thick, 0.042 * thick), foot, coat.paint(1, marked=True))
    fig.mark(f"{name}_hip", at, wide + 0.03)
    fig.mark(f"{name}_knee", knee, 0.145 * thick)
    fig.mark(f"{name}_back_paw", paw, 0.09 * thick)


def _tail(rng: np.random.Generator, fig: Figure, at: np.ndarray, trunk: np.ndarray, coat: _Coat) -> None:
    """Add a tail of several curved links."""
    length, width = rng.uniform(0.05, 0.28), rng.uniform(0.025, 0.06)
    bend, sway = rng.normal(0, 25), rng.normal(0, 18)
    frame = trunk @ turn(x=rng.uniform(10, 120))
    for i in range(3):
        at = fig.limb(at, frame, length, (width * (1 - 0.2 * i), width * (0.8 - 0.2 * i)), coat.paint(1))
        frame = frame @ turn(x=bend, z=sway)


def _neck(
    rng: np.random.Generator, fig: Figure, trunk: np.ndarray, high: float, stout: float, coat: _Coat, sits: bool
) -> None:
    """Add the neck and head: skull, muzzle, eyes, ears, sometimes horns and a mane."""
    base = trunk @ np.array([0, 0.35 * high, 0.5])
    rise = rng.uniform(30, 75) if sits or rng.random() < 0.8 else rng.uniform(-50, 10)
    length = rng.uniform(0.16, 0.42) if rng.random() < 0.75 else rng.uniform(0.42, 0.8)
    neck = trunk @ turn(y=rng.normal(0, 14)) @ turn(x=-90 - rise)
    wide = rng.uniform(0.10, 0.14) * stout
    top = fig.limb(base, neck, length, (wide * 1.25, wide * 0.85), coat.paint(1))
    fig.mark("neck", base, wide * 1.9)
    if rng.random() < 0.25:
        mane = Paint(coat.mark * 0.6, grain=0.2, grain_scale=0.08)
        fig.link(base + neck[:, 2] * wide * 0.6, top + neck[:, 2] * wide * 0.7, (wide * 0.9, wide * 0.6), neck, mane)

    size = rng.uniform(0.10, 0.15) * (0.8 + 0.2 * stout)
    nod = rng.uniform(-5, 45)
    face = neck @ turn(x=90 + rise) @ turn(x=nod - 0.35 * max(rise - 30, 0), y=rng.normal(0, 22), z=rng.normal(0, 6))
    skull = top + face @ np.array([0, 0.2, 0.35]) * size
    fur = coat.paint(2)
    fig.ball(skull, face, (size * 0.88, size * 0.9, size * 1.1), fur)
    reach = size * rng.uniform(1.2, 2.5)
    snout = size * rng.uniform(0.38, 0.6)
    tip = skull + face @ np.array([0, -0.32 * size, reach])
    pale = Paint(coat.mark, grain=coat.grain, grain_scale=0.1) if rng.random() < 0.4 else fur
    fig.link(skull + face @ np.array([0, -0.2, 0.4]) * size, tip, (size * 0.72, snout), face, pale)
    dark = Paint(np.array([0.06, 0.05, 0.05]) + rng.uniform(0, 0.1), gloss=0.7)
    nose = tip + face @ np.array([0, 0.35, 0.72]) * snout
    fig.ball(nose, face, (snout * 0.55, snout * 0.4, snout * 0.42), dark)
    fig.mark("nose", nose, snout * 0.75)
    eye = size * rng.uniform(0.16, 0.24)
    for side, name in ((1.0, "left"), (-1.0, "right")):
        spot = skull + face @ np.array([side * 0.66, 0.3, 0.62]) * size
        fig.ball(spot, face, (eye * 1.35, eye * 1.35, eye * 1.35), Paint(pale.colour * 0.6))
        fig.ball(spot + face @ np.array([side * 0.6, 0.1, 0.45]) * eye, face, (eye, eye, eye), dark)
        fig.mark(f"{name}_eye", spot + face @ np.array([side * 0.6, 0.1, 0.45]) * eye, eye * 1.5)
    _ears(rng, fig, skull, face, size, coat)


def _ears(rng: np.random.Generator, fig: Figure, skull: np.ndarray, face: np.ndarray, size: float, coat: _Coat) -> None:
    """Add upright or hanging ears, and sometimes horns."""
    tilt, length = (rng.uniform(100, 165), rng.uniform(0.5, 1.4)) if rng.random() < 0.7 else (rng.uniform(10, 45), 0.9)
    horns = rng.uniform(0.8, 2.2) if rng.random() < 0.15 else 0.0
    bend = rng.uniform(-40, 40)
    horn = Paint(between(rng, FURS[2:5]), grain=0.1)
    for side in (1.0, -1.0):
        ear = face @ turn(z=side * tilt)
        at = skull + face @ np.array([side * 0.62, 0.55, -0.2]) * size
        fig.ball(
            at - ear[:, 1] * 0.45 * length * size, ear, (0.36 * size, 0.55 * length * size, 0.13 * size), coat.paint(1)
        )
        if horns:
            stem = face @ turn(z=side * 150)
            start = skull + face @ np.array([side * 0.35, 0.75, 0.0]) * size
            half = fig.limb(start, stem, 0.5 * horns * size, (0.16 * size, 0.12 * size), horn)
            fig.limb(half, stem @ turn(x=bend, z=side * 25), 0.5 * horns * size, (0.12 * size, 0.04 * size), horn)


QUADRUPED = Subject("quadruped", KEYPOINTS, EDGES, build, (3.0, 9.0))
