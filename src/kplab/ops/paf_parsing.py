"""Parsing of confidence maps and part affinity fields into people.

Everything here is in cells of the map, as in ``ops.paf``. P parts, L limbs, M peaks.

Source: Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields", CVPR 2017; "OpenPose", TPAMI 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kplab.ops.paf import CUT

#: Ends of a limb within this distance, cells, leave no room for a field between them: they connect without one.
NEAR = 1.0
#: Penalty per cell of a limb's length when connections are ranked: among equals the shorter one wins.
LENGTH_COST = 1e-3


@dataclass(frozen=True)
class Rules:
    """Thresholds of the parsing.

    Args:
        peak: height above which a local maximum is a candidate.
        max_peaks: largest number of candidates of a part; the highest are kept.
        samples: number of samples of the field along the line between two candidates.
        min_paf: a sample is valid if the field's component along the line exceeds this value.
        min_kept: fraction of the samples that must be exceeded by the valid ones.
        long_limb: fraction of the map's height above which limbs are penalised; None disables it.
        bridges: whether redundant limbs also join two groups of parts, and not only a single candidate to a group.
    """

    peak: float = 0.1
    max_peaks: int = 60
    samples: int = 10
    min_paf: float = 0.05
    min_kept: float = 0.8
    long_limb: float | None = None
    bridges: bool = True


def find_peaks(maps: Tensor, threshold: float, max_peaks: int) -> tuple[Tensor, Tensor, Tensor]:
    """Local maxima of each map among their eight neighbours, with subpixel accuracy.

    Along each axis the parabola through the logs of three cells is exact for a Gaussian (as in DARK, whose mixed
    derivative is 0 for it); at the border the three cells are shifted inwards. Of a plateau the first cell is the peak.

    Args:
        maps: (P, H, W).
        threshold: candidates are higher than this, and than 0.
        max_peaks: largest number of candidates of a part; the highest are kept.

    Returns:
        (M,) int64 part, ascending, the highest peak of a part first; (M, 2) (x, y) in cells; (M,) height of the cell.
    """
    count, height, width = maps.shape
    stride = width + 2
    flat = F.pad(maps, (1, 1, 1, 1), value=-math.inf).flatten()
    index = torch.nonzero(flat > max(threshold, 0.0)).squeeze(1)
    steps = torch.tensor([-stride - 1, -stride, -stride + 1, -1, 1, stride - 1, stride, stride + 1], device=maps.device)
    around = flat.index_select(0, (index[:, None] + steps).flatten()).view(-1, 8)
    here = flat[index]
    top = (around[:, :4] < here[:, None]).all(1) & (around[:, 4:] <= here[:, None]).all(1)
    index, here = index[top], here[top]

    order = here.argsort(descending=True, stable=True)
    order = order[(index[order] // (stride * (height + 2))).argsort(stable=True)]
    index, here = index[order], here[order]
    part = index // (stride * (height + 2))
    kept = ranks(part, count) < max_peaks
    index, here, part = index[kept], here[kept], part[kept]

    row, column = index // stride % (height + 2) - 1, index % stride - 1
    x = column + 0.5 + _log_parabola(flat, index, 1, column, width)
    y = row + 0.5 + _log_parabola(flat, index, stride, row, height)
    return part, torch.stack([x, y], dim=-1), here


def _log_parabola(flat: Tensor, index: Tensor, step: int, position: Tensor, cells: int) -> Tensor:
    """Offset from a cell, at most one cell, of the top of the parabola through three logs along an axis."""
    if cells < 3:
        return flat.new_zeros(index.shape)
    shift = position.clamp(1, cells - 2) - position
    centre = index + shift * step
    # values far below a peak are noise, and may be negative
    before, middle, after = (flat[centre + d * step].clamp_min(CUT / 10).log() for d in (-1, 0, 1))
    curve = before - 2 * middle + after
    concave = curve < 0
    top = shift + (before - after) / 2 / torch.where(concave, curve, -1.0)
    return torch.where(concave, top.clamp(-1, 1), 0.0)


def ranks(part: Tensor, parts: int) -> Tensor:
    """(M,) rank of each candidate among those of its part, in the given order; parts may come in any order."""
    order = part.argsort(stable=True)
    number = torch.bincount(part, minlength=parts)
    first = number.cumsum(0) - number
    rank = torch.empty_like(part)
    rank[order] = torch.arange(len(part), device=part.device) - first[part[order]]
    return rank


def connect(fields: Tensor, limbs: Tensor, part: Tensor, uv: Tensor, rules: Rules) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs of candidates that the field between them supports.

    The score of a pair is the mean of field . direction over the valid samples. Samples are evenly spaced on the line,
    and start a cell from its ends (a quarter of the length of a short line), because the field of a limb fades out
    there. Pairs closer than ``NEAR`` connect independently of the field, with a score of at least ``min_paf``.

    Args:
        fields: (L, 2, H, W).
        limbs: (L, 2) int64 parts.
        part: (M,) int64 of the candidates, in any order.
        uv: (M, 2) cells.
        rules: sampling and acceptance.

    Returns:
        (Q,) int64 limb, ascending, the best pair of a limb first; (Q, 2) int64 candidates at its ends; (Q,) score.
    """
    if not len(part) or not len(limbs):
        return part.new_zeros(0), part.new_zeros(0, 2), uv.new_zeros(0)
    limb, pair = _pairs(limbs, part)
    start = uv.index_select(0, pair[:, 0])
    line = uv.index_select(0, pair[:, 1]) - start
    length = torch.hypot(line[:, 0], line[:, 1])
    near = length <= NEAR
    off = (1 / length.clamp_min(1e-6)).clamp_max(0.25)[:, None]
    steps = torch.linspace(0, 1, rules.samples, device=uv.device, dtype=uv.dtype)
    needed = math.floor(rules.min_kept * rules.samples + 1e-9) + 1

    # most pairs belong to two people, with no field between them: a pair whose probes all fail can't have enough valid samples
    probes = rules.samples - needed + 1
    few = steps[[(2 * i + 1) * rules.samples // (2 * probes) for i in range(probes)]]
    kept = _along(fields, limb, start, line, off + (1 - 2 * off) * few) > rules.min_paf
    possible = torch.nonzero(kept.any(-1) | near).squeeze(1)
    limb, pair, start, line = limb[possible], pair[possible], start[possible], line[possible]
    length, near, off = length[possible], near[possible], off[possible]

    along = _along(fields, limb, start, line, off + (1 - 2 * off) * steps)
    kept = along > rules.min_paf
    number = kept.sum(-1)
    score = (along * kept).sum(-1) / number.clamp_min(1)
    score = torch.where(near, score.clamp_min(rules.min_paf), score)
    good = near | (number >= needed)
    if rules.long_limb is not None:
        score = score + (rules.long_limb * fields.shape[-2] / length.clamp_min(1e-6) - 1).clamp_max(0)
        good = good & (score > 0)

    order = (score - LENGTH_COST * length).argsort(descending=True, stable=True)
    order = order[good[order]]
    order = order[limb[order].argsort(stable=True)]
    return limb[order], pair[order], score[order]


def _pairs(limbs: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
    """Every pair of candidates for every limb: (Q,) limb and (Q, 2) candidates."""
    parts = int(torch.maximum(limbs.max(), part.max())) + 1
    rank = ranks(part, parts)
    table = part.new_full((parts, int(rank.max()) + 1), -1)
    table[part, rank] = torch.arange(len(part), device=part.device)
    first, second = table[limbs[:, 0]], table[limbs[:, 1]]
    limb, i, j = torch.nonzero((first >= 0)[:, :, None] & (second >= 0)[:, None], as_tuple=True)
    return limb, torch.stack([first[limb, i], second[limb, j]], dim=-1)


def _along(fields: Tensor, limb: Tensor, start: Tensor, line: Tensor, places: Tensor) -> Tensor:
    """Component of fields along lines, interpolated bilinearly between cells; beyond the outer centres the border's value.

    Args:
        fields: (L, 2, H, W).
        limb: (Q,) int64 index of the field to sample.
        start: (Q, 2) cells.
        line: (Q, 2) cells, from the start to the end.
        places: (Q, S) positions of the samples: 0 at the start, 1 at the end.

    Returns:
        (Q, S).
    """
    height, width = fields.shape[-2:]
    x = (start[:, 0, None] + line[:, 0, None] * places - 0.5).clamp(0, width - 1)
    y = (start[:, 1, None] + line[:, 1, None] * places - 0.5).clamp(0, height - 1)
    x0, y0 = x.floor(), y.floor()
    dx, dy = x - x0, y - y0
    left = x0.long() + width * y0.long() + (2 * height * width) * limb[:, None]
    across = (x0 < width - 1).long()
    down = width * (y0 < height - 1).long()
    flat = fields.flatten()

    def at(cell: Tensor) -> Tensor:
        return flat.index_select(0, cell.flatten()).view_as(cell)

    def sample(cell: Tensor) -> Tensor:
        lower = cell + down
        return torch.lerp(
            torch.lerp(at(cell), at(cell + across), dx), torch.lerp(at(lower), at(lower + across), dx), dy
        )

    unit = line / torch.hypot(line[:, 0], line[:, 1]).clamp_min(1e-6)[:, None]
    return sample(left) * unit[:, 0, None] + sample(left + height * width) * unit[:, 1, None]


def assemble(
    part: Sequence[int],
    limb: Sequence[int],
    pair: Sequence[Sequence[int]],
    score: Sequence[float],
    redundant: Sequence[bool],
    bridges: bool = True,
) -> tuple[list[int], list[float]]:
    """Assemble people from candidates and the connections between them.

    Connections are used limb by limb in the given order, each if neither end is used by this limb yet (greedy matching).
    At first each candidate is a person; a connection joins the people at its ends if they share no part. A connection of
    a redundant limb never joins two single candidates, and without ``bridges`` it only joins a single candidate to a
    person.

    Args:
        part: M parts of the candidates.
        limb: Q limbs of the connections, in the order in which they are used.
        pair: Q pairs of candidates.
        score: Q scores.
        redundant: for each limb, whether the limbs before it connect its ends already (see ``pieces``).
        bridges: see above.

    Returns:
        for each of M candidates its person, identified by one of the person's candidates, and for each of these
        identifiers the sum of the scores of the connections used.
    """
    person = list(range(len(part)))
    members = [[i] for i in person]
    mask = [1 << p for p in part]
    evidence = [0.0] * len(part)
    used: set[tuple[int, int]] = set()
    for number, (i, j), value in zip(limb, pair, score, strict=True):
        if (number, i) in used or (number, j) in used:
            continue
        used |= {(number, i), (number, j)}
        p, q = person[i], person[j]
        if p == q or mask[p] & mask[q]:
            continue
        single = (len(members[p]) == 1) + (len(members[q]) == 1)
        if redundant[number] and (single == 2 or (single == 0 and not bridges)):
            continue
        for k in members[q]:
            person[k] = p
        members[p] += members[q]
        mask[p] |= mask[q]
        evidence[p] += evidence[q] + value
    return person, evidence
