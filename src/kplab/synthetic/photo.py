"""Backgrounds, light and shadow, and the imperfections of lenses, sensors and compression."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kplab.synthetic.engine import SUPER, Buffers, Camera
from kplab.synthetic.paint import Noise, any_colour


def background(rng: np.random.Generator, size: tuple[int, int], noise: Noise) -> np.ndarray:
    """(H, W, 3) float32 background in [0, 1]: mixed colours, sometimes a floor or a patterned wall, shapes, texture."""
    width, height = size
    u, v = np.meshgrid(np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32))
    colours = np.array([any_colour(rng) for _ in range(4)], dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = 0.5 + 0.5 * np.clip(np.cos(angle) * u + np.sin(angle) * v, -1, 1)[..., None]
    image = colours[0] * ramp + colours[1] * (1 - ramp)
    image = image + (colours[2] - image) * np.clip(
        0.5 + rng.uniform(0.3, 3) * noise.picture(rng, size, 2 ** rng.uniform(-0.5, 2.5), 0), 0, 1
    )
    if rng.random() < 0.5:
        image = _floor(rng, image, u, v, colours[3])
    if rng.random() < 0.35:
        turned = (np.cos(angle) * u - np.sin(angle) * v, np.sin(angle) * u + np.cos(angle) * v)
        period = rng.uniform(0.06, 0.5)
        wave = np.sin(2 * np.pi * turned[0] / period) > rng.uniform(-0.3, 0.9)
        if rng.random() < 0.5:
            wave |= np.sin(2 * np.pi * turned[1] / (period * rng.uniform(0.5, 2))) > 0.8
        image = image + (colours[rng.integers(4)] - image) * (rng.uniform(0.2, 0.8) * wave)[..., None]
    image = _shapes(rng, np.ascontiguousarray(image, dtype=np.float32))
    image = image * (1 + rng.uniform(0.05, 0.35) * noise.picture(rng, size, 2 ** rng.uniform(-0.5, 1.5), 3))
    if rng.random() < 0.45:
        sigma = rng.uniform(0.5, 0.012 * max(size))
        image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma)
    return np.clip(image, 0.0, 1.0).astype(np.float32)


def _floor(rng: np.random.Generator, image: np.ndarray, u: np.ndarray, v: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Draw a plane below a tilted horizon, with or without tiles."""
    below = v - rng.uniform(-0.4, 0.7) - rng.normal(0, 0.15) * u
    far = np.maximum(below, 0.02)
    mix = np.full_like(u, 0.8)
    if rng.random() < 0.6:
        period = rng.uniform(0.3, 1.2)
        mix = 0.55 + 0.35 * np.sign(np.sin(np.pi * (u / far) / period) * np.sin(np.pi * (1.0 / far) / period))
    weight = np.clip(below / 0.01, 0, 1) * mix
    return image + (colour - image) * weight[..., None]


