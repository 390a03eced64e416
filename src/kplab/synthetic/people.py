"""Clothed people in all orientations: the subject 'person' with the 17 keypoints of COCO."""

from __future__ import annotations

import numpy as np

from kplab.synthetic.engine import Body
from kplab.synthetic.figure import ANY, Figure, Pose, Subject, turn, view
from kplab.synthetic.heads import head
from kplab.synthetic.paint import SKINS, Paint, any_colour, between, cloth

KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
EDGES = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip

Ranges = dict[str, tuple[float, float]]

# degrees, (low, high): swing is forwards, lift is sideways away from the body, roll is about the limb itself
ARMS: dict[str, Ranges] = {
    "hanging": {"swing": (-25, 30), "lift": (6, 22), "roll": (-20, 30), "bend": (0, 45)},
    "working": {"swing": (0, 60), "lift": (8, 40), "roll": (-40, 40), "bend": (40, 115)},
    "reaching": {"swing": (70, 170), "lift": (0, 40), "roll": (-40, 40), "bend": (0, 60)},
    "spread": {"swing": (-15, 30), "lift": (50, 140), "roll": (-60, 90), "bend": (0, 80)},
    "akimbo": {"swing": (-25, 0), "lift": (35, 55), "roll": (-80, -55), "bend": (80, 110)},
    "any": {"swing": (-50, 170), "lift": (0, 120), "roll": (-90, 90), "bend": (0, 140)},
}
LEGS: dict[str, Ranges] = {
    "standing": {"swing": (-6, 8), "lift": (1, 10), "roll": (-5, 15), "bend": (0, 8)},
    "forward": {"swing": (15, 55), "lift": (0, 8), "roll": (-5, 10), "bend": (5, 60)},
    "back": {"swing": (-30, -5), "lift": (0, 8), "roll": (-5, 10), "bend": (10, 75)},
    "seated": {"swing": (75, 100), "lift": (2, 25), "roll": (-10, 20), "bend": (60, 105)},
    "crouched": {"swing": (85, 125), "lift": (5, 30), "roll": (-10, 25), "bend": (95, 140)},
    "astride": {"swing": (-10, 20), "lift": (15, 45), "roll": (0, 30), "bend": (0, 40)},
    "any": {"swing": (-30, 110), "lift": (0, 60), "roll": (-20, 40), "bend": (0, 120)},
}


def _pick(rng: np.random.Generator, table: dict[str, Ranges]) -> list[Ranges]:
    """Poses of the left and the right limb: often similar, in opposite phases when walking."""
    names = list(table)
    first = names[rng.integers(len(names))]
    opposite = {"forward": "back", "back": "forward"}
    second = opposite.get(first, first) if rng.random() < 0.65 else names[rng.integers(len(names))]
    return [table[first], table[second]]


def _draw(rng: np.random.Generator, ranges: Ranges) -> dict[str, float]:
    return {name: float(rng.uniform(*span)) for name, span in ranges.items()}


def _limb_frame(parent: np.ndarray, side: float, angle: dict[str, float]) -> np.ndarray:
    return parent @ turn(z=side * angle["lift"]) @ turn(x=-angle["swing"]) @ turn(y=side * angle["roll"])


