"""Targets against their formula, DARK against an OpenCV version of the paper's, and the errors that theory predicts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from kplab.ops import heatmap

SIZE = (48, 64)
STRIDE = 4


def points(count: int, border: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random points of a map, cells, at least so far from its border."""
    random = torch.Generator().manual_seed(0)
    unit = torch.rand(count, 2, generator=random, dtype=dtype)
    return border + unit * (torch.tensor(SIZE, dtype=dtype) - 2 * border)


def error(found: Tensor, true: Tensor) -> Tensor:
    """Distances in view pixels."""
    return (found - true).norm(dim=-1) * STRIDE


def paper_dark(maps: np.ndarray, kernel: int) -> np.ndarray:
    """DARK as published, map by map; NaN where it leaves the cell as it is."""
    out = np.full((len(maps), 2), np.nan)
    for n, m in enumerate(maps):
        row, column = np.unravel_index(m.argmax(), m.shape)
        border = kernel // 2
        padded = np.pad(m, border)
        smooth = cv2.GaussianBlur(padded, (kernel, kernel), 0)[border:-border, border:-border]
        smooth = np.log(np.maximum(smooth * m.max() / smooth.max(), 1e-10))
        reach = kernel // 2 + 2
        if not (reach <= column < m.shape[1] - reach and reach <= row < m.shape[0] - reach):
            continue
        dx = 0.5 * (smooth[row, column + 1] - smooth[row, column - 1])
        dy = 0.5 * (smooth[row + 1, column] - smooth[row - 1, column])
        dxx = 0.25 * (smooth[row, column + 2] - 2 * smooth[row, column] + smooth[row, column - 2])
        dyy = 0.25 * (smooth[row + 2, column] - 2 * smooth[row, column] + smooth[row - 2, column])
        around = smooth[row - 1 : row + 2, column - 1 : column + 2]
        dxy = 0.25 * (around[2, 2] - around[0, 2] - around[2, 0] + around[0, 0])
        hessian = np.array([[dxx, dxy], [dxy, dyy]])
        offset = -np.linalg.solve(hessian, [dx, dy])
        if np.linalg.eigvalsh(hessian).max() < 0 and np.abs(offset).max() < 1:
            out[n] = np.array([column, row]) + 0.5 + offset
    return out


def test_height_centre_and_sum_of_a_gaussian() -> None:
    m = heatmap.gaussian_map(torch.tensor([20.5, 30.5], dtype=torch.float64), 2.0, SIZE)
    assert m.shape == (64, 48)
    assert m[30, 20] == 1
    assert m[30, 22] == pytest.approx(np.exp(-0.5))
    assert m[33, 20] == pytest.approx(np.exp(-9 / 8))
    # sums over cells stand for integrals: 2 pi sigma**2, and pi sigma**2 for the square
    assert float(m.sum()) == pytest.approx(2 * np.pi * 4, rel=1e-6)
    assert float((m**2).sum()) == pytest.approx(np.pi * 4, rel=1e-6)


def test_centre_of_mass_is_the_point() -> None:
    uv = points(50, 12)
    m = heatmap.gaussian_map(uv, 2.0, SIZE)
    rows, columns = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(48) + 0.5, indexing="ij")
    mass = torch.stack([(m * columns).sum((1, 2)), (m * rows).sum((1, 2))], -1) / m.sum((1, 2))[:, None]
    assert (mass - uv).abs().max() < 1e-6


def test_error_of_the_highest_cell_is_the_theoretical_one() -> None:
    """Mean distance of a uniform point from the centre of its cell is 0.3826 cells, at most half a diagonal."""
    uv = points(10_000, 5)
    cell, value = heatmap.peaks(heatmap.gaussian_map(uv, 2.0, SIZE))
    off = error(cell + 0.5, uv)
    assert float(off.mean()) == pytest.approx(0.3826 * STRIDE, abs=0.02)
    assert float(off.max()) <= STRIDE * np.sqrt(0.5) + 1e-9
    assert float(value.min()) >= np.exp(-0.25 / 4) - 1e-9


def test_the_decoder_cannot_correct_rounded_targets() -> None:
    """Why targets are not rounded: DARK finds the rounded centre exactly, which is 1.5 px off at stride 4."""
    uv = points(2_000, 12)
    found, _ = heatmap.refined_peaks(heatmap.gaussian_map(uv.floor() + 0.5, 2.0, SIZE), blur=11)
    assert float(error(found, uv).mean()) == pytest.approx(0.3826 * STRIDE, abs=0.03)


@pytest.mark.parametrize(("blur", "limit"), [(0, 1e-6), (11, 0.05)])
def test_dark_finds_the_centre(blur: int, limit: float) -> None:
    """Exact for a Gaussian; the blur's cut-off kernel costs up to 0.03 px by the published measurement."""
    uv = points(3_000, 0)
    found, _ = heatmap.refined_peaks(heatmap.gaussian_map(uv, 2.0, SIZE), blur)
    assert float(error(found, uv).max()) < limit