def _shapes(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Draw rods, blobs and polygons of any colour, some of them transparent."""
    height, width = image.shape[:2]
    extent = np.array([width, height])
    for _ in range(rng.integers(3, 22)):
        colour = any_colour(rng).tolist()
        layer = image if rng.random() < 0.7 else image.copy()
        at = rng.uniform(-0.1, 1.1, 2) * extent
        reach = rng.uniform(0.02, 0.3) * max(width, height)
        kind = rng.random()
        if kind < 0.4:
            spokes = rng.integers(3, 7)
            angle = np.sort(rng.uniform(0, 2 * np.pi, spokes))
            ring = at + reach * rng.uniform(0.4, 1, (spokes, 1)) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
            cv2.fillPoly(layer, [np.round(ring * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)
        elif kind < 0.6:
            axes = (reach * rng.uniform(0.2, 1, 2) * 16).astype(int)
            cv2.ellipse(
                layer, tuple((at * 16).astype(int).tolist()), tuple(axes.tolist()), rng.uniform(0, 180), 0, 360, colour,
                -1, cv2.LINE_AA, 4,
            )  # fmt: skip
        else:
            way = at + np.cumsum(rng.normal(0, reach, (rng.integers(2, 5), 2)), axis=0)
            thick = int(rng.integers(1, max(3, round(0.05 * max(width, height)))))
            cv2.polylines(layer, [np.round(way * 16).astype(np.int32)], False, colour, thick, cv2.LINE_AA, 4)
        if layer is not image:
            image = cv2.addWeighted(layer, 0.5, image, 0.5, 0)
    return image


def shade(
    rng: np.random.Generator, buffers: Buffers, cameras: list[Camera], noise: Noise
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours of all solids, lit from one side; one ray per pixel where a single solid fills it, else one per sample.

    Returns:
        (H, W, 3) float32 colours times opacity, (H, W) float32 opacity, both per pixel, and (3,) the direction of the
        light, screen frame.
    """
    rays = _rays(buffers)
    colour, normal = np.empty((2, 3, len(rays.part)), dtype=np.float32)
    gloss = np.empty(len(rays.part), dtype=np.float32)
    seen, first = np.unique(rays.part, return_index=True)
    for n, start, end in zip(seen, first, [*first[1:], len(rays.part)], strict=True):
        solid, run = buffers.solids[n], slice(start, end)
        points = cameras[buffers.owner[n]].body(rays.screen[:, run])
        local = solid.frame.T.astype(np.float32) @ (points - solid.origin.astype(np.float32)[:, None])
        colour[:, run] = solid.paint.albedo(local, noise)
        normal[:, run] = solid.normal(points)
        gloss[run] = solid.paint.gloss

    towards = np.array([rng.normal(0, 0.8), rng.uniform(0.1, 1.2), rng.uniform(0.25, 1.2)])
    light = (towards / np.linalg.norm(towards)).astype(np.float32)
    ambient = float(rng.uniform(0.25, 0.6))
    tint = (1 + rng.normal(0, 0.06, 3)).astype(np.float32)
    # blurred normals smooth the edges where solids meet
    normal = cv2.blur(rays.gather(normal), (3, 3)).reshape(-1, 3)[rays.pixel].T
    x, y, z = normal
    normal = normal / (np.sqrt(x * x + y * y + z * z) + 1e-6)
    halfway = light + np.array([0, 0, 1], dtype=np.float32)
    shine = np.maximum((halfway / np.linalg.norm(halfway)) @ normal, 0)
    for _ in range(4):
        shine *= shine
    depth = np.array([*(c.depth for c in cameras), 0], dtype=np.float32)
    part = buffers.part[::SUPER, ::SUPER]
    dark = _occlusion(buffers.z[::SUPER, ::SUPER] - depth[buffers.owner[part]], part >= 0).ravel()[rays.pixel]
    lit = np.maximum(0.15 + 0.85 * (light @ normal), 0)
    colour *= (ambient * (1 + 0.25 * normal[1]) + ((1 - ambient) * 1.25) * lit) * (1 - 0.6 * dark)
    colour *= tint[:, None]
    colour += shine * gloss
    np.clip(colour, 0, 1, out=colour)
    opacity = rays.gather(np.ones((1, len(rays.part)), dtype=np.float32))[..., 0]
    return rays.gather(colour), opacity, light * np.array([1, -1, 1], dtype=np.float32)


@dataclass(frozen=True)
class _Rays:
    """Points to shade, ordered by solid.

    Args:
        part: (N,) index of the solid.
        screen: (3, N) position, samples.
        pixel: (N,) index of the pixel.
        weight: (N,) fraction of the pixel.
        size: (width, height) in pixels.
    """

    part: np.ndarray
    screen: np.ndarray
    pixel: np.ndarray
    weight: np.ndarray
    size: tuple[int, int]

    def gather(self, values: np.ndarray) -> np.ndarray:
        """(H, W, C) float32: weighted sums of values (C, N) by pixel."""
        width, height = self.size
        sums = [np.bincount(self.pixel, self.weight * v, width * height) for v in values]
        return np.stack(sums, axis=-1).astype(np.float32).reshape(height, width, -1)


def _rays(buffers: Buffers) -> _Rays:
    """One ray through the centre of a pixel that a single solid fills, else one through each sample that hits a solid."""
    height, width = (n // SUPER for n in buffers.part.shape)
    corners = [(row, column) for row in range(SUPER) for column in range(SUPER)]
    parts = [buffers.part[r::SUPER, c::SUPER].ravel() for r, c in corners]
    depths = [buffers.z[r::SUPER, c::SUPER].ravel() for r, c in corners]
    filled = np.logical_and.reduce([p == parts[0] for p in parts[1:]])
    whole = np.flatnonzero(filled & (parts[0] >= 0))
    mixed = [np.flatnonzero(~filled & (p >= 0)) for p in parts]
    pixel = np.concatenate([whole, *mixed])
    owner = np.concatenate([parts[0][whole], *(p[m] for p, m in zip(parts, mixed, strict=True))])
    z = np.concatenate(
        [np.mean([d[whole] for d in depths], axis=0), *(d[m] for d, m in zip(depths, mixed, strict=True))]
    )
    counts = [len(whole), *(len(m) for m in mixed)]
    x, y = (np.repeat([SUPER / 2, *(corner[axis] + 0.5 for corner in corners)], counts) for axis in (1, 0))
    weight = np.repeat([1.0, *(1 / SUPER**2 for _ in corners)], counts)
    screen = np.stack([SUPER * (pixel % width) + x, SUPER * (pixel // width) + y, z]).astype(np.float32)
    order = np.argsort(owner, kind="stable")
    return _Rays(owner[order], screen[:, order], pixel[order], weight[order], (width, height))


def _occlusion(z: np.ndarray, solid: np.ndarray) -> np.ndarray:
    """(H, W) ambient occlusion in [0, 1], by unsharp masking of the depth buffer.

    Args:
        z: (H, W) samples, relative to the depth of each body, so that a body does not darken one far behind it.
        solid: (H, W) bool, where z is valid.

    Source: Luft, Colditz, Deussen: Image Enhancement by Unsharp Masking the Depth Buffer, SIGGRAPH 2006.
    """
    extent = max(z.shape)
    side = 2 * round(0.02 * extent) + 1
    filled = np.where(solid, z, np.float32(0))
    mean = cv2.blur(filled, (side, side)) / (cv2.blur(solid.astype(np.float32), (side, side)) + 1e-6)
    return np.clip((mean - filled) / (0.06 * extent * SUPER), 0, 1)


def cast_shadow(rng: np.random.Generator, image: np.ndarray, alpha: np.ndarray, light: np.ndarray) -> np.ndarray:
    """The background with the shadow of what is in front of it."""
    height, width = alpha.shape
    away = -light[:2] / max(float(light[2]), 0.3) * rng.uniform(0.02, 0.15) * max(height, width)
    shear = rng.normal(0, 0.25)
    move = np.array([[1, shear, away[0] - shear * height / 2], [0, rng.uniform(0.8, 1.05), away[1]]], dtype=np.float32)
    shadow = cv2.warpAffine(alpha, move, (width, height))
    shadow = cv2.GaussianBlur(shadow, (0, 0), rng.uniform(0.005, 0.025) * max(height, width))
    return image * (1 - rng.uniform(0.1, 0.6) * shadow[..., None])


def expose(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32 to uint8 with white balance, contrast, defocus, motion blur, sensor noise and compression."""
    height, width = image.shape[:2]
    image = cv2.pow(np.clip(image, 0, 1, dtype=np.float32), rng.uniform(0.7, 1.35))
    image = (image - 0.5) * rng.uniform(0.7, 1.15) + 0.5 + rng.normal(0, 0.05)
    image = (image * (1 + rng.normal(0, 0.04, 3))).astype(np.float32)
    if rng.random() < 0.07:
        image[:] = image.mean(-1, keepdims=True)
    kind = rng.random()
    if kind < 0.45:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.1) * max(width, height) / 256)
    elif kind < 0.55:
        image = cv2.filter2D(image, -1, _streak(rng, rng.uniform(2, 5) * max(width, height) / 256))
    level = rng.uniform(0.0, 0.045)
    grain = rng.standard_normal((height, width, 3), dtype=np.float32)
    image += level * (0.4 + np.sqrt(np.clip(image, 0, 1))) * grain
    out = quantise(image)
    if rng.random() < 0.35:
        quality = int(rng.integers(35, 85))
        _, code = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, quality])
        out = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))
    return out


def _streak(rng: np.random.Generator, length: float) -> np.ndarray:
    """A symmetric kernel of motion blur, which does not shift the image relative to its labels."""
    reach = int(np.ceil(length / 2))
    x, y = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    angle = rng.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    kernel = np.clip(1 - np.abs(across), 0, 1) * (np.abs(along) <= length / 2)
    return (kernel / kernel.sum()).astype(np.float32)


def quantise(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) colours in [0, 1] to uint8."""
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
