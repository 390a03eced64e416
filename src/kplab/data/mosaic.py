"""Mosaic augmentation: four samples around one point of the view, so that subjects appear small, cut off and elsewhere.

The plain views keep their scale; a corner of each image lies at one random point, and the common geometric change is applied
afterwards. Every image is resampled once, directly into its part of the view.

Source: YOLOv4 (Bochkovskiy 2020) and Ultralytics' later form of it, in which a view shows as much as one image would.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kplab.ops import affine
from kplab.structures.poses import Poses

TILES = 4


@dataclass
class Tile:
    """One sample before it is resampled.

    Args:
        image: (H, W, 3) uint8.
        poses: its true poses, source pixels.
        view: (3, 3) source pixels to the plain view, which only scales and shifts.
    """

    image: np.ndarray
    poses: Poses
    view: np.ndarray


def mosaic(
    tiles: list[Tile], size: tuple[int, int], centre: np.ndarray, change: np.ndarray
) -> tuple[np.ndarray, Poses, list[np.ndarray]]:
    """Combine four samples in one view.

    The poses of each sample are clipped to its part of the view (``Poses.clipped``) before the change.

    Args:
        tiles: upper left, upper right, lower left, lower right.
        size: (width, height) of the view, pixels.
        centre: (2,) where the four meet, pixels of the unchanged view.
        change: (3, 3) unchanged view to view.

    Returns:
        (height, width, 3) pixels, black where there is no image; all poses, view pixels, not yet clipped to the view;
        and of each tile the (3, 3) map from its source pixels to the view.
    """
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    poses, maps = [], []
    for quadrant, tile in enumerate(tiles):
        shown = _shown(tile, size)
        corner = shown[[0 if quadrant % 2 else 2, 1 if quadrant // 2 else 3]]
        placed = affine.translation(*(centre - corner)) @ tile.view
        part = shown + np.tile(centre - corner, 2)
        maps.append(change @ placed)
        _draw(pixels, tile.image, change, placed, part)
        width, height = part[2:] - part[:2]
        poses.append(tile.poses.transform(placed).clipped((width, height), (part[0], part[1])).transform(change))
    return pixels, Poses.concat(poses), maps


def _shown(tile: Tile, size: tuple[int, int]) -> np.ndarray:
    """(4,) xyxy: the image in the plain view, without the letterbox around it."""
    height, width = tile.image.shape[:2]
    picture = affine.apply_to_boxes(tile.view, np.array([[0.0, 0.0, width, height]]))[0]
    low = np.clip(picture[:2], 0, size)
    return np.concatenate([low, np.maximum(low, np.clip(picture[2:], 0, size))])


def _draw(pixels: np.ndarray, image: np.ndarray, change: np.ndarray, placed: np.ndarray, part: np.ndarray) -> None:
    """Resample an image into the pixels whose centres map to its part of the unchanged view."""
    height, width = pixels.shape[:2]
    hull = affine.apply_to_boxes(change, part[None])[0]
    x0, y0 = np.clip(np.floor(hull[:2]), 0, (width, height)).astype(int)
    x1, y1 = np.clip(np.ceil(hull[2:]), 0, (width, height)).astype(int)
    if x1 <= x0 or y1 <= y0:
        return
    rows, columns = np.mgrid[y0:y1, x0:x1] + 0.5
    came = affine.apply(np.linalg.inv(change), np.stack([columns, rows], axis=-1))
    mine = ((came >= part[:2]) & (came < part[2:])).all(-1)
    drawn = affine.warp(image, affine.translation(-x0, -y0) @ change @ placed, (int(x1 - x0), int(y1 - y0)))
    pixels[y0:y1, x0:x1][mine] = drawn[mine]
