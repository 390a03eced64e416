"""Gaussian targets on maps and axes, and peaks decoded with subpixel accuracy.

Continuous coordinates as in ``ops.affine``: a point x of the view is at u = x / stride on a map of that stride, and the
centre of the cell in row i, column j is (j + 0.5, i + 0.5). Targets are never rounded to cells, so that the decoder can
recover a Gaussian's centre between cells.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TINY = 1e-10


def gaussian_axis(u: Tensor, sigma: float, cells: int) -> Tensor:
    """Gaussian around a point on an axis of cells, 1 at its centre.

    exp(-(i + 0.5 - u)**2 / (2 sigma**2)) for cell i

    Args:
        u: (...) centres, cells; may lie outside.
        sigma: cells.
        cells: length of the axis.

    Returns:
        (..., cells).
    """
    centres = torch.arange(cells, device=u.device, dtype=u.dtype) + 0.5
    return torch.exp(-((centres - u[..., None]) ** 2) / (2 * sigma**2))


def gaussian_map(uv: Tensor, sigma: float, size: tuple[int, int]) -> Tensor:
    """Gaussian around a point on a map, over the whole map.

    Args:
        uv: (..., 2) centres (x, y), cells; may lie outside.
        sigma: cells.
        size: (width, height) of the map, cells.

    Returns:
        (..., height, width), 1 where a cell's centre is a Gaussian's centre.

    Source: DARK's unbiased encoding, Zhang et al., "Distribution-Aware Coordinate Representation", 2020.
    """
    across = gaussian_axis(uv[..., 0], sigma, size[0])
    down = gaussian_axis(uv[..., 1], sigma, size[1])
    return down[..., :, None] * across[..., None, :]


def peaks(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The highest cell of each map.

    Args:
        maps: (..., H, W).

    Returns:
        (..., 2) int64 (column, row), and (...) its value.
    """
    value, flat = maps.flatten(-2).max(-1)
    width = maps.shape[-1]
    return torch.stack([flat % width, flat // width], dim=-1), value


def refined_peaks(maps: Tensor, blur: int = 0) -> tuple[Tensor, Tensor]:
    """The highest cell of each map, refined; see ``refined``.

    Args:
        maps: (..., H, W).
        blur: width of the Gaussian kernel, cells, odd; 0 is no blur. DARK uses 11 for sigma 2 and 17 for sigma 3.

    Returns:
        (..., 2) (x, y) in cells, and (...) the value of the highest cell before the blur.
    """
    cell, value = peaks(maps)
    return refined(maps, cell, value, blur), value


def refined(maps: Tensor, cell: Tensor, value: Tensor, blur: int = 0) -> Tensor:
    """Peaks of maps, moved to the peak of the Gaussian fitted to the log of the map around them (DARK).

    u = m - H^-1 g, with gradient g and Hessian H of log(blurred map) at cell m. Within two cells of the border the
    stencil of differences is shifted inwards, which is exact for a Gaussian as well. Where the blur's kernel would cross
    the border the map is not blurred, because a blur moves peaks away from the border. Where H is not negative definite
    the centre of the cell is returned; no point moves by more than a cell.

    Args:
        maps: (..., H, W).
        cell: (..., 2) int64 (column, row) of a peak of each map.
        value: (...) of the maps in these cells.
        blur: see ``refined_peaks``.

    Returns:
        (..., 2) (x, y) in cells.

    Source: Zhang et al., "Distribution-Aware Coordinate Representation for Human Pose Estimation", 2020.
    """
    height, width = maps.shape[-2:]
    centre = cell.to(maps.dtype) + 0.5
    if min(height, width) < 5:
        return centre
    last = torch.tensor([width - 1, height - 1], device=maps.device)
    centre_cell = torch.minimum(cell.clamp_min(2), last - 2)
    radius = blur // 2 + 2
    around = _windows(maps, centre_cell, radius)
    near = around[..., radius - 2 : radius + 3, radius - 2 : radius + 3]
    if blur:
        band = _blur_band(blur).to(maps)
        inner = ((cell >= radius) & (cell <= last - radius)).all(-1)
        near = torch.where(inner[..., None, None], band @ around @ band.T, near)
    log = near.clamp_min(_TINY).log()

    def at(dx: int, dy: int) -> Tensor:
        return log[..., 2 + dy, 2 + dx]

    here = at(0, 0)
    gx, gy = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    hxx, hyy = (at(2, 0) - 2 * here + at(-2, 0)) / 4, (at(0, 2) - 2 * here + at(0, -2)) / 4
    hxy = (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)) / 4
    determinant = hxx * hyy - hxy**2
    definite = (hxx < 0) & (determinant > 0) & (value > 0)
    safe = torch.where(definite, determinant, torch.ones_like(determinant))
    step = torch.stack([hxy * gy - hyy * gx, hxy * gx - hxx * gy], dim=-1) / safe[..., None]
    offset = (centre_cell - cell).to(maps.dtype) + step
    return centre + torch.where(definite[..., None], offset.clamp(-1, 1), torch.zeros_like(offset))


def _windows(maps: Tensor, cell: Tensor, radius: int) -> Tensor:
    """(..., 2 radius + 1, 2 radius + 1) cells around a (column, row) of each (..., H, W) map, with its border replicated."""
    height, width = maps.shape[-2:]
    steps = torch.arange(-radius, radius + 1, device=maps.device)
    columns = (cell[..., 0, None] + steps).clamp(0, width - 1)
    rows = (cell[..., 1, None] + steps).clamp(0, height - 1)
    flat = (rows[..., :, None] * width + columns[..., None, :]).flatten(-2)
    patches: Tensor = maps.flatten(-2).gather(-1, flat).unflatten(-1, (len(steps), len(steps)))  # type: ignore[no-untyped-call]
    return patches


def _blur_band(kernel: int) -> Tensor:
    """(5, kernel + 4) matrix that blurs a row of kernel + 4 cells and returns its 5 middle cells.

    Its sigma is OpenCV's for kernels wider than 7: 2.0 for 11 cells, 2.9 for 17.

    Source: OpenCV getGaussianKernel.
    """
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    weight = gaussian_axis(torch.tensor(kernel / 2, dtype=torch.float64), sigma, kernel)
    band = torch.zeros(5, kernel + 4, dtype=torch.float64)
    for i in range(5):
        band[i, i : i + kernel] = weight / weight.sum()
    return band


def refined_peaks_1d(log: Tensor) -> tuple[Tensor, Tensor]:
    """The highest bin of each axis, moved to the top of the parabola through the log of three bins.

    Args:
        log: (..., bins) log of a distribution, up to a constant.

    Returns:
        (...) position in bins, at most one bin from the centre of the highest, and (...) int64 the highest bin.
    """
    bin_ = log.argmax(-1)
    bins = log.shape[-1]
    centre = bin_.to(log.dtype) + 0.5
    if bins < 3:
        return centre, bin_
    middle = bin_.clamp(1, bins - 2)

    def at(d: int) -> Tensor:
        return log.gather(-1, (middle + d)[..., None]).squeeze(-1)

    curve = at(1) - 2 * at(0) + at(-1)
    concave = curve < 0
    step = (at(-1) - at(1)) / 2 / torch.where(concave, curve, -torch.ones_like(curve))
    offset = (middle - bin_).to(log.dtype) + step
    return centre + torch.where(concave, offset.clamp(-1, 1), torch.zeros_like(offset)), bin_


def ideal_peak_1d(sigma: float) -> float:
    """The highest probability of a bin in a Gaussian label of this width: 1 / (sigma sqrt(2 pi))."""
    return 1 / (sigma * math.sqrt(2 * math.pi))
