"""Human heads: the subject 'face' with its 68 landmarks in the order of 300W, and the heads of people."""

from __future__ import annotations

import cv2
import numpy as np

from kplab.synthetic.engine import Body
from kplab.synthetic.figure import ANY, Figure, Pose, Subject, turn, view
from kplab.synthetic.paint import HAIRS, SKINS, Decal, Paint, any_colour, between, blotches, cloth

LANDMARKS = tuple(f"point{i:02d}" for i in range(68))
_RUNS = (
    (0, 16, 0),
    (17, 21, 0),
    (22, 26, 0),
    (27, 30, 0),
    (31, 35, 0),
    (36, 41, 1),
    (42, 47, 1),
    (48, 59, 1),
    (60, 67, 1),
)
EDGES = tuple(
    edge for first, last, closed in _RUNS
    for edge in [(i, i + 1) for i in range(first, last)] + ([(last, first)] if closed else [])
)  # fmt: skip
EXTENT = 1.8


def landmarks(rng: np.random.Generator) -> np.ndarray:
    """(68, 2) landmarks of a frontal face: x to the subject's left, y up, half the width of the head is 1.

    Brows, eyes and mouth have random expressions. Rows of the jaw are NaN: the solids of the head determine it.
    """
    xy = np.full((68, 2), np.nan)
    frown, raised = rng.normal(0, 0.05), rng.normal(0, 0.05)
    t = np.linspace(0, 1, 5)
    brow = np.stack([0.80 - 0.62 * t, 0.36 + raised + 0.13 * np.sin(np.pi * (0.25 + 0.6 * t)) - frown * t], axis=1)
    xy[22:27] = brow[::-1]
    xy[17:22] = brow * [-1, 1]
    xy[27:31] = np.stack([np.zeros(4), np.linspace(0.16, -0.40, 4)], axis=1)
    wing = rng.uniform(0.2, 0.28)
    xy[31:36] = np.stack([wing * np.linspace(-1, 1, 5), -0.56 - 0.05 * np.array([0, 0.7, 1, 0.7, 0])], axis=1)
    centre, wide = rng.uniform(0.40, 0.46), rng.uniform(0.18, 0.22)
    slant = rng.normal(0.015, 0.02)
    opening = rng.uniform(0.015, 0.04) if rng.random() < 0.12 else rng.uniform(0.05, 0.11)
    upper, lower = 0.08 + opening * 1.1, 0.08 - opening * 0.8
    eye = [
        (wide, 0.08 + slant),
        (wide * 0.4, upper),
        (-wide * 0.4, upper),
        (-wide, 0.08),
        (-wide * 0.4, lower),
        (wide * 0.4, lower),
    ]
    outer_first = np.array(eye) + np.array([centre, 0])
    xy[36:42] = outer_first * [-1, 1]
    xy[42:48] = outer_first[[3, 2, 1, 0, 5, 4]]
    half, smile = rng.uniform(0.30, 0.44), rng.normal(0.02, 0.05)
    gap = rng.uniform(0.1, 0.4) if rng.random() < 0.35 else rng.uniform(0.0, 0.06)
    thick = rng.uniform(0.07, 0.13)
    middle = -0.92
    top, bottom = middle + gap * 0.25, middle - gap * 0.75
    rise = np.array([smile, 0.2 * smile, 0, 0, 0, 0.2 * smile, smile])
    x = half * np.array([-1, -0.62, -0.2, 0, 0.2, 0.62, 1])
    xy[48:55] = np.stack([x, top + rise + thick * np.array([0, 0.7, 1, 0.82, 1, 0.7, 0])], axis=1)
    xy[[48, 54], 1] = (top + bottom) / 2 + smile
    under = bottom - thick * np.array([0.75, 1.1, 1.2, 1.1, 0.75]) + 0.3 * smile * np.array([1, 0, 0, 0, 1])
    xy[55:60] = np.stack([half * np.array([0.62, 0.22, 0, -0.22, -0.62]), under], axis=1)
    corner = half * 0.86
    xy[60] = -corner, (top + bottom) / 2 + 0.8 * smile
    xy[64] = corner, (top + bottom) / 2 + 0.8 * smile
    xy[61:64] = np.stack([half * np.array([-0.35, 0, 0.35]), np.full(3, top)], axis=1)
    xy[65:68] = np.stack([half * np.array([0.35, 0, -0.35]), np.full(3, bottom)], axis=1)
    return xy


