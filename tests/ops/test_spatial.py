"""The spatial transformer against OpenCV's warp, plain slicing and finite differences."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from kplab.ops import affine, spatial

SIZE = (48, 64)
side = st.floats(3, 150)
place = st.floats(-60, 260)


def matrix(view: torch.Tensor) -> np.ndarray:
    """(3, 3) of one crop's scale and shift."""
    s, tx, ty = view.double().tolist()
    return affine.translation(tx, ty) @ affine.scaling(s, s)


def smooth_image(size: tuple[int, int], blur: float, seed: int = 0) -> np.ndarray:
    """(H, W, 3) float32 from 0 to 255, without detail finer than some pixels."""
    noise = np.random.default_rng(seed).uniform(0, 255, (size[1], size[0], 3)).astype(np.float32)
    image = cv2.GaussianBlur(noise, (0, 0), blur)
    return (image - image.min()) / (image.max() - image.min()) * 255


def tensor(image: np.ndarray) -> torch.Tensor:
    """(1, 3, H, W)."""
    return torch.from_numpy(image.transpose(2, 0, 1))[None]


@given(place, place, side, side, st.floats(0.8, 2))
def test_a_crop_is_the_view_of_its_box_and_maps_back(x: float, y: float, w: float, h: float, padding: float) -> None:
    box = np.array([x, y, x + w, y + h])
    views = spatial.crop_views(torch.tensor(box[None], dtype=torch.float32), SIZE, padding)
    wanted = affine.fit_box(box, SIZE, padding)
    points = np.array([[x, y], [x + w, y + h], [x + w / 3, y + h / 4]])
    assert np.abs(affine.apply(matrix(views[0]), points) - affine.apply(wanted, points)).max() < 1e-3
    back = affine.apply(np.linalg.inv(matrix(views[0])), affine.apply(matrix(views[0]), points))
    assert np.abs(back - points).max() < 1e-3


@pytest.mark.parametrize(
    ("box", "shrunk"),
    [
        ((40.3, 30.2, 70.9, 66.1), 1),
        ((-20.5, -11.0, 60.0, 50.0), 1),
        ((150.2, 100.7, 230.0, 190.0), 1),
        ((10.0, 10.0, 150.0, 190.0), 3),
        ((-90.0, -90.0, 290.0, 300.0), 7),
    ],
)
def test_a_crop_equals_opencv_s_warp(box: tuple[float, ...], shrunk: int) -> None:
    """Within 3 grey levels of 255: OpenCV rounds positions to 1/32 of a pixel, and averages by another kernel where it shrinks.

    The image has no detail that a crop could not show, where kernels are to differ.
    """
    image = smooth_image((200, 200), 4.0 * shrunk)
    views = spatial.crop_views(torch.tensor([box]), SIZE, 1.0)
    crop = spatial.crop(tensor(image), torch.tensor([0]), views, SIZE)[0].permute(1, 2, 0).numpy()
    wanted = affine.warp(image, affine.fit_box(np.array(box), SIZE), SIZE)
    inside = affine.warp(np.ones((200, 200), np.float32), affine.fit_box(np.array(box), SIZE), SIZE) == 1
    # on the border of the image a resampled line is part black, and how much depends on the kernel
    assert inside.mean() > 0.15
    assert np.abs(crop - wanted)[inside].max() < 3


def test_crops_at_whole_pixels_are_slices_of_the_right_images() -> None:
    images = torch.rand(3, 2, 40, 50) * 255
    boxes = torch.tensor(
        [[3.0, 4.0, 13.0, 24.0], [0.0, 0.0, 10.0, 20.0], [40.0, 20.0, 50.0, 40.0], [5.0, 6.0, 15.0, 26.0]]
    )
    index = torch.tensor([2, 0, 2, 1])
    crops = spatial.crop(images, index, spatial.crop_views(boxes, (10, 20)), (10, 20))
    for found, i, (x0, y0, x1, y1) in zip(crops, index, boxes.int().tolist(), strict=True):
        assert (found - images[i, :, y0:y1, x0:x1]).abs().max() < 1e-2
    # beyond the border it is black
    outside = spatial.crop(images, index[:1], spatial.crop_views(boxes[:1] - 100, (10, 20)), (10, 20))
    assert (outside == 0).all()


@pytest.mark.parametrize("scale", [0.15, 0.4, 0.9, 2.5])
def test_a_bright_spot_lands_where_its_point_does(scale: float) -> None:
    point = np.array([83.3, 61.8])
    y, x = np.mgrid[:160, :160] + 0.5
    spread = max(2.0, 2 / scale)
    spot = np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * spread**2)).astype(np.float32)
    half = np.array(SIZE) / scale / 2
    box = np.concatenate([point - half * 0.9, point + half * 1.1])
    views = spatial.crop_views(torch.tensor(box[None], dtype=torch.float32), SIZE)
    found = spatial.crop(torch.from_numpy(spot)[None, None], torch.tensor([0]), views, SIZE)[0, 0].numpy()
    v, u = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    centre = np.array([(found * u).sum(), (found * v).sum()]) / found.sum()
    assert np.abs(centre - affine.apply(matrix(views[0]), point)).max() < 0.05


def test_gradients_reach_the_box() -> None:
    # bilinear sampling has kinks at the centres of pixels: no sample of these boxes lies on one
    noise = torch.randn(2, 1, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = torch.ones(1, 1, 9, 9, dtype=torch.float64) / 81
    images = F.conv2d(F.conv2d(noise, kernel, padding=4), kernel, padding=4)
    boxes = torch.tensor([[5.3, 6.17, 20.7, 25.2], [-3.2, 8.4, 14.9, 30.3]], dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 16, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def value(b: torch.Tensor) -> torch.Tensor:
        return (
            spatial.crop(images, torch.tensor([1, 0]), spatial.crop_views(b, (12, 16), 1.2), (12, 16)) * weight
        ).sum()

    (gradient,) = torch.autograd.grad(value(boxes), boxes)
    step = 1e-7
    for i in range(2):
        for j in range(4):
            moved = torch.zeros_like(boxes)
            moved[i, j] = step
            numeric = (value(boxes + moved) - value(boxes - moved)) / (2 * step)
            # the larger of a box's two fits decides its scale, so that two sides may do nothing to it
            assert float((gradient[i, j] - numeric).abs().detach()) < 1e-4 * (1 + float(numeric.abs().detach()))
    assert (gradient != 0).any(1).all()


def test_nothing_to_crop_gives_nothing() -> None:
    assert spatial.crop(torch.ones(2, 3, 8, 8), torch.zeros(0, dtype=torch.long), torch.zeros(0, 3), (4, 4)).shape == (
        0,
        3,
        4,
        4,
    )
