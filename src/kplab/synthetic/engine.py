"""A small ray caster: bodies made of solids, their depth and identity per sample, and occlusion.

Two frames. *Body*: x to the viewer's right, y up, z towards the viewer, any unit. *Screen*: x right and y down in
samples (``SUPER`` samples a pixel on each axis, continuous coordinates), z towards the viewer in samples. Rays are
parallel on the screen; perspective is part of the map from body to screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kplab.synthetic.paint import Paint

SUPER = 2
"""Number of samples per pixel along each axis."""


@dataclass(frozen=True)
class Camera:
    """The map from a body's frame to the screen.

    Args:
        scale: samples per body unit, at z = 0.
        centre: (2,) position of the body's origin on the screen, samples.
        distance: of the camera from the origin, body units; nearer parts are drawn larger.
        depth: added to z, samples; bodies that overlap have well separated depths.
    """

    scale: float
    centre: tuple[float, float]
    distance: float
    depth: float = 0.0

    def zoom(self, points: np.ndarray) -> np.ndarray:
        """Samples per body unit at points (..., 3)."""
        return self.scale / (1.0 - points[..., 2] / self.distance)

    def screen(self, points: np.ndarray) -> np.ndarray:
        """Map body points (..., 3) to the screen."""
        zoom = self.zoom(points)
        x = self.centre[0] + zoom * points[..., 0]
        y = self.centre[1] - zoom * points[..., 1]
        return np.stack([x, y, self.depth + zoom * points[..., 2]], axis=-1)

    def spot(self, point: np.ndarray) -> tuple[float, float, float, float]:
        """``screen`` and ``zoom`` of a single point as Python floats, which is faster."""
        x, y, z = point.tolist()
        zoom = self.scale / (1.0 - z / self.distance)
        return self.centre[0] + zoom * x, self.centre[1] - zoom * y, self.depth + zoom * z, zoom

    def body(self, points: np.ndarray) -> np.ndarray:
        """Map screen points (3, N) to the body (3, N): the inverse of ``screen``, with one point per column."""
        x, y, rise = points[0] - self.centre[0], self.centre[1] - points[1], points[2] - self.depth
        z = rise / (self.scale + rise / self.distance)
        size = (1.0 - z / self.distance) / self.scale
        return np.stack([x * size, y * size, z])


@dataclass(frozen=True)
class Cone:
    """A limb: the convex hull of a ball at ``a`` and a ball at ``b``."""

    a: np.ndarray
    b: np.ndarray
    radius: tuple[float, float]
    frame: np.ndarray
    paint: Paint

    @property
    def origin(self) -> np.ndarray:
        """The centre of the first ball."""
        return self.a

    def placed(self, camera: Camera) -> Cone:
        """The cone on the screen; each end is scaled by its own distance."""
        ax, ay, az, near = camera.spot(self.a)
        bx, by, bz, far = camera.spot(self.b)
        radius = (self.radius[0] * near, self.radius[1] * far)
        return Cone(np.array([ax, ay, az]), np.array([bx, by, bz]), radius, _on_screen(self.frame), self.paint)

    def bounds(self) -> tuple[float, float, float, float]:
        """The box around the two balls."""
        (ax, ay, _), (bx, by, _), (ra, rb) = self.a, self.b, self.radius
        return min(ax - ra, bx - rb), min(ay - ra, by - rb), max(ax + ra, bx + rb), max(ay + ra, by + rb)

    def hit(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """z of the surface: the maximum over the balls with centres on the axis from a to b.

        With s along the axis on the screen, the ball at s has height ``m s + sqrt(C + 2 B s - A s^2)`` on a ray, which
        is concave for A > 0 and greatest at ``s = B / A + m sqrt((C + B^2 / A) / (A (A + m^2)))``. Otherwise one end
        ball covers the other on the screen, and the greatest height is at an end.
        """
        (ax, ay, az), (dx, dy, dz) = self.a.tolist(), (self.b - self.a).tolist()
        flat = math.hypot(dx, dy) + 1e-6
        ux, uy, m = dx / flat, dy / flat, dz / flat
        ra, grow = self.radius[0], self.radius[1] - self.radius[0]
        qx, qy = x - ax, y - ay
        along, across2 = qx * ux + qy * uy, (qx * uy - qy * ux) ** 2
        big_a = 1.0 - (grow / flat) ** 2
        if big_a < 0.02:
            ends = _ball(along**2 + across2, ra), dz + _ball((along - flat) ** 2 + across2, ra + grow)
            return az + np.maximum(*ends)
        middle = (along + ra * grow / flat) / big_a
        reach2 = np.maximum((ra * ra - across2 - along * along) / big_a + middle * middle, 0.0)
        t = (middle + np.sqrt(reach2) * (m / math.sqrt(big_a + m * m))) / flat
        t = np.minimum(np.maximum(t, 0.0), 1.0)
        return az + t * dz + _ball((along - t * flat) ** 2 + across2, ra + grow * t)

    def normal(self, points: np.ndarray) -> np.ndarray:
        """Unit vectors away from the axis."""
        d = (self.b - self.a).astype(points.dtype)
        away = points - self.a.astype(points.dtype)[:, None]
        # the axis as the surface's normal meets it: further towards the thick end than the foot of the perpendicular
        along = d / (d @ d + 1e-12) @ away
        off = away - d[:, None] * along
        slope = (self.radius[1] - self.radius[0]) / (d @ d + 1e-12)
        t = np.clip(along + slope * np.sqrt((off * off).sum(0)), 0.0, 1.0)
        return _unit(away - d[:, None] * t)


def _ball(distance2: np.ndarray, r: np.ndarray | float) -> np.ndarray:
    """Height of a ball of radius r above its centre, -inf outside of it."""
    h2 = r * r - distance2
    return np.where(h2 > 0, np.sqrt(np.maximum(h2, 0.0)), -np.inf)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (3, N) scaled to length 1."""
    x, y, z = vectors
    return vectors / (np.sqrt(x * x + y * y + z * z) + 1e-9)


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid with half axes ``half`` along the columns of ``frame``."""

    centre: np.ndarray
    half: tuple[float, float, float]
    frame: np.ndarray
    paint: Paint

    @property
    def origin(self) -> np.ndarray:
        """The centre."""
        return self.centre

    def placed(self, camera: Camera) -> Ellipsoid:
        """The solid on the screen, scaled by the distance of its centre."""
        x, y, z, zoom = camera.spot(self.centre)
        a, b, c = self.half
        return Ellipsoid(np.array([x, y, z]), (a * zoom, b * zoom, c * zoom), _on_screen(self.frame), self.paint)

    def bounds(self) -> tuple[float, float, float, float]:
        """The exact box around the ellipsoid."""
        rx, ry = np.linalg.norm(self.frame[:2] * np.array(self.half), axis=1)
        cx, cy = self.centre[:2]
        return cx - rx, cy - ry, cx + rx, cy + ry

    def hit(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """z of the surface: the nearer root of the quadric."""
        (xx, xy, xz), (_, yy, yz), (_, _, zz) = self._quadric().tolist()
        cx, cy, cz = self.centre.tolist()
        qx, qy = x - cx, y - cy
        half_b = (xz / zz) * qx + (yz / zz) * qy
        root = half_b * half_b - (xx / zz * qx + 2 * xy / zz * qy) * qx - (yy / zz * qy * qy - 1.0 / zz)
        return np.where(root > 0, cz - half_b + np.sqrt(np.maximum(root, 0.0)), -np.inf)

    def normal(self, points: np.ndarray) -> np.ndarray:
        """The gradient of the quadric."""
        away = points - self.centre.astype(points.dtype)[:, None]
        return _unit(self._quadric().astype(points.dtype) @ away)

    def _quadric(self) -> np.ndarray:
        return (self.frame / np.array(self.half) ** 2) @ self.frame.T


@dataclass(frozen=True)
class Box:
    """A box with half sides ``half`` along the columns of ``frame``."""

    centre: np.ndarray
    half: tuple[float, float, float]
    frame: np.ndarray
    paint: Paint

    @property
    def origin(self) -> np.ndarray:
        """The centre."""
        return self.centre

    def placed(self, camera: Camera) -> Box:
        """The solid on the screen, scaled by the distance of its centre."""
        x, y, z, zoom = camera.spot(self.centre)
        a, b, c = self.half
        return Box(np.array([x, y, z]), (a * zoom, b * zoom, c * zoom), _on_screen(self.frame), self.paint)

    def bounds(self) -> tuple[float, float, float, float]:
        """The box around the corners."""
        rx, ry = np.abs(self.frame[:2] * np.array(self.half)).sum(1)
        cx, cy = self.centre[:2]
        return cx - rx, cy - ry, cx + rx, cy + ry

    def hit(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """z of the surface: where the ray leaves the intersection of three slabs towards the viewer."""
        cx, cy, cz = self.centre.tolist()
        qx, qy = x - cx, y - cy
        leave, enter = [], []
        for (ax, ay, az), half in zip(self.frame.T.tolist(), self.half, strict=True):
            rise = az if abs(az) > 1e-6 else 1e-6
            middle = qx * (-ax / rise) - qy * (ay / rise)
            leave.append(middle + half / abs(rise))
            enter.append(middle - half / abs(rise))
        out, into = np.minimum.reduce(leave), np.maximum.reduce(enter)
        return np.where(out > into, cz + out, -np.inf)

    def normal(self, points: np.ndarray) -> np.ndarray:
        """The normal of the nearest side."""
        local = (self.frame / np.array(self.half)).T @ (points - self.centre[:, None])
        side = np.abs(local).argmax(0)
        return self.frame[:, side] * np.sign(local[side, np.arange(len(side))])


Solid = Cone | Ellipsoid | Box
"""One convex part of a body. Its paint is a function of points in ``frame`` (columns are its axes), from ``origin``.