@pytest.mark.parametrize("kernel", [11, 17])
def test_dark_equals_the_published_version(kernel: int) -> None:
    """On noisy peaks of irregular shapes, at cells far enough from the border for both rules to agree."""
    random = torch.Generator().manual_seed(3)
    uv = points(400, 14)
    second = uv + torch.randn(400, 2, generator=random, dtype=torch.float64) * 2
    maps = heatmap.gaussian_map(uv, 2.0, SIZE) + 0.6 * heatmap.gaussian_map(second, 1.5, SIZE)
    maps = maps + 0.03 * torch.rand(maps.shape, generator=random, dtype=torch.float64)
    wanted = paper_dark(maps.numpy(), kernel)
    found = heatmap.refined_peaks(maps, kernel)[0].numpy()
    same = np.isfinite(wanted).all(-1)
    assert same.mean() > 0.8
    assert np.abs(found - wanted)[same].max() < 1e-6


def test_points_outside_the_map_are_decoded_near_its_border() -> None:
    outside = torch.tensor([[-1.5, 30.2], [20.3, 65.0], [49.9, -1.0], [-5.0, -5.0]], dtype=torch.float64)
    for blur in (0, 11):
        found, _ = heatmap.refined_peaks(heatmap.gaussian_map(outside, 2.0, SIZE), blur)
        nearest = torch.minimum(outside.clamp_min(0), torch.tensor(SIZE, dtype=torch.float64))
        assert (found - nearest).abs().max() <= 0.5 + 1e-9


hostile = st.one_of(
    st.sampled_from([0.0, -1.0, 1.0]), st.floats(-5, 5, width=32), st.floats(0, 1e-12), st.floats(1e6, 1e8, width=32)
)


@settings(max_examples=200)
@given(
    maps=arrays.arrays(
        np.float32,
        st.tuples(st.just(2), st.integers(1, 16), st.integers(1, 16)),
        elements=hostile.map(np.float32),
        fill=st.sampled_from([0.0, 1.0, -1.0]).map(np.float32),
    ),
    blur=st.sampled_from([0, 3, 11]),
)
def test_a_point_is_never_moved_far_from_the_highest_cell(maps: np.ndarray, blur: int) -> None:
    tensor = torch.from_numpy(maps)
    cell, top = heatmap.peaks(tensor)
    found, value = heatmap.refined_peaks(tensor, blur)
    assert torch.isfinite(found).all()
    assert (found - (cell + 0.5)).abs().max() <= 1 + 1e-6
    assert torch.equal(value, top)
    assert np.array_equal(top.numpy(), maps.max((1, 2)))


def test_mirrored_map_has_the_mirrored_peak() -> None:
    maps = torch.rand(300, 64, 48, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for blur in (0, 11):
        plain, mirrored = heatmap.refined_peaks(maps, blur)[0], heatmap.refined_peaks(maps.flip(-1), blur)[0]
        plain[:, 0] = 48 - plain[:, 0]
        assert (plain - mirrored).abs().max() < 1e-6


def test_saddles_keep_their_cell() -> None:
    """The highest cell lies on a diagonal ridge: by its second differences it is a saddle, and Newton's step is wrong."""
    m = torch.full((9, 9), 0.1, dtype=torch.float64)
    m[4, 4] = 1.0
    m[3, 3] = m[5, 5] = 0.99
    m[2, 4] = m[6, 4] = m[4, 2] = m[4, 6] = 0.9
    m[4, 5] = 0.95
    found, _ = heatmap.refined_peaks(m[None])
    assert found.tolist() == [[4.5, 4.5]]


def test_axis_peak_is_exact_for_a_gaussian() -> None:
    u = torch.rand(5_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 384
    log = heatmap.gaussian_axis(u, 6.0, 384).clamp_min(1e-300).log()
    found, bin_ = heatmap.refined_peaks_1d(log)
    assert (found - u).abs().max() < 1e-9
    # a bin holds the points from its number to the next
    assert torch.equal(bin_, u.long())


@settings(max_examples=200)
@given(arrays.arrays(np.float64, st.tuples(st.just(3), st.integers(1, 12)), elements=st.floats(-100, 100)))
def test_a_point_is_never_moved_far_from_the_highest_bin(log: np.ndarray) -> None:
    found, bin_ = heatmap.refined_peaks_1d(torch.from_numpy(log))
    assert torch.isfinite(found).all()
    assert (found - bin_ - 0.5).abs().max() <= 1
    assert np.array_equal(np.take_along_axis(log, bin_.numpy()[:, None], 1)[:, 0], log.max(1))
