"""Smooth warps: keypoints stay on what they mark."""

from __future__ import annotations

import albumentations as A
import numpy as np
import pytest

from kplab.data.augment import Augment
from kplab.data.warp import SmoothWarp
from kplab.errors import ConfigError
from kplab.structures.poses import Poses

SIZE = 160


def dots(xy: np.ndarray) -> np.ndarray:
    """A Gaussian of sigma 2 at each point, in one image a point."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    return np.stack([255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8) for px, py in xy])


def test_keypoints_stay_on_what_they_mark() -> None:
    """The brightest place of a drawn dot is where its keypoint is said to be; points move against each other."""
    rng = np.random.default_rng(0)
    moved = []
    for round_ in range(20):
        xy = rng.uniform(30, SIZE - 30, (3, 2))
        image = np.moveaxis(dots(xy), 0, 2).astype(np.uint8)
        augment = Augment(transforms=[SmoothWarp(spacing=40, amplitude=7, p=1.0)])
        poses = Poses.make(xy[None], np.full((1, 3), 2), box=np.array([[20.0, 20, 140, 140]]))
        shown, after = augment.change_pixels(image, poses, np.random.default_rng(round_))
        moved.append(after.xy[0] - xy)
        y, x = np.mgrid[:SIZE, :SIZE] + 0.5
        for k in range(3):
            light = shown[..., k].astype(float)
            centre = np.array([(light * x).sum(), (light * y).sum()]) / light.sum()
            assert np.linalg.norm(centre - after.xy[0, k]) < 0.7  # a stretched dot is no longer symmetric
    moved = np.concatenate(moved)
    assert 2 < np.abs(moved).mean() < 8
    assert np.abs(np.corrcoef(moved[::3, 0], moved[1::3, 0])[0, 1]) < 0.9


def test_pixels_agree_with_a_field_that_is_known() -> None:
    """Against the definition: the output at q shows the input at q + d(q)."""
    warp = SmoothWarp(spacing=32, amplitude=6, p=1.0)
    warp.set_random_seed(3)
    field = warp.get_params_dependent_on_data({"shape": (SIZE, SIZE, 3)}, {})["field"]
    points = np.random.default_rng(1).uniform(0, SIZE - 1, (200, 2))
    out = warp.apply_to_keypoints(points, field)
    x0, y0 = (np.clip(np.floor(out[:, i]).astype(int), 0, SIZE - 2) for i in (0, 1))
    fx, fy = (out[:, i].clip(0, SIZE - 1) - v for i, v in ((0, x0), (1, y0)))
    weights = ((1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx)
    corners = (field[y0, x0], field[y0, x0 + 1], field[y0 + 1, x0], field[y0 + 1, x0 + 1])
    shown = out + sum(w[:, None] * c for w, c in zip(weights, corners, strict=True))
    assert np.abs(shown - points).max() < 0.3  # OpenCV interpolates at 32nds of a pixel
    assert np.median(np.linalg.norm(shown - points, axis=1)) < 0.05
    assert len(warp.apply_to_keypoints(np.zeros((0, 2)), field)) == 0


def test_the_same_seed_draws_the_same_field() -> None:
    augment = Augment(transforms=[SmoothWarp(spacing=40, amplitude=7, p=0.5), A.RandomBrightnessContrast()])
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    poses = Poses.make(np.array([[[20.0, 20.0]]]), np.full((1, 1), 2), box=np.array([[0.0, 0, 64, 64]]))
    one, two = (augment.change_pixels(image, poses, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1].xy, two[1].xy)


def test_fields_that_fold_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"a fifth of the spacing of 20.* Use 4 or less"):
        SmoothWarp(spacing=20, amplitude=6)
