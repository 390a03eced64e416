"""A transform of albumentations that moves the parts of a subject against each other, with its keypoints."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from albumentations.core.transforms_interface import DualTransform
from albumentations.core.type_definitions import Targets
from pydantic import Field

from kplab.errors import ConfigError


class SmoothWarp(DualTransform):
    """Move the pixels of an image by a smooth random field.

    The field is drawn at the points of a grid, each coordinate uniformly distributed, and interpolated by cubic splines. Keypoints
    follow: the inverse of the field is found by fixed-point iteration.

    Args:
        spacing: distance of the points of the grid, pixels.
        amplitude: largest displacement at these points along an axis, pixels; at most a fifth of the spacing, so that the image is
            nowhere folded.
        p: probability.

    Source: Simard et al., "Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis", 2003, with
    a grid in place of a smoothed field.
    """

    _targets = (Targets.IMAGE, Targets.KEYPOINTS)

    class InitSchema(DualTransform.InitSchema):
        spacing: float = Field(gt=1)
        amplitude: float = Field(ge=0)

    def __init__(self, spacing: float, amplitude: float, p: float = 0.5) -> None:
        super().__init__(p=p)
        if amplitude > spacing / 5:
            raise ConfigError(
                f"amplitude is {amplitude}, but a fifth of the spacing of {spacing} is the most that folds no image. "
                f"Use {spacing / 5:g} or less."
            )
        self.spacing, self.amplitude = spacing, amplitude

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw a field: (H, W, 2) displacements from an output pixel to the input pixel that it shows."""
        height, width = params["shape"][:2]
        grid = [max(1, int(side / self.spacing)) for side in (height, width)]
        coarse = self.random_generator.uniform(-self.amplitude, self.amplitude, (*grid, 2))
        field = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        return {"field": field}

    def apply(self, img: np.ndarray, field: np.ndarray, **params: Any) -> np.ndarray:
        """The image, with zeros where the field points outside of it."""
        height, width = field.shape[:2]
        x = field[..., 0] + np.arange(width, dtype=np.float32)
        y = field[..., 1] + np.arange(height, dtype=np.float32)[:, None]
        return cv2.remap(img, x, y, cv2.INTER_LINEAR)

    def apply_to_keypoints(self, keypoints: np.ndarray, field: np.ndarray, **params: Any) -> np.ndarray:
        """(N, 2 or more) keypoints, their first columns x and y, pixel indices."""
        if not len(keypoints):
            return keypoints
        out = keypoints.astype(np.float64)
        target = out[:, :2].astype(np.float32)
        place = target.copy()
        for _ in range(20):
            # the border continues the field
            moved = cv2.remap(field, place[:, 0], place[:, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            place = target - moved[:, 0]
        out[:, :2] = place
        return out
