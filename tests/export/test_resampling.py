"""Views and crops of exported graphs against OpenCV's and torch's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kplab.export.resampling import area_resize, read_crops, read_views
from kplab.ops import affine, spatial

SIZE = (96, 128)


def test_views_are_those_of_opencv() -> None:
    """At scales from 0.03 to 6 and beyond the borders. A pixel may differ by the rounding of a grey level."""
    rng = np.random.default_rng(0)
    different = pixels = 0
    scales = []
    for _ in range(60):
        height, width = rng.integers(40, 700, 2)
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = cv2.GaussianBlur(image, (0, 0), 0.8)
        centre, half = rng.uniform(0, 1, 2) * (width, height), np.exp(rng.uniform(2.3, 7, 2))
        box = np.concatenate([centre - half, centre + half])
        view = affine.fit_box(box, SIZE)
        expected = affine.warp(image, view, SIZE).astype(float)
        to_view = torch.tensor([[view[0, 0], view[0, 2], view[1, 2]]], dtype=torch.float64)
        found = read_views(torch.from_numpy(image)[None], to_view, SIZE)[0].permute(1, 2, 0).numpy()
        apart = np.abs(found - expected)
        assert apart.max() <= 1
        different, pixels = different + int((apart > 0).sum()), pixels + apart.size
        scales.append(view[0, 0])
    assert min(scales) < 0.1
    assert max(scales) > 2
    assert different / pixels < 1e-4


def test_a_view_of_a_view_is_itself() -> None:
    """What ``kplab predict`` gives to a graph is not resampled."""
    image = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 128, 96, 3), dtype=np.uint8))
    region = torch.tensor([[0.0, 0.0, 96.0, 128.0]], dtype=torch.float64)
    found = read_views(image, spatial.crop_views(region, SIZE), SIZE)
    assert torch.equal(found, image.permute(0, 3, 1, 2).float())


@pytest.mark.parametrize("size", [(48, 64), (40, 50), (96, 128), (100, 130)])
def test_area_resize_is_torchs(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, 128, 96)
    expected = F.interpolate(images, size=size[::-1], mode="area")
    assert torch.allclose(area_resize(images, size), expected, atol=1e-6)


def test_crops_are_those_of_a_cascade() -> None:
    """At scales that need no halving, several, and more than the image has; also far outside."""
    torch.manual_seed(0)
    image = torch.rand(1, 3, 70, 50)
    boxes = torch.tensor(
        [[5.0, 5, 20, 30], [0, 0, 50, 70], [-40, -90, 130, 200], [-900, -900, 999, 900], [500, 500, 600, 600]]
    )
    views = spatial.crop_views(boxes, (24, 32), 1.25)
    expected = spatial.crop(image, torch.zeros(len(boxes), dtype=torch.long), views, (24, 32))
    assert torch.allclose(read_crops(image, views, (24, 32)), expected, atol=1e-5)
