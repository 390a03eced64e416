"""Turned maps against NumPy's quarter turns and SciPy's interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from kplab.ops import affine
from kplab.ops.turning import turn


@pytest.mark.parametrize("quarters", [0, 1, 2, 3, -1, 5])
def test_quarter_turns_of_square_maps_are_exact(quarters: int) -> None:
    maps = torch.rand(2, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    wanted = np.rot90(maps.numpy(), -quarters, (2, 3))  # NumPy turns y towards x
    assert np.array_equal(turn(maps, 90.0 * quarters).numpy(), wanted)


def test_a_turn_has_gradients_after_one_in_inference_mode() -> None:
    maps = torch.rand(1, 1, 6, 6, requires_grad=True)
    with torch.inference_mode():
        turn(maps, 33.0)
    turn(maps, 33.0).sum().backward()
    assert maps.grad is not None
    assert maps.grad.max() > 0


@pytest.mark.parametrize("degrees", [10.0, -35.0, 45.0, 170.0])
def test_other_turns_are_scipys_rotation(degrees: float) -> None:
    image = np.random.default_rng(0).random((48, 60))
    matrix = affine.translation(30, 24) @ affine.rotation(degrees) @ affine.translation(-30, -24)
    y, x = np.mgrid[:48, :60] + 0.5
    source = np.linalg.inv(matrix) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    wanted = ndimage.map_coordinates(image, source[[1, 0]] - 0.5, order=1, mode="grid-constant").reshape(48, 60)
    got = turn(torch.from_numpy(image)[None, None], degrees)[0, 0].numpy()
    assert np.abs(got - wanted).max() < 1e-12
    assert np.abs(got - image).max() > 0.1, "nothing was turned"
