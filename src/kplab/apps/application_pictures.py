"""Pictures of the applications: feedback on an exercise, a pose beside its template, glasses on a head, alarms of an arm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kplab.applications import joint_angles, overlay
from kplab.applications.joint_angles import Joint
from kplab.applications.repetitions import Counted
from kplab.applications.template_pose import Comparison
from kplab.ops import affine
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton
from kplab.viz import feedback
from kplab.viz import poses as drawing

WHITE, YELLOW, RED = (255, 255, 255), (240, 200, 40), (230, 60, 40)


def exercise(
    image: np.ndarray, xy: np.ndarray, sigma: np.ndarray, skeleton: Skeleton, joints: Sequence[Joint], counted: Counted,
    time: float, low: float, scale: float = 2.0,
) -> np.ndarray:  # fmt: skip
    """A frame with the pose, its angles, the number of repetitions until then, and whether they were deep enough.

    Args:
        image: (H, W, 3) uint8 RGB.
        xy: (K, 2) keypoints, pixels of the image; NaN where not seen.
        sigma: (K,) their standard deviations.
        skeleton: names of the keypoints.
        joints: angles to show; green below ``low``.
        counted: repetitions of the whole recording.
        time: of the frame, seconds.
        low: degrees that a repetition goes below.
        scale: output pixels per image pixel.
    """
    degrees, spread = joint_angles.angles(xy, skeleton, joints, sigma)
    drawn = drawing.draw(image, Poses.make(xy[None]), skeleton, scale=scale)
    rows = np.array([joint.rows(skeleton) for joint in joints])
    labels = [f"{d:.0f}° ±{s:.0f}°" if np.isfinite(d) else "" for d, s in zip(degrees, spread, strict=True)]
    colours = [feedback.RIGHT if d < low else feedback.NEUTRAL for d in degrees]
    drawn = feedback.arcs(drawn, xy[rows] * scale, labels, colours, 11 * scale)
    done = [r for r in counted.complete if r.end <= time]
    short = [r for r in counted.partial if r.end <= time]
    lines = [(f"{len(done)} repetitions", feedback.RIGHT)]
    if short:
        lines.append((f"{len(short)} not deep enough", feedback.WRONG))
        if max(r.end for r in short) > max((r.end for r in done), default=0.0):
            lines.append((f"go lower: {short[-1].degrees:.0f}°, aim for {low:.0f}°", feedback.WRONG))
    return feedback.captioned(drawn, lines)


def beside_template(
    image: np.ndarray,
    xy: np.ndarray,
    skeleton: Skeleton,
    found: Comparison,
    tolerance: float = 10.0,
    scale: float = 2.0,
) -> np.ndarray:
    """A pose with its template in white, angles of the joints to correct, and what to correct.

    Args:
        image: (H, W, 3) uint8 RGB.
        xy: (K, 2) keypoints, pixels of the image.
        skeleton: names of the keypoints.
        found: the comparison.
        tolerance: degrees that are accepted.
        scale: output pixels per image pixel.
    """
    drawn = drawing.draw(image, Poses.make(found.aligned[None]), skeleton, scale=scale, colour=WHITE, mark=2.0)
    drawn = drawing.draw(drawn, Poses.make(xy[None] * scale), skeleton)
    wrong = found.wrong(tolerance)
    rows = np.array([joint.rows(skeleton) for joint in found.joints])[wrong]
    labels = [f"{d:+.0f}°" for d in found.difference[wrong]]
    drawn = feedback.arcs(drawn, xy[rows] * scale, labels, [feedback.WRONG] * len(labels), 11 * scale)
    if not found.comparable():
        return feedback.captioned(drawn, [("another pose than the template", feedback.NEUTRAL)])
    advice = [(text, feedback.WRONG) for text in found.advice(tolerance)] or [("as in the template", feedback.RIGHT)]
    return feedback.captioned(drawn, advice)


def glasses(model: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Points (P, 3) and edges of a pair of glasses for a head of 68 landmarks, in the head's axes (y up, z forward)."""
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = np.stack([np.cos(turn), 0.75 * np.sin(turn), np.zeros(16)], axis=-1)
    eyes = np.stack([model[36:42].mean(0), model[42:48].mean(0)])
    width = np.linalg.norm(eyes[1] - eyes[0])
    front = np.array([0, 0, 0.12 * width])
    lenses = [eye + front + 0.36 * width * ring for eye in eyes]
    edges = [(16 * n + i, 16 * n + (i + 1) % 16) for n in (0, 1) for i in range(16)]
    # the bridge joins the points of the lenses that are nearest to each other, the temples go back from the farthest
    inner = [int(np.abs(lens[:, 0] - other[0]).argmin()) for lens, other in zip(lenses, eyes[::-1], strict=True)]
    outer = [(i + 8) % 16 for i in inner]
    ends = [lens[o] - [0, 0, 1.3 * width] for lens, o in zip(lenses, outer, strict=True)]
    edges += [(inner[0], 16 + inner[1]), (outer[0], 32), (16 + outer[1], 33)]
    return np.concatenate([*lenses, np.array(ends)]), edges


def with_glasses(
    image: np.ndarray, pose: overlay.CameraPose | None, model: np.ndarray, scale: float = 1.5
) -> np.ndarray:
    """An image with glasses on a head and a box around it; as it is where there is no pose.

    Args:
        image: (H, W, 3) uint8 RGB.
        pose: of the head.
        model: (68, 3) landmarks in the head's axes.
        scale: output pixels per image pixel.
    """
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    canvas = affine.warp(image, affine.scaling(scale, scale), size)
    if pose is None:
        return canvas
    corners, sides = overlay.box_corners(model.min(0), model.max(0))
    canvas = overlay.wireframe(canvas, pose.project(corners) * scale, sides, [YELLOW] * len(sides), 1)
    points, edges = glasses(model)
    # the head hides the temple of its far side
    edges = [(a, b) for a, b in edges if b < 32 or np.sign(points[b, 0]) * pose.rotation[2, 0] < 0.15]
    return overlay.wireframe(canvas, pose.project(points) * scale, edges, [RED] * len(edges), 3)


def arm_alarms(
    image: np.ndarray, xy: np.ndarray, commanded: np.ndarray, skeleton: Skeleton, names: Sequence[str],
    deviation: np.ndarray, sigma: np.ndarray, alarms: np.ndarray, scale: float = 2.0,
) -> np.ndarray:  # fmt: skip
    """A frame of an arm: predicted keypoints, where they should be in white, and the deviation of each joint.

    Args:
        image: (H, W, 3) uint8 RGB.
        xy: (K, 2) predicted keypoints, pixels of the image.
        commanded: (K, 2) keypoints at the commanded angles; NaN where there is none.
        skeleton: names of the keypoints.
        names: of the J joints.
        deviation: (J,) degrees; NaN where not seen.
        sigma: (J,) standard deviations.
        alarms: (J,) bool.
        scale: output pixels per image pixel.
    """
    drawn = drawing.draw(image, Poses.make(commanded[None]), skeleton, scale=scale, colour=WHITE, mark=2.5)
    drawn = drawing.draw(drawn, Poses.make(xy[None] * scale), skeleton)
    lines = []
    for name, d, s, alarm in zip(names, deviation, sigma, alarms, strict=True):
        text = f"{name} {d:+.1f}° ±{s:.1f}°" if np.isfinite(d) else f"{name} not seen"
        lines.append((f"{text}  ALARM" if alarm else text, feedback.WRONG if alarm else feedback.RIGHT))
    return feedback.captioned(drawn, lines, 13)