def build(rng: np.random.Generator, pose: Pose = ANY) -> Body:
    """One person. Lengths are metres, before a common scale.

    Args:
        rng: random numbers.
        pose: replaces drawn angles: view (yaw, pitch, roll), trunk (lean), left_arm, right_arm, left_leg, right_leg
            (swing, lift, roll, bend). With lean the trunk is straight.
    """
    fig = Figure(KEYPOINTS)
    child = rng.random() < 0.15
    stout = rng.uniform(0.85, 1.35)
    limb = rng.normal(1, 0.05) * (0.8 if child else 1.0)
    skin_colour = between(rng, SKINS)
    skin = Paint(skin_colour, None, None, 0.04, 0.15, rng.uniform(0.05, 0.3))
    top, bottom = cloth(rng), cloth(rng)
    if rng.random() < 0.1:
        bottom = top
    yaw = rng.uniform(-60, 60) if rng.random() < 0.4 else rng.uniform(-180, 180)
    root = view(rng, yaw, rng.normal(6, 14), 8, 0.08, pose)

    crouch = rng.random() < 0.25
    trunk = root @ turn(x=rng.uniform(5, 50) if crouch else rng.normal(3, 7), z=rng.normal(0, 6))
    chest = trunk @ turn(x=rng.normal(4, 6), y=rng.normal(0, 14), z=rng.normal(0, 6))
    if "trunk" in pose:
        trunk = chest = root @ turn(x=pose["trunk"]["lean"])
    pelvis = np.zeros(3)
    waist = pelvis + trunk @ np.array([0, 0.17, 0])
    breast = waist + chest @ np.array([0, 0.2, 0])
    fig.ball(pelvis + trunk @ np.array([0, 0.03, -0.01]), trunk, (0.155 * stout, 0.13, 0.115 * stout), bottom)
    fig.ball(waist, trunk, (0.138 * stout, 0.17, 0.10 * stout), top)
    fig.ball(breast, chest, (0.165 * stout, 0.2, 0.115 * stout), top)
    neck = breast + chest @ np.array([0, 0.16, -0.01])
    for side in (-1.0, 1.0):
        fig.link(
            neck - 0.05 * chest[:, 1], breast + chest @ np.array([side * 0.135, 0.075, 0]), (0.06, 0.065), chest, top
        )
    _head(rng, fig, neck, chest, skin, rng.uniform(0.078, 0.088))

    shoulder = rng.uniform(0.165, 0.2) * (0.85 if child else 1.0)
    sleeve = float(rng.choice([0.0, 0.45, 1.4, 1.95], p=[0.1, 0.35, 0.2, 0.35]))
    for side, name, ranges in zip((1.0, -1.0), ("left", "right"), _pick(rng, ARMS), strict=True):
        at = breast + chest @ np.array([side * shoulder, 0.1, 0])
        angle = {**_draw(rng, ranges), **pose.get(f"{name}_arm", {})}
        _arm(fig, name, side, at, chest, angle, limb, stout, sleeve, (skin, top), rng.uniform(-30, 30))
    cut = float(rng.choice([0.35, 0.9, 1.95], p=[0.15, 0.25, 0.6]))
    skirt = rng.random() < 0.12
    shoes = Paint(any_colour(rng), gloss=0.3) if rng.random() < 0.9 else skin
    legs = _pick(rng, LEGS)
    for side, name, ranges in zip((1.0, -1.0), ("left", "right"), legs, strict=True):
        at = pelvis + trunk @ np.array([side * 0.095, -0.02, 0])
        angle = {**_draw(rng, ranges), **pose.get(f"{name}_leg", {})}
        _leg(fig, name, side, at, trunk, angle, limb, stout, cut, (skin, bottom, shoes))
    if skirt:
        middle = (fig.points["left_knee"] + fig.points["right_knee"]) / 2
        end = pelvis + (middle - pelvis) * rng.uniform(0.5, 0.95)
        fig.link(pelvis, end, (0.15 * stout, 0.2 * stout), trunk, bottom)
    return fig.body()


def _head(rng: np.random.Generator, fig: Figure, neck: np.ndarray, chest: np.ndarray, skin: Paint, s: float) -> None:
    frame = chest @ turn(x=rng.normal(0, 12), y=np.clip(rng.normal(0, 25), -70, 70), z=rng.normal(0, 8))
    middle = neck + chest @ np.array([0, 0.11, 0.01]) + frame @ np.array([0, 0.06, 0.01])
    fig.link(neck - 0.03 * chest[:, 1], middle - 0.4 * s * frame[:, 2], (0.055, 0.05), chest, skin)
    skull, points, ears = head(rng, s, skin, 128)
    fig.add(skull, frame, middle)
    spots = [points[30], points[42:48].mean(0), points[36:42].mean(0), *ears]
    for name, spot, slack in zip(KEYPOINTS[:5], spots, (0.4, 0.3, 0.3, 0.3, 0.3), strict=True):
        fig.mark(name, middle + frame @ spot, slack * s)


