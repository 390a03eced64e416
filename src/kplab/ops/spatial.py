"""Crops of boxes from images, differentiable with respect to the boxes: the spatial transformer of a cascade."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def crop_views(boxes: Tensor, size: tuple[int, int], padding: float = 1.0) -> Tensor:
    """The map from image to crop of each box: padded, centred, as large as fits, at fixed aspect (as ``affine.fit_box``).

    Args:
        boxes: (N, 4) xyxy, image pixels; sides below 1e-3 count as 1e-3.
        size: (width, height) of the crops, pixels.
        padding: factor on the sides of a box.

    Returns:
        (N, 3): s, tx and ty of x_crop = s * x_image + tx, y_crop = s * y_image + ty.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp_min(1e-3) * padding
    crop = boxes.new_tensor(size)
    scale = (crop / sides).amin(-1, keepdim=True)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return torch.cat([scale, crop / 2 - scale * centre], dim=-1)


def crop(images: Tensor, index: Tensor, views: Tensor, size: tuple[int, int]) -> Tensor:
    """Sample crops from images; 0 outside of the images.

    Sampling is bilinear. A crop at a scale below one half is sampled from the image halved repeatedly (each pixel is the
    mean of four), which prevents aliasing.

    Args:
        images: (B, C, H, W) float.
        index: (N,) int64 image of each crop.
        views: (N, 3) s, tx, ty, see ``crop_views``; gradients flow to it.
        size: (width, height) of the crops, pixels.

    Returns:
        (N, C, height, width).

    Source: Jaderberg et al., "Spatial Transformer Networks", 2015. Here the outer corners of pixels, not the centres, are
    at -1 and 1.
    """
    crops = images.new_zeros(len(index), images.shape[1], size[1], size[0])
    if not len(index):
        return crops
    u = torch.arange(size[0], device=images.device, dtype=views.dtype) + 0.5
    v = torch.arange(size[1], device=images.device, dtype=views.dtype) + 0.5
    x = (u - views[:, 1:2]) / views[:, :1]
    y = (v - views[:, 2:3]) / views[:, :1]
    halvings = torch.log2(1 / views[:, 0].detach().clamp(1e-6, 1)).floor().long()
    small, done = images, 0
    for times in sorted(set(halvings.tolist())):
        while done < times and min(small.shape[-2:]) >= 2:
            # at an odd last row or column the mean is over the pixels that exist
            small = F.avg_pool2d(small, 2, ceil_mode=True, count_include_pad=False)
            done += 1
        chosen = (halvings == times).nonzero().squeeze(1)
        shrunk = 2.0**done
        here = torch.stack(
            torch.broadcast_tensors(  # type: ignore[no-untyped-call]
                2 * x[chosen][:, None, :] / (shrunk * small.shape[-1]) - 1,
                2 * y[chosen][:, :, None] / (shrunk * small.shape[-2]) - 1,
            ),
            dim=-1,
        )
        crops = crops.index_put((chosen,), _sample(small, index[chosen], here))
    return crops


def _sample(images: Tensor, index: Tensor, grid: Tensor) -> Tensor:
    """``grid_sample`` of N grids (N, h, w, 2) from B images, without a copy of the image for each grid."""
    count = torch.bincount(index, minlength=len(images))
    first = count.cumsum(0) - count
    order = index.argsort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - first[index[order]]
    most, (height, width) = int(count.max()), grid.shape[1:3]
    # 2 is outside of every image
    table = grid.new_full((len(images), most, height, width, 2), 2.0).index_put((index, place), grid)
    sampled = F.grid_sample(
        images, table.flatten(1, 2).to(images.dtype), mode="bilinear", padding_mode="zeros", align_corners=False
    )
    crops: Tensor = sampled.unflatten(2, (most, height)).transpose(1, 2)[index, place]  # type: ignore[no-untyped-call]
    return crops
