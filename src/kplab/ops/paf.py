"""Confidence maps, part affinity fields (PAF), and the limbs of a skeleton.

Continuous coordinates as in ``ops.affine``; everything here is in cells of the map. A part is a keypoint, or a virtual
keypoint such as the neck; a limb is a pair of parts. P parts, L limbs, N people.

Source: Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields", CVPR 2017; "OpenPose", TPAMI 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kplab.ops.heatmap import gaussian_map

Limb = tuple[int, int]

#: Gaussians are set to 0 below this height, as in the published code (exponent 4.6052).
CUT = 0.01
#: Distance from the centre of a Gaussian at which it falls below ``CUT``, in sigmas.
REACH = math.sqrt(-2 * math.log(CUT))


# ---------------------------------------------------------------- limbs


def limbs_of(edges: Sequence[Limb], parts: int) -> list[Limb]:
    """Edges in the order in which they are parsed, each pointing away from the root: a spanning tree, then the others.

    The tree is built breadth first from the part with most edges (the first of several), so that people are assembled
    from the middle of the body, where parts are detected best.

    Args:
        edges: pairs of parts; duplicates count once.
        parts: P.

    >>> limbs_of([(2, 1), (0, 1), (2, 0), (2, 3)], 4)
    [(2, 1), (2, 0), (2, 3), (0, 1)]
    """
    links = list(dict.fromkeys((min(e), max(e)) for e in edges))
    around: list[list[int]] = [[] for _ in range(parts)]
    for a, b in edges:
        around[a].append(b)
        around[b].append(a)
    seen: set[int] = set()
    tree: list[Limb] = []
    for root in sorted(range(parts), key=lambda part: -len(around[part])):
        if root in seen:
            continue
        seen.add(root)
        queue = [root]
        for part in queue:
            new = [other for other in dict.fromkeys(around[part]) if other not in seen]
            seen.update(new)
            queue += new
            tree += [(part, other) for other in new]
    in_tree = {(min(limb), max(limb)) for limb in tree}
    return tree + [link for link in links if link not in in_tree]


def pieces(limbs: Sequence[Limb], parts: int) -> tuple[list[int], list[bool]]:
    """Connected components of the parts, and which limbs are redundant.

    Returns:
        the component of each part, identified by one of its parts, and for each limb whether the limbs before it connect
        its ends already.
    """
    component = list(range(parts))
    redundant = []
    for a, b in limbs:
        redundant.append(component[a] == component[b])
        if component[a] != component[b]:
            old, new = component[b], component[a]
            component = [new if c == old else c for c in component]
    return component, redundant


# ---------------------------------------------------------------- targets


def confidence_maps(uv: Tensor, sigma: float, size: tuple[int, int]) -> Tensor:
    """A Gaussian around each part of each person; where Gaussians overlap, the higher one.

    S_p(c) = max_n exp(-|c - u_np|**2 / (2 sigma**2)), 0 where that is below ``CUT``

    Args:
        uv: (N, P, 2) cells, not rounded; NaN for a missing part.
        sigma: cells. (The papers print exp(-d**2 / sigma**2); their code has the form above.)
        size: (width, height) of the map, cells.

    Returns:
        (P, height, width) in [0, 1].
    """
    maps = gaussian_map(uv, sigma, size)
    nothing = maps.new_zeros(1, *maps.shape[1:])
    return torch.cat([nothing, torch.where(maps >= CUT, maps, 0.0)]).amax(0)


def affinity_fields(uv: Tensor, limbs: Tensor, width: float, size: tuple[int, int]) -> Tensor:
    """The direction of each limb in the cells that it covers; where limbs of several people overlap, their mean.

    With v = (b - a) / |b - a|, limb a-b covers the cells c with 0 <= v.(c - a) <= |b - a| and |v x (c - a)| <= width.

    Args:
        uv: (N, P, 2) cells; NaN for a missing part. A limb needs both ends and a positive length.
        limbs: (L, 2) int64 parts.
        width: half the thickness of a limb, cells.
        size: (width, height) of the map, cells.

    Returns:
        (L, 2, height, width): (x, y) of vectors of length 1 at most.
    """
    start, end = uv[:, limbs[:, 0]], uv[:, limbs[:, 1]]
    length = (end - start).norm(dim=-1)
    unit = (end - start) / length[..., None]
    x = torch.arange(size[0], device=uv.device, dtype=uv.dtype) + 0.5 - start[..., 0, None]
    y = torch.arange(size[1], device=uv.device, dtype=uv.dtype) + 0.5 - start[..., 1, None]
    ux, uy = unit[..., 0, None], unit[..., 1, None]
    along = (uy * y)[..., :, None] + (ux * x)[..., None, :]
    across = (ux * y)[..., :, None] - (uy * x)[..., None, :]
    # comparisons with NaN are false, so limbs without an end or a length cover nothing
    covered = (along >= 0) & (along <= length[..., None, None]) & (across.abs() <= width)
    total = torch.einsum("nlhw,nlc->lchw", covered.to(uv.dtype), unit.nan_to_num())
    field: Tensor = total / covered.sum(0).clamp_min(1)[:, None]
    return field


def cover(boxes: Tensor, margin: float, size: tuple[int, int]) -> Tensor:
    """Mask of the cells whose centres lie in each box.

    Args:
        boxes: (N, 4) xyxy, cells; NaN covers nothing.
        margin: added on each side, cells.
        size: (width, height) of the map, cells.

    Returns:
        (N, height, width) bool.
    """
    x = torch.arange(size[0], device=boxes.device, dtype=boxes.dtype) + 0.5
    y = torch.arange(size[1], device=boxes.device, dtype=boxes.dtype) + 0.5
    x0, y0, x1, y1 = boxes[..., None].unbind(1)
    columns = (x >= x0 - margin) & (x <= x1 + margin)
    rows = (y >= y0 - margin) & (y <= y1 + margin)
    return rows[:, :, None] & columns[:, None, :]


# ---------------------------------------------------------------- geometry


def segment_distance(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Distance between the segments a-b and c-d, which may be points: (..., 2) each to (...); NaN for NaN."""

    def to_segment(p: Tensor, start: Tensor, end: Tensor) -> Tensor:
        line = end - start
        t = ((p - start) * line).sum(-1) / (line**2).sum(-1).clamp_min(1e-12)
        distance: Tensor = (p - start - t.clamp(0, 1)[..., None] * line).norm(dim=-1)
        return distance

    def side(p: Tensor, start: Tensor, end: Tensor) -> Tensor:
        line, off = end - start, p - start
        return line[..., 0] * off[..., 1] - line[..., 1] * off[..., 0]

    distance = torch.stack([to_segment(a, c, d), to_segment(b, c, d), to_segment(c, a, b), to_segment(d, a, b)]).amin(0)
    crossing = (side(c, a, b) * side(d, a, b) < 0) & (side(a, c, d) * side(b, c, d) < 0)
    return torch.where(crossing, 0.0, distance)
