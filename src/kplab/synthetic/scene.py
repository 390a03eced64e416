"""One image: subjects, clutter in front of and behind them, and their true keypoints."""

from __future__ import annotations

import cv2
import numpy as np

from kplab.errors import ConfigError
from kplab.structures.poses import Poses
from kplab.synthetic import photo
from kplab.synthetic.arms import ARM
from kplab.synthetic.engine import SUPER, Body, Buffers, Camera, cast, visibility
from kplab.synthetic.figure import Figure, Subject, turn
from kplab.synthetic.hands import HAND
from kplab.synthetic.heads import FACE
from kplab.synthetic.paint import SKINS, Noise, Paint, between, cloth
from kplab.synthetic.people import PERSON
from kplab.synthetic.quadrupeds import QUADRUPED

SUBJECTS = {s.name: s for s in (PERSON, HAND, FACE, QUADRUPED, ARM)}

SEEN_SHARE = 0.3
"""Minimum fraction of visible keypoints of a subject; subjects with fewer are removed."""

Polygons = list[list[np.ndarray]]


def subjects() -> list[str]:
    """Names of the subjects that can be rendered."""
    return list(SUBJECTS)


def find_subject(name: str) -> Subject:
    """The description of a subject.

    Raises:
        ConfigError: the name is unknown.
    """
    if name not in SUBJECTS:
        raise ConfigError(f"synthetic subject '{name}' is unknown. Choose one of: {', '.join(SUBJECTS)}.")
    return SUBJECTS[name]


def keypoints(subject: str | Subject, rng: np.random.Generator, size: tuple[int, int] = (256, 256)) -> np.ndarray:
    """True keypoints of one subject as ``render`` places it, without drawing it.

    Args:
        subject: one of ``subjects()``, or a description.
        rng: random numbers.
        size: (width, height) of the image, pixels.

    Returns:
        (K, 2) continuous pixels; hidden keypoints are included, and some may lie outside of the image.
    """
    what = subject if isinstance(subject, Subject) else find_subject(subject)
    ((body, camera),), _ = _place(rng, what, (size[0] * SUPER, size[1] * SUPER), 1, True)
    found: np.ndarray = camera.screen(body.keypoints)[:, :2] / SUPER
    return found


def render(
    subject: str | Subject,
    rng: np.random.Generator,
    size: tuple[int, int] = (256, 256),
    max_subjects: int = 3,
    clean: bool = False,
) -> tuple[np.ndarray, Poses, Polygons]:
    """Render one image with 1 to ``max_subjects`` subjects.

    Args:
        subject: one of ``subjects()``, or a description.
        rng: random numbers; the same state gives the same image.
        size: (width, height), pixels.
        max_subjects: largest number of subjects; 1 gives exactly one.
        clean: without blur, noise and compression.

    Returns:
        (H, W, 3) uint8 RGB; the true poses, continuous pixels, with boxes and areas of the visible part of each
        subject; and for each subject the polygons (P, 2) around its visible parts, continuous pixels, holes filled.

    Raises:
        ConfigError: the subject is unknown, or the size or the number of subjects is invalid.
    """
    what = subject if isinstance(subject, Subject) else find_subject(subject)
    if max_subjects < 1 or min(size) < 32:
        raise ConfigError(
            "synthetic images need max_subjects >= 1 and sides of 32 pixels or more, but got "
            f"max_subjects={max_subjects} and size={size}."
        )
    samples = (size[0] * SUPER, size[1] * SUPER)
    bodies, cameras, count, buffers = _compose(rng, what, samples, max_subjects)
    noise = Noise(rng)
    colour, alpha, light = photo.shade(rng, buffers, cameras, noise)
    image = photo.cast_shadow(rng, photo.background(rng, size, noise), alpha, light)
    image = image * (1 - alpha[..., None]) + colour
    poses, polygons = truth(bodies[:count], cameras[:count], buffers)
    return photo.quantise(image) if clean else photo.expose(rng, image), poses, polygons


def truth(bodies: list[Body], cameras: list[Camera], buffers: Buffers) -> tuple[Poses, Polygons]:
    """Keypoints, visibility, boxes, areas and outlines of the first bodies of an image, continuous pixels."""
    xy, visible, boxes, areas, polygons = [], [], [], [], []
    owner = buffers.subject[buffers.part]
    for i, (body, camera) in enumerate(zip(bodies, cameras, strict=True)):
        points, v = visibility(body, camera, i, buffers)
        mask = _without_specks((owner == i).astype(np.uint8))
        seen = np.flatnonzero(v == 2)
        column, row = np.floor(points[seen]).astype(np.int64).T
        v[seen[mask[row, column] == 0]] = 1
        xy.append(points / SUPER)
        visible.append(v)
        x, y, w, h = cv2.boundingRect(mask)
        boxes.append(np.array([x, y, x + w, y + h]) / SUPER)
        areas.append(mask.sum() / SUPER**2)
        polygons.append(_outlines(mask[y : y + h, x : x + w], (x, y)))
    return Poses.make(np.array(xy), np.array(visible), box=np.array(boxes), area=np.array(areas, dtype=float)), polygons


def _without_specks(mask: np.ndarray) -> np.ndarray:
    """The mask without connected parts smaller than a pixel, which an annotator would not outline."""
    x, y, w, h = cv2.boundingRect(mask)
    window = mask[y : y + h, x : x + w]
    count, label, stats, _ = cv2.connectedComponentsWithStats(window, connectivity=8, ltype=cv2.CV_16U)
    for speck in np.flatnonzero(stats[:count, cv2.CC_STAT_AREA] < SUPER**2):
        window[label == speck] = 0
    return mask