def features(rng: np.random.Generator, xy: np.ndarray, skin: np.ndarray, hair: np.ndarray, side: int) -> np.ndarray:
    """Eyes, brows and mouth as a texture: (side, side, 4) uint8 RGB and opacity, spanning [-EXTENT, EXTENT]."""
    texels = np.zeros((side, side, 4), dtype=np.uint8)
    texels[..., :3] = _bytes(skin)[:3]
    scale = side / (2 * EXTENT)

    def fixed(points: np.ndarray) -> np.ndarray:
        return np.round(((points * [1, -1] + EXTENT) * scale - 0.5) * 16).astype(np.int32)

    def fill(points: np.ndarray, colour: np.ndarray) -> None:
        cv2.fillPoly(texels, [fixed(points)], _bytes(colour), cv2.LINE_AA, 4)

    def stroke(points: np.ndarray, colour: np.ndarray, width: float, closed: bool = False) -> None:
        thickness = max(1, round(width * scale))
        cv2.polylines(texels, [fixed(points)], closed, _bytes(colour), thickness, cv2.LINE_AA, 4)

    angle = np.linspace(0, 2 * np.pi, 24)
    around = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    iris = between(rng, np.array([[0.15, 0.09, 0.05], [0.35, 0.22, 0.1], [0.25, 0.4, 0.3], [0.3, 0.45, 0.6]]))
    gaze = rng.normal(0, 0.03, 2)
    lip = np.clip(skin * rng.uniform([0.85, 0.5, 0.5], [1.0, 0.72, 0.75]), 0, 1)
    bushy = rng.uniform(0.025, 0.06)
    for eye, brow in ((xy[36:42], xy[17:22]), (xy[42:48], xy[22:27])):
        middle = eye.mean(0)
        fill(middle + (eye - middle) * [1.3, 1.9], skin * 0.82)
        lids = np.zeros((side, side), dtype=np.uint8)
        cv2.fillPoly(lids, [fixed(eye)], 1, cv2.LINE_8, 4)
        x, y, w, h = cv2.boundingRect(lids)
        skin_kept, seen = texels[y : y + h, x : x + w].copy(), lids[y : y + h, x : x + w, None] > 0
        fill(eye, np.full(3, 0.9))
        for radius, colour in ((0.095, iris * 0.6), (0.08, iris), (0.04, iris * 0.1)):
            fill(middle + gaze + radius * around, colour)
        fill(middle + gaze + [0.03, 0.035] + 0.016 * around, np.ones(3))
        drawn = texels[y : y + h, x : x + w]
        drawn[:] = np.where(seen, drawn, skin_kept)
        stroke(eye[:4], skin * 0.25, 0.028)
        stroke(eye[[3, 4, 5, 0]], skin * 0.55, 0.012)
        outer_first = np.array([0.4, 0.9, 1.0, 1.0, 0.8])
        taper = bushy * (outer_first if brow[0, 0] < 0 else outer_first[::-1])[:, None] * [0, 1]
        fill(np.concatenate([brow + taper, (brow - taper)[::-1]]), 0.75 * hair + 0.1 * skin)
    fill(xy[48:60], lip)
    mouth = xy[60:68]
    fill(mouth, np.array([0.16, 0.05, 0.05]))
    if np.ptp(mouth[:, 1]) > 0.1 and rng.random() < 0.8:
        fill(np.concatenate([mouth[1:4], (mouth[1:4] - [0, 0.07])[::-1]]), np.array([0.92, 0.9, 0.84]))
    stroke(mouth[:5], lip * 0.5, 0.015)
    if rng.random() < 0.18:
        frame = any_colour(rng) * 0.5
        for first in (36, 42):
            stroke(xy[first : first + 6].mean(0) - [0, 0.03] + around * [0.33, 0.25], frame, 0.04, closed=True)
        stroke(np.array([[-0.12, 0.1], [0.12, 0.1]]), frame, 0.04)
    return texels