def _arm(
    fig: Figure, name: str, side: float, at: np.ndarray, chest: np.ndarray, angle: dict[str, float], limb: float,
    stout: float, sleeve: float, paints: tuple[Paint, Paint], wrist_turn: float,
) -> None:  # fmt: skip
    """Add an arm: upper arm, forearm and hand; ``sleeve`` is the length of the sleeve, in limbs."""
    skin, top = paints
    upper = _limb_frame(chest, side, angle)
    thick = 0.5 + 0.5 * stout
    lengths = (0.28 * limb, 0.25 * limb)
    radii = ((0.052 * thick, 0.040 * thick), (0.039 * thick, 0.027 * thick))
    fore = upper @ turn(x=-angle["bend"])
    elbow = _clothed(fig, at, upper, lengths[0], radii[0], min(sleeve, 1.0), skin, top)
    wrist = _clothed(fig, elbow, fore, lengths[1], radii[1], max(sleeve - 1, 0.0), skin, top)
    palm = fore @ turn(z=side * wrist_turn * 0.4, x=wrist_turn)
    fig.ball(wrist - 0.055 * limb * palm[:, 1], palm, (0.022, 0.06 * limb, 0.042), skin)
    knuckles = wrist - 0.09 * limb * palm[:, 1]
    fingers = fig.limb(knuckles, palm @ turn(x=-25), 0.05 * limb, (0.026, 0.02), skin)
    fig.limb(fingers, palm @ turn(x=-55), 0.03 * limb, (0.02, 0.015), skin)
    fig.limb(wrist - 0.03 * palm[:, 1], palm @ turn(x=-40), 0.06 * limb, (0.016, 0.012), skin)
    fig.mark(f"{name}_shoulder", at, 0.105 * stout)
    fig.mark(f"{name}_elbow", elbow, 0.068 * thick)
    fig.mark(f"{name}_wrist", wrist, 0.05 * thick)


def _leg(
    fig: Figure, name: str, side: float, at: np.ndarray, trunk: np.ndarray, angle: dict[str, float], limb: float,
    stout: float, cut: float, paints: tuple[Paint, Paint, Paint],
) -> None:  # fmt: skip
    """Add a leg: thigh, shin and foot; ``cut`` is the length of the trousers, in limbs."""
    skin, bottom, shoes = paints
    thick = 0.4 + 0.6 * stout
    thigh = _limb_frame(trunk, side, angle)
    shin = thigh @ turn(x=angle["bend"])
    radii = ((0.088 * thick, 0.055 * thick), (0.055 * thick, 0.036 * thick))
    knee = _clothed(fig, at, thigh, 0.42 * limb, radii[0], min(cut, 1.0), skin, bottom)
    ankle = _clothed(fig, knee, shin, 0.40 * limb, radii[1], max(cut - 1, 0.0), skin, bottom)
    foot = shin @ turn(x=-8, y=side * 8)
    heel = ankle + foot @ np.array([0, -0.045, -0.03])
    fig.link(heel, ankle + foot @ np.array([0, -0.06, 0.13]) * limb, (0.038, 0.028), foot, shoes)
    fig.link(ankle, heel, (0.036 * thick, 0.036), foot, shoes)
    fig.mark(f"{name}_hip", at, 0.16 * stout)
    fig.mark(f"{name}_knee", knee, 0.085 * thick)
    fig.mark(f"{name}_ankle", ankle, 0.065 * thick)


def _clothed(
    fig: Figure, a: np.ndarray, frame: np.ndarray, length: float, radius: tuple[float, float], share: float,
    skin: Paint, cover: Paint,
) -> np.ndarray:  # fmt: skip
    """Add a limb of skin whose first part is covered by cloth; returns its end."""
    b = fig.limb(a, frame, length, radius, skin)
    if share > 0.05:
        taper = radius[0] + (radius[1] - radius[0]) * share
        fig.limb(a, frame, length * share, (radius[0] * 1.12, taper * 1.22), cover)
    return b


PERSON = Subject("person", KEYPOINTS, EDGES, build, (3.0, 9.0))
