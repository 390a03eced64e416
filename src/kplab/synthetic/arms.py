"""Small robot arms: the subject 'arm' with six keypoints from the base to the tips of a gripper."""

from __future__ import annotations

import numpy as np

from kplab.synthetic.engine import Body
from kplab.synthetic.figure import ANY, Figure, Pose, Subject, turn, view
from kplab.synthetic.paint import Paint, any_colour, blotches, hsv, stripes

KEYPOINTS = ("base", "shoulder", "elbow", "wrist", "fixed_tip", "moving_tip")
EDGES = ((0, 1), (1, 2), (2, 3), (3, 4), (3, 5))


def build(rng: np.random.Generator, pose: Pose = ANY) -> Body:
    """One robot arm on its base. The gripper has a wide fixed jaw and a thin jaw on a hinge.

    Args:
        rng: random numbers.
        pose: replaces drawn angles: view (yaw, pitch, roll), joints (turret, shoulder, elbow, wrist, grip, jaw). Turret and
            grip turn about the link, shoulder, elbow and wrist about the turret's x axis, and the jaw about its hinge.
    """
    joints = pose.get("joints", {})
    fig = Figure(KEYPOINTS)
    shell = hsv(float(rng.choice([0.07, 0.13, 0.6, 0.0, 0.35])), rng.uniform(0.6, 0.95), rng.uniform(0.5, 0.95))
    if rng.random() < 0.45:
        shell = np.full(3, rng.uniform(0.15, 0.95))
    worn = Paint(shell, shell * 0.6, blotches(0.25, 0.25), 0.05, 0.3, rng.uniform(0.1, 0.6))
    second = Paint(any_colour(rng), gloss=0.3) if rng.random() < 0.5 else worn
    steel = Paint(np.full(3, rng.uniform(0.1, 0.6)), grain=0.05, gloss=0.7)
    hazard = Paint(shell, np.full(3, 0.08), stripes(np.array([0.0, 1.0, 0.0]), rng.uniform(0.05, 0.12)), gloss=0.3)
    root = view(rng, rng.uniform(-180, 180), rng.uniform(-5, 50), 10, 0.12, pose)
    thick = rng.uniform(0.8, 1.25)
    boxy = rng.random() < 0.5

    foot = rng.uniform(0.2, 0.3)
    turret = root @ turn(y=joints.get("turret", rng.uniform(-180, 180)))
    base = np.zeros(3)
    fig.box(base - root[:, 1] * 0.07, root, (foot, 0.06, foot * rng.uniform(0.8, 1.3)), steel)
    shoulder = base + root[:, 1] * rng.uniform(0.22, 0.32)
    fig.link(base, shoulder, (0.15 * thick, 0.11 * thick), turret, worn)
    fig.mark("base", base, 0.24 * thick)
    upper = turret @ turn(x=180 + joints.get("shoulder", rng.uniform(-60, 60)))
    fore = upper @ turn(x=joints.get("elbow", rng.choice([-1.0, 1.0]) * rng.uniform(15, 135)))
    hand = fore @ turn(x=joints.get("wrist", rng.uniform(-80, 80)))
    lengths = rng.uniform(0.4, 0.65, 2)
    elbow = _link(fig, shoulder, upper, lengths[0], 0.085 * thick, worn, boxy)
    wrist = _link(fig, elbow, fore, lengths[1], 0.068 * thick, hazard if rng.random() < 0.25 else second, boxy)
    for name, at, frame, radius in (
        ("shoulder", shoulder, upper, 0.11), ("elbow", elbow, fore, 0.095), ("wrist", wrist, hand, 0.075),
    ):  # fmt: skip
        across = frame[:, 0] * radius * thick * 1.15
        fig.link(at - across, at + across, (radius * thick * 0.95,) * 2, frame, steel)
        fig.mark(name, at, radius * thick * 2.6)
    grip = hand @ turn(y=joints.get("grip", rng.uniform(-180, 180)))
    _gripper(rng, fig, wrist, grip, thick, worn, steel, joints.get("jaw"))
    return fig.body()


def _link(
    fig: Figure, a: np.ndarray, frame: np.ndarray, length: float, radius: float, paint: Paint, boxy: bool
) -> np.ndarray:
    """Add a box or a tapered tube between two joints; returns its end."""
    b = a - length * frame[:, 1]
    if boxy:
        fig.box((a + b) / 2, frame, (radius * 0.9, length / 2, radius * 0.75), paint)
    else:
        fig.link(a, b, (radius * 1.1, radius * 0.8), frame, paint)
    return b


def _gripper(
    rng: np.random.Generator,
    fig: Figure,
    wrist: np.ndarray,
    frame: np.ndarray,
    thick: float,
    shell: Paint,
    steel: Paint,
    opening: float | None,
) -> None:
    """Add the gripper: its body, the fixed jaw on +x, and the moving jaw with its motor on -x."""
    length = rng.uniform(0.2, 0.3)
    block = wrist - 0.11 * frame[:, 1]
    fig.link(wrist, block, (0.06 * thick, 0.06 * thick), frame, shell)
    fig.box(block, frame, (0.11 * thick, 0.05, 0.065 * thick), shell)
    jaw = block + frame @ np.array([0.085 * thick, -0.02, 0])
    tip = jaw - length * frame[:, 1]
    fig.box((jaw + tip) / 2, frame, (0.022, length / 2, 0.05 * thick), shell)
    fig.link(tip + 0.02 * frame[:, 1], tip, (0.028, 0.022), frame, steel)
    fig.mark("fixed_tip", tip, 0.07 * thick)
    hinge = block + frame @ np.array([-0.085 * thick, -0.02, 0])
    across = 0.07 * thick * frame[:, 2]
    fig.link(hinge - across, hinge + across, (0.045 * thick,) * 2, frame, steel)
    drawn = rng.uniform(-55, 8)
    swung = frame @ turn(z=drawn if opening is None else opening)
    moving = fig.limb(hinge, swung, length, (0.026, 0.016), steel)
    fig.mark("moving_tip", moving, 0.05)


ARM = Subject("arm", KEYPOINTS, EDGES, build, (3.0, 9.0))