def _bytes(colour: np.ndarray) -> tuple[int, int, int, int]:
    """A colour in [0, 1] as opaque RGBA bytes."""
    r, g, b = (min(max(round(255 * c), 0), 255) for c in colour.tolist())
    return r, g, b, 255


def head(rng: np.random.Generator, s: float, skin: Paint, detail: int) -> tuple[Figure, np.ndarray, np.ndarray]:
    """A head in its own axes: x to its left, y up, z forward, origin between the ears.

    Args:
        rng: random numbers.
        s: half the width of the head, body units.
        skin: its paint.
        detail: side of the texture of the face, texels.

    Returns:
        the solids, (68, 3) landmarks just below the surface, (2, 3) left and right ear.
    """
    xy = landmarks(rng)
    hair = between(rng, HAIRS) if rng.random() < 0.93 else any_colour(rng)
    texels = features(rng, xy, skin.colour, hair, detail)
    drop = max(0.0, (xy[62, 1] - xy[66, 1]) * 0.6)
    beard = rng.random() < 0.15

    def painted(centre: np.ndarray, hairy: bool = False) -> Paint:
        decal = Decal(texels, EXTENT * s, tuple((-s * centre).tolist()))
        base = skin.colour * 0.35 + hair * 0.65 if hairy and beard else skin.colour
        return Paint(base, skin.second, skin.pattern, skin.grain, skin.grain_scale, skin.gloss, decal=decal)

    upright = np.eye(3)
    slim, chin = rng.uniform(0.8, 0.97), rng.uniform(0.9, 1.08)
    skull = (np.array([0, 0.42, -0.2]), np.array([1.0, 1.22, 1.22]))
    jaw = (np.array([0, -0.42 - drop / 2, 0.16]), np.array([slim, 1.06 * chin + drop / 2, 0.88]))
    tip = (np.array([0, -1.2 * chin - drop, 0.52]), np.array([0.46 * slim, 0.38, 0.4]))
    fig = Figure(())
    for centre, half in (skull, jaw, tip):
        fig.ball(s * centre, upright, tuple((s * half).tolist()), painted(centre, hairy=centre[1] < 0))
    bridge = rng.uniform(0.1, 0.14)
    z = fig.front(np.zeros(2), s * np.array([0.22, -0.36])) / s
    nose = np.array([0, -0.40, z[1] + rng.uniform(0.14, 0.24)])
    plain = Paint(skin.colour, skin.second, skin.pattern, skin.grain, skin.grain_scale, skin.gloss)
    fig.link(s * np.array([0, 0.24, z[0] - 0.1]), s * nose, (s * bridge * 0.8, s * 0.14), upright, plain)
    nostril = Paint(skin.colour * 0.35)
    for side in (-1, 1):
        wing = abs(xy[31, 0]) - 0.1
        fig.ball(s * (nose + np.array([side * wing, -0.06, -0.13])), upright, (s * 0.13, s * 0.11, s * 0.16), plain)
        fig.ball(
            s * (nose + np.array([side * wing * 0.7, -0.155, -0.03])), upright, (s * 0.055, s * 0.03, s * 0.06), nostril
        )

    points = np.column_stack([xy, np.full(68, np.nan)])
    points[:17] = _jaw_line((skull, jaw, tip))
    face = np.arange(17, 68)
    points[face, 2] = fig.front(s * xy[face, 0], s * xy[face, 1]) / s - 0.03
    ears = np.array([[1.0, 0.02, -0.1], [-1.0, 0.02, -0.1]])
    for ear in ears:
        fig.ball(s * ear, turn(y=20 * np.sign(ear[0])), (s * 0.11, s * 0.3, s * 0.19), plain)
    _hair(rng, fig, s, hair)
    return fig, s * points, s * ears


