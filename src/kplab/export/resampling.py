"""Views and crops of images by operations that every runtime has: the resampling of ``ops.affine`` and ``ops.spatial``.

A region without rotation is resampled along rows and columns separately, which is a product of the image with two matrices
of weights. Shapes depend on the size of the image alone, and not on the region.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

#: OpenCV's ``warpAffine`` rounds positions in the source to 1/32 pixel, from numbers in units of 1/1024.
STEPS, UNITS = 32, 1024


def read_views(images: Tensor, to_view: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample images as ``affine.warp`` does: by areas to a smaller image if the scale is below 1/2, then bilinearly.

    Grey levels are rounded after both steps, as OpenCV's, so that views are equal to the bit but for rounding errors of
    positions.

    Args:
        images: (N, H, W, 3) uint8.
        to_view: (N, 3) float64: s, tx and ty of x_view = s * x_image + tx, y_view = s * y_image + ty.
        size: (width, height) of the views, pixels.

    Returns:
        (N, 3, height, width) float32, whole numbers from 0 to 255; 0 outside of the images.
    """
    scale = to_view[:, :1]
    pixels = images.permute(0, 3, 1, 2).float()
    across, columns, wide = _axis(scale, to_view[:, 1:2], images.shape[2], size[0], True)
    down, rows, high = _axis(scale, to_view[:, 2:3], images.shape[1], size[1], False)
    small = rows[:, None] @ (pixels @ columns.transpose(1, 2)[:, None])
    # sums of areas are divided once: a product of rounded weights would move halves to the wrong side
    small = (small / (wide * high).float()[:, :, None, None]).round()
    return (down[:, None] @ (small @ across.transpose(1, 2)[:, None]) + 0.5).floor()


def _axis(scale: Tensor, shift: Tensor, source: int, side: int, along_rows: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of both steps along one axis.

    Args:
        scale: (N, 1) s.
        shift: (N, 1) t.
        source: pixels of the image.
        side: n pixels of the view.
        along_rows: whether it is the x axis, of which OpenCV rounds both terms of a position, and of y their sum.

    Returns:
        (N, n, m) from the m pixels of the smaller image that the view shows; (N, m, source) of these pixels, areas; and
        (N, 1) source pixels in a pixel of the smaller image.
    """
    count = torch.where(scale < 0.5, (source * scale).round().clamp_min(1), torch.full_like(scale, source))
    ratio = source / count
    # the inverse map, pixel indices of the view to those of the smaller image, with OpenCV's rounding
    step = 1 / (scale * ratio)
    start = -step * (scale * ratio * 0.5 + shift - 0.5)
    pixel = torch.arange(side, dtype=torch.float64, device=scale.device)
    both, sum_ = (start * UNITS).round() + (step * pixel * UNITS).round(), ((step * pixel + start) * UNITS).round()
    units = both if along_rows else sum_
    place = ((units + UNITS // (2 * STEPS)) / (UNITS // STEPS)).floor() / STEPS
    first = place[:, :1].floor()
    # neighbouring pixels of a view are at most two pixels of the smaller image apart
    near = torch.arange(2 * side + 4, dtype=torch.float64, device=scale.device)
    bilinear = (1 - (place[:, :, None] - first[:, None] - near).abs()).clamp_min(0)
    pixels = (first + near)[:, :, None]
    other = torch.arange(source, dtype=torch.float64, device=scale.device)
    span = ratio[:, None]
    areas = (torch.minimum((pixels + 1) * span, other + 1) - torch.maximum(pixels * span, other)).clamp_min(0)
    return bilinear.float(), areas.float(), ratio


def area_resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """``interpolate(mode="area")``: the mean over the pixels that a pixel of the result touches.

    Args:
        images: (N, C, H, W) float32.
        size: (width, height) of the result.
    """
    height, width = images.shape[-2:]
    return _means(height, size[1]).to(images) @ images @ _means(width, size[0]).to(images).T


def _means(source: int, side: int) -> Tensor:
    """(side, source) weights of the means along one axis."""
    pixel, other = torch.arange(side)[:, None], torch.arange(source)
    touched = (other >= pixel * source // side) & (other < -(-(pixel + 1) * source // side))
    return touched / touched.sum(1, keepdim=True)


def read_crops(image: Tensor, views: Tensor, size: tuple[int, int]) -> Tensor:
    """Sample crops from one image as ``spatial.crop`` does, by shapes that don't depend on the boxes.

    Args:
        image: (1, C, H, W) float32.
        views: (M, 3) s, tx, ty, see ``spatial.crop_views``.
        size: (width, height) of the crops, pixels.

    Returns:
        (M, C, height, width).
    """
    u = torch.arange(size[0], device=image.device, dtype=views.dtype) + 0.5
    v = torch.arange(size[1], device=image.device, dtype=views.dtype) + 0.5
    x, y = (u - views[:, 1:2]) / views[:, :1], (v - views[:, 2:3]) / views[:, :1]
    levels = [image]
    while min(levels[-1].shape[-2:]) >= 2:
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False))
    chosen = torch.log2(1 / views[:, 0].clamp(1e-6, 1)).floor().clamp_max(len(levels) - 1)
    crops = torch.zeros_like(x[:, None, None, :] * y[:, None, :, None])
    for times, level in enumerate(levels):
        across = (2 * x / (2**times * level.shape[-1]) - 1)[:, None, :].expand(-1, size[1], -1)
        down = (2 * y / (2**times * level.shape[-2]) - 1)[:, :, None].expand(-1, -1, size[0])
        grid = torch.stack([across, down], dim=-1).flatten(0, 1)[None]
        sampled = F.grid_sample(level, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        sampled = sampled[0].unflatten(1, (-1, size[1])).transpose(0, 1)
        crops = torch.where((chosen == times)[:, None, None, None], sampled, crops)
    return crops