def _outlines(mask: np.ndarray, corner: tuple[int, int]) -> list[np.ndarray]:
    """Polygons (P, 2) around the parts of a mask of samples with the given corner; continuous pixels."""
    # contours run through the centres of the outermost cells: doubling the resolution recovers the cells' borders
    halved = mask.repeat(2, axis=0).repeat(2, axis=1)
    found, _ = cv2.findContours(halved, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    parts = [(cv2.approxPolyDP((c + 1) // 2, 0.6, True)[:, 0] + np.array(corner)) / SUPER for c in found]
    return [p for p in parts if len(p) >= 3]


def _compose(
    rng: np.random.Generator, what: Subject, samples: tuple[int, int], max_subjects: int
) -> tuple[list[Body], list[Camera], int, Buffers]:
    """Bodies and cameras, subjects first, and the number of subjects; enough of every subject is visible."""
    extent = max(samples)
    while True:
        wanted = int(rng.integers(1, max_subjects + 1))
        figures, boxes = _place(rng, what, samples, wanted, max_subjects == 1)
        behind = []
        for _ in range(rng.integers(0, 6)):
            centre, reach = rng.uniform((0, 0), samples), rng.uniform(0.04, 0.22) * extent
            behind.append(_clutter(rng, centre, reach, -100.0 * extent))
        before = []
        for _ in range(rng.choice(4, p=[0.4, 0.3, 0.2, 0.1])):
            x0, y0, x1, y1 = boxes[int(rng.integers(len(boxes)))]
            centre, reach = rng.uniform((x0, y0), (x1, y1)), rng.uniform(0.09, 0.22) * np.sqrt((x1 - x0) * (y1 - y0))
            before.append(_clutter(rng, centre, reach, 100.0 * extent))
        while figures:
            bodies, cameras = (list(column) for column in zip(*figures, *behind, *before, strict=True))
            buffers = cast(bodies, cameras, samples)
            seen = [(visibility(bodies[i], cameras[i], i, buffers)[1] == 2).mean() for i in range(len(figures))]
            if min(seen) >= SEEN_SHARE:
                return bodies, cameras, len(figures), buffers
            # first remove the clutter in front, then the least visible subject
            if before:
                before = []
            else:
                figures.pop(int(np.argmin(seen)))


def _place(
    rng: np.random.Generator, what: Subject, samples: tuple[int, int], wanted: int, alone: bool
) -> tuple[list[tuple[Body, Camera]], list[np.ndarray]]:
    """Place subjects of sufficient size, complete or cut off a little, with limited overlap, each at its own depth.

    Returns:
        bodies with their cameras, and their boxes xyxy in samples.
    """
    placed: list[tuple[Body, Camera]] = []
    boxes: list[np.ndarray] = []
    low, high = (0.6, 1.0) if alone else ((0.4, 1.0), (0.32, 0.75), (0.28, 0.6))[min(wanted, 3) - 1]
    for layer in rng.permutation(wanted):
        body = what.build(rng)
        centres = np.array([s.origin for s in body.solids])
        distance = 2 * rng.uniform(*what.distance) * float(np.linalg.norm(centres - centres.mean(0), axis=1).max())
        box = body.bounds(Camera(1.0, (0.0, 0.0), distance))
        scale = rng.uniform(low, high) * min(samples) / (box[2:] - box[:2]).max()
        size = scale * (box[2:] - box[:2])
        cut = rng.random() < (0.1 if alone else 0.2)
        room = np.maximum(np.array(samples) - size, 0.05 * size) + (0.5 * size if cut else 0.0)
        for _ in range(12):
            corner = (np.array(samples) - size + rng.uniform(-1, 1, 2) * room) / 2
            there = np.concatenate([corner, corner + size])
            if all(_overlap(there, other) < 0.45 for other in boxes):
                x, y = (corner - scale * box[:2]).tolist()
                placed.append((body, Camera(float(scale), (x, y), distance, 5.0 * max(samples) * float(layer))))
                boxes.append(there)
                break
    return placed, boxes


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over the area of the smaller box."""
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    return float(sides.prod() / min((a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod()))


def _clutter(rng: np.random.Generator, centre: np.ndarray, reach: float, depth: float) -> tuple[Body, Camera]:
    """An object of the clutter: a ball, a box or a jointed rod in cloth or skin colours; sizes in samples."""
    fig = Figure(())
    paint = cloth(rng) if rng.random() < 0.8 else Paint(between(rng, SKINS))
    frame = turn(*rng.uniform(-180, 180, 3))
    kind = rng.random()
    if kind < 0.3:
        fig.box(np.zeros(3), frame, tuple(rng.uniform(0.25, 1, 3).tolist()), paint)
    elif kind < 0.5:
        fig.ball(np.zeros(3), frame, tuple(rng.uniform(0.3, 1, 3).tolist()), paint)
    else:
        at = np.zeros(3)
        thick = float(rng.uniform(0.06, 0.25))
        for _ in range(rng.integers(1, 4)):
            at = fig.limb(at, frame, float(rng.uniform(0.5, 1.2)), (thick, thick * 0.8), paint)
            frame, thick = frame @ turn(*rng.normal(0, 35, 3)), thick * 0.8
    x, y = centre.tolist()
    return fig.body(), Camera(float(reach), (x, y), 20.0, depth * float(rng.uniform(1.0, 1.5)))