def _jaw_line(ellipsoids: tuple[tuple[np.ndarray, np.ndarray], ...]) -> np.ndarray:
    """(17, 3) landmarks of the jaw from right to left, just inside the outline of the solids."""
    middle = ellipsoids[1][0]
    angle = np.deg2rad(np.linspace(-28, 90, 9))
    z = 0.05 + 0.5 * np.clip(np.sin(angle), 0, 1) ** 2
    reach = np.zeros(9)
    ray = np.stack([-np.cos(angle), -np.sin(angle)], axis=1)
    for centre, half in ellipsoids:
        slice_size = 1 - ((z - centre[2]) / half[2]) ** 2
        q, d = (middle[:2] - centre[:2]) / half[:2], ray / half[:2]
        a, b, c = (d * d).sum(1), d @ q, q @ q - slice_size
        root = b * b - a * c
        reach = np.where(root > 0, np.maximum(reach, (np.sqrt(np.maximum(root, 0)) - b) / a), reach)
    right = np.column_stack([middle[:2] + ray * (0.97 * reach)[:, None], z])
    return np.concatenate([right, right[:-1][::-1] * [-1, 1, 1]])


def _hair(rng: np.random.Generator, fig: Figure, s: float, colour: np.ndarray) -> None:
    """Add hair: none, short, full, long or a hat."""
    upright = np.eye(3)
    strands = Paint(colour, colour * 0.6, blotches(0.5 * s, 0.5), 0.15, 0.25 * s, 0.25, field=1)
    style = rng.random()
    if style < 0.08:
        return
    line = rng.uniform(0.0, 0.16)
    thick = rng.uniform(0.03, 0.2)
    fig.ball(
        s * np.array([0, 0.6 + line, -0.42 + line]),
        upright,
        (s * (1.02 + thick), s * (1.15 + thick), s * 1.22),
        strands,
    )
    if style > 0.55:
        low = rng.uniform(-1.8, -0.4)
        fig.ball(s * np.array([0, (0.8 + low) / 2, -0.7]), upright, (s * 1.12, s * (0.9 - low) / 2, s * 0.75), strands)
        for side in (-1, 1):
            top, end = np.array([side * 0.95, 0.75, -0.1]), np.array([side * rng.uniform(0.9, 1.15), low, -0.25])
            fig.link(s * top, s * end, (s * 0.26, s * rng.uniform(0.1, 0.28)), upright, strands)
    elif style < 0.25:
        hat = cloth(rng)
        fig.ball(s * np.array([0, 0.95, -0.2]), upright, (s * 1.14, s * 0.98, s * 1.3), hat)
        if rng.random() < 0.6:
            fig.ball(s * np.array([0, 0.98, 0.75]), turn(x=8), (s * 0.85, s * 0.06, s * 0.85), hat)


def build(rng: np.random.Generator, pose: Pose = ANY) -> Body:
    """One head on shoulders, from frontal to nearly profile.

    Args:
        rng: random numbers.
        pose: replaces drawn angles: view (yaw, pitch, roll), which turns head and shoulders.
    """
    skin_colour = between(rng, SKINS)
    skin = Paint(
        skin_colour, skin_colour * [0.95, 0.8, 0.78], blotches(0.6, 0.3, 0.4), 0.03, 0.25, rng.uniform(0.1, 0.4)
    )
    fig, points, _ = head(rng, 1.0, skin, 320)
    frame = view(rng, rng.normal(0, 28), rng.normal(0, 12), 14, 0.06, pose)
    out = Figure(LANDMARKS)
    out.add(fig, frame, np.zeros(3))
    trunk = frame @ turn(y=rng.normal(0, 12), x=rng.normal(0, 8))
    core = len(out.solids)
    neck = frame @ np.array([0, -0.7, -0.35])
    base = out.limb(neck, trunk, 1.5, (0.62, 0.68), skin)
    shirt = cloth(rng)
    for side in (-1.0, 1.0):
        out.link(base, base + trunk @ np.array([side * 1.9, -0.55, -0.1]), (0.75, 0.7), trunk, shirt)
        out.limb(base + trunk @ np.array([side * 1.9, -0.55, -0.1]), trunk @ turn(z=side * 8), 3.0, (0.7, 0.6), shirt)
    out.ball(base + trunk @ np.array([0, -1.9, 0]), trunk, (2.1, 2.2, 1.0), shirt)
    for name, point in zip(LANDMARKS, points, strict=True):
        out.mark(name, frame @ point, 0.16)
    return out.body(core)


FACE = Subject("face", LANDMARKS, EDGES, build, (6.0, 14.0))
