"""Augmentation: one random affine map folded into the view, then albumentations on the pixels; mosaics, and pasted subjects.

Rotation, scale, shift and mirroring are composed with the view's own map, so that an image is resampled once and a
rotation loses no part of the image that lies outside the crop. Everything else is a list of albumentations transforms;
those that move pixels move the keypoints with them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # read at import: no look-up of newer versions over the network

import albumentations as A
import numpy as np

from kplab.data.copy_paste import SHAPES
from kplab.errors import ConfigError
from kplab.ops import affine
from kplab.structures.poses import Poses

#: These mirror the image, which only ``flip`` may do: it alone renames left and right.
MIRRORING = ("HorizontalFlip", "VerticalFlip", "Transpose", "D4", "SquareSymmetry")


class Augment:
    """Random changes of a view that keep every label on its point.

    Args:
        rotate: degrees; the angle is uniform in [-rotate, rotate].
        rotate_prob: probability of a rotation.
        scale: (low, high) factor on the subject's size, log-uniform.
        shift: fraction of the view's width and height; uniform in [-shift, shift].
        flip: probability of mirroring; left and right keypoints swap names.
        mosaic: probability that a view is combined from four images (``data.mosaic``); for whole images only.
        mosaic_off: number of last epochs without mosaics, which differ from the images that are predicted.
        paste: probability that a subject of another image is pasted into a view (``data.copy_paste``); for whole images only.
        paste_shape: what of it: ``hull`` of its keypoints, with a soft edge, or ``box``.
        transforms: albumentations transforms on the uint8 view, e.g. colour, blur, noise, ``CoarseDropout``.

    Raises:
        ConfigError: an option is out of range, or a transform mirrors the image.
    """

    def __init__(
        self,
        rotate: float = 0.0,
        rotate_prob: float = 1.0,
        scale: Sequence[float] = (1.0, 1.0),
        shift: float = 0.0,
        flip: float = 0.0,
        mosaic: float = 0.0,
        mosaic_off: int = 10,
        paste: float = 0.0,
        paste_shape: str = "hull",
        transforms: Sequence[Any] = (),
    ) -> None:
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ConfigError(f"augment.scale is {list(scale)}, but needs [low, high] with 0 < low <= high.")
        if not 0 <= mosaic <= 1 or mosaic_off < 0:
            raise ConfigError(
                f"augment.mosaic is {mosaic} and augment.mosaic_off is {mosaic_off}, but a probability lies between 0 "
                "and 1, and a number of epochs is 0 or more."
            )
        if not 0 <= paste <= 1 or paste_shape not in SHAPES:
            raise ConfigError(
                f"augment.paste is {paste} and augment.paste_shape is '{paste_shape}', but a probability lies between 0 and 1, "
                f"and a shape is {' or '.join(SHAPES)}."
            )
        mirroring = [type(t).__name__ for t in transforms if type(t).__name__ in MIRRORING]
        if mirroring:
            raise ConfigError(
                f"augment.transforms holds {', '.join(mirroring)}, which mirrors the image without swapping left and "
                "right keypoints. Use augment.flip instead."
            )
        self.rotate, self.rotate_prob, self.scale = rotate, rotate_prob, (float(scale[0]), float(scale[1]))
        self.shift, self.flip = shift, flip
        self.mosaic, self.mosaic_off = mosaic, mosaic_off
        self.paste, self.paste_shape = paste, paste_shape
        parameters = A.KeypointParams(format="xy", remove_invisible=False)
        with warnings.catch_warnings():
            # albumentations warns of transforms that do not use keypoints
            warnings.filterwarnings("ignore", "Got processor for keypoints")
            self.pixels = A.Compose(list(transforms), keypoint_params=parameters) if transforms else None

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, bool]:
        """Draw a geometric change.

        Args:
            rng: random generator.
            size: (width, height) of the view.

        Returns:
            (3, 3) map from the plain view to the changed one, and whether it mirrors.
        """
        turn, angle, size_factor, dx, dy, mirrored = rng.random(6)
        degrees = (2 * angle - 1) * self.rotate if turn < self.rotate_prob else 0.0
        low, high = np.log(self.scale)
        factor = float(np.exp(low + size_factor * (high - low)))
        width, height = size
        matrix = (
            affine.translation(
                width / 2 + (2 * dx - 1) * self.shift * width, height / 2 + (2 * dy - 1) * self.shift * height
            )
            @ affine.rotation(degrees)
            @ affine.scaling(factor, factor)
            @ affine.translation(-width / 2, -height / 2)
        )
        flipped = bool(mirrored < self.flip)
        return (affine.mirror(width) @ matrix if flipped else matrix), flipped

    def change_pixels(self, image: np.ndarray, poses: Poses, rng: np.random.Generator) -> tuple[np.ndarray, Poses]:
        """Apply the albumentations transforms to a view and its poses.

        Args:
            image: (H, W, 3) uint8.
            poses: N instances, view pixels.
        """
        if self.pixels is None:
            return image, poses
        self.pixels.set_random_seed(int(rng.integers(2**31)))
        corners = poses.box[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
        points = np.concatenate([poses.xy.reshape(-1, 2), corners])
        known = np.isfinite(points).all(1)
        # albumentations uses pixel indices
        out = self.pixels(image=image, keypoints=points[known] - 0.5)
        points[known] = np.asarray(out["keypoints"], dtype=np.float64).reshape(-1, 2) + 0.5
        n, k = poses.visible.shape
        moved = points[n * k :].reshape(n, 4, 2)
        box = np.concatenate([moved.min(1), moved.max(1)], axis=1)
        return out["image"], replace(poses, xy=points[: n * k].reshape(n, k, 2), box=box)