``placed(camera)`` is the same solid on the screen, and ``bounds()`` a box (xyxy) around its outline there.
``hit(x, y)`` returns the (H, W) z of the surface for sample centres, e.g. (1, W) and (H, 1), -inf where the ray misses.
``normal(points)`` returns outward unit normals (3, N) at points (3, N) of the surface, in the solid's own frame.
"""


def _on_screen(frame: np.ndarray) -> np.ndarray:
    return frame * np.array([[1.0], [-1.0], [1.0]])


@dataclass
class Body:
    """A subject, or an object of the clutter.

    Args:
        solids: parts of the body, body frame.
        core: number of solids, from the first, that are the subject; the others are drawn with it (shoulders of a face).
        keypoints: (K, 3) body frame, each inside the solid it belongs to; (0, 3) for clutter.
        slack: (K,) largest distance of a keypoint's own surface in front of it; anything nearer to the viewer hides it.
    """

    solids: list[Solid]
    core: int
    keypoints: np.ndarray
    slack: np.ndarray

    def bounds(self, camera: Camera) -> np.ndarray:
        """(4,) xyxy of the subject on the screen, samples."""
        boxes = np.array([s.placed(camera).bounds() for s in self.solids[: self.core]])
        return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])


@dataclass
class Buffers:
    """The visible surface at each sample.

    Args:
        z: (H, W) float32, samples; -inf where there is no surface.
        part: (H, W) int16 index into ``solids``; -1 where there is no surface.
        solids: all solids of all bodies, body frame.
        owner: (len(solids) + 1,) int32 the body of each solid; the last entry is -1, for no surface.
        subject: like ``owner``, with -1 for solids that are not part of the subject.
    """

    z: np.ndarray
    part: np.ndarray
    solids: list[Solid]
    owner: np.ndarray
    subject: np.ndarray


def cast(bodies: Sequence[Body], cameras: Sequence[Camera], size: tuple[int, int]) -> Buffers:
    """Draw all bodies.

    Args:
        bodies: subjects and clutter.
        cameras: one per body.
        size: (width, height), samples.
    """
    width, height = size
    z = np.full((height, width), -np.inf, dtype=np.float32)
    part = np.full((height, width), -1, dtype=np.int16)
    solids: list[Solid] = []
    owner, subject = [], []
    columns = np.arange(width, dtype=np.float32)[None] + np.float32(0.5)
    rows = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)
    for i, (body, camera) in enumerate(zip(bodies, cameras, strict=True)):
        for j, solid in enumerate(body.solids):
            placed = solid.placed(camera)
            owner.append(i)
            subject.append(i if j < body.core else -1)
            solids.append(solid)
            x0, y0, x1, y1 = placed.bounds()
            c0, c1 = max(math.floor(x0), 0), min(math.ceil(x1), width)
            r0, r1 = max(math.floor(y0), 0), min(math.ceil(y1), height)
            if c0 >= c1 or r0 >= r1:
                continue
            window = np.s_[r0:r1, c0:c1]
            depth = placed.hit(columns[:, c0:c1], rows[r0:r1])
            near = depth > z[window]
            np.copyto(z[window], depth, where=near)
            np.copyto(part[window], len(solids) - 1, where=near)
    return Buffers(z, part, solids, np.array([*owner, -1], dtype=np.int32), np.array([*subject, -1], dtype=np.int32))


def visibility(body: Body, camera: Camera, index: int, buffers: Buffers) -> tuple[np.ndarray, np.ndarray]:
    """Positions and visibility of a body's keypoints.

    Args:
        body: the body.
        camera: with which it was drawn.
        index: of the body among those drawn.
        buffers: result of ``cast``.

    Returns:
        (K, 2) samples, and (K,) uint8: 2 visible, 1 occluded (also by the body itself), 0 outside of the image.
    """
    points = camera.screen(body.keypoints)
    height, width = buffers.z.shape
    column, row = (np.floor(points[:, i]).astype(np.int64) for i in (0, 1))
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = np.clip(column, 0, width - 1), np.clip(row, 0, height - 1)
    own = buffers.subject[buffers.part[row, column]] == index
    gap = buffers.z[row, column] - points[:, 2]
    seen = own & (gap <= body.slack * camera.zoom(body.keypoints) + 1.0)
    return points[:, :2], np.where(inside, np.where(seen, 2, 1), 0).astype(np.uint8)
