"""Printed cards in front of a background, seen in any direction: objects to recognise, with exact corners."""

from __future__ import annotations

import cv2
import numpy as np

from kplab.ops import affine
from kplab.synthetic import photo
from kplab.synthetic.paint import Noise


def card(number: int, size: tuple[int, int] = (200, 150), seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 RGB print of card ``number``: shapes, colours and textures of its own.

    Args:
        size: (width, height), pixels.
        seed: of a set of cards.
    """
    rng = np.random.default_rng([seed, number])
    return photo.quantise(photo.background(rng, size, Noise(rng)))


def show(
    print_: np.ndarray | None,
    rng: np.random.Generator,
    size: tuple[int, int] = (320, 240),
    tilt: float = 40.0,
    covered: float = 0.2,
) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a card, at any rotation, tilted and partly covered; or a background alone.

    Args:
        print_: (h, w, 3) uint8 RGB; None shows no card.
        rng: random numbers; the same state gives the same picture.
        size: (width, height) of the picture, pixels.
        tilt: largest angle between the card and the picture's plane, degrees, below 80.
        covered: largest share of the card's width that another object covers.

    Returns:
        (H, W, 3) uint8 RGB, and (4, 2) corners of the card (upper left, upper right, lower right, lower left of the print),
        continuous pixels; (0, 2) without a card.
    """
    image = photo.background(rng, size, Noise(rng))
    if print_ is None:
        return photo.expose(rng, image), np.zeros((0, 2))
    height, width = print_.shape[:2]
    flat = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
    matrix = _camera(rng, flat, size, tilt)
    big = affine.scaling(2, 2) @ matrix
    to_index = affine.translation(-0.5, -0.5) @ big @ affine.translation(0.5 - width / 2, 0.5 - height / 2)
    double = (2 * size[0], 2 * size[1])
    drawn = cv2.warpPerspective(print_.astype(np.float32) / 255, to_index, double, flags=cv2.INTER_LINEAR)
    mask = cv2.warpPerspective(np.ones((height, width), np.float32), to_index, double, flags=cv2.INTER_LINEAR)
    # twice as large, then averaged: a shrunk print would alias
    drawn, mask = (cv2.resize(a, size, interpolation=cv2.INTER_AREA) for a in (drawn, mask))
    image = image * (1 - mask[..., None]) + drawn * rng.uniform(0.7, 1.1)
    corners = cv2.perspectiveTransform(flat[None], matrix)[0]
    if covered > 0:
        way = corners[rng.integers(4)] + rng.normal(0, 0.1 * width, (3, 2)).cumsum(0)
        thick = max(1, round(rng.uniform(0, covered) * float(np.linalg.norm(corners[1] - corners[0]))))
        cv2.polylines(image, [np.round(way).astype(np.int32)], False, rng.random(3).tolist(), thick, cv2.LINE_AA)
    return photo.expose(rng, image), corners


def _camera(rng: np.random.Generator, flat: np.ndarray, size: tuple[int, int], tilt: float) -> np.ndarray:
    """(3, 3) homography from the card's centred coordinates to a picture that shows it whole."""
    turn, axis, lean = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(0, tilt))
    # rotation in the plane, then by the tilt about an axis in the plane (Rodrigues), seen from 2.5 diagonals away
    spin = affine.rotation(float(np.rad2deg(turn)))
    rotation, _ = cv2.Rodrigues(lean * np.array([np.cos(axis), np.sin(axis), 0.0]))
    distance = 2.5 * float(np.linalg.norm(flat[2] - flat[0]))
    matrix = np.stack([rotation[0], rotation[1], rotation[2] / distance])
    matrix = np.column_stack([matrix[:, 0], matrix[:, 1], [0.0, 0.0, 1.0]]) @ spin
    corners = cv2.perspectiveTransform(flat[None], matrix)[0]
    low, high = corners.min(0), corners.max(0)
    scale = rng.uniform(0.5, 0.9) * float((np.array(size) / (high - low)).min())
    room = np.array(size) - scale * (high - low)
    x, y = rng.uniform(0, 1, 2) * room - scale * low
    found: np.ndarray = affine.translation(float(x), float(y)) @ affine.scaling(scale, scale) @ matrix
    return found
