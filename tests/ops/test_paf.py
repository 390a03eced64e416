"""Targets against their formulas, parsing against exhaustive search, and scenes of known people."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kplab.ops import paf, paf_parsing
from kplab.ops.paf_parsing import Rules

NAN = math.nan
#: Nose, neck, arms, legs, eyes and ears of the published order, with the two redundant limbs at the end.
COCO18 = [
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0), (0, 14),
    (14, 16), (0, 15), (15, 17), (2, 16), (5, 17),
]  # fmt: skip
#: (x, y) of a person of 112 x 192 pixels whose same limbs run apart.
STICK = np.array([
    (56, 20), (56, 40), (36, 42), (20, 70), (8, 96), (76, 42), (92, 70), (104, 96), (42, 104), (38, 144), (36, 184),
    (70, 104), (74, 144), (76, 184), (50, 14), (62, 14), (40, 20), (72, 20),
], dtype=float)  # fmt: skip


def read(
    people: Tensor, limbs: list[tuple[int, int]], size: tuple[int, int], sigma: float, width: float, **rules: object
):  # type: ignore[no-untyped-def]
    """Encode people (N, P, 2), cells, and decode them: a list of {part: (x, y)}."""
    maps = paf.confidence_maps(people, sigma, size)
    fields = paf.affinity_fields(people, torch.tensor(limbs), width, size)
    return parse(maps, fields, limbs, Rules(**rules))  # type: ignore[arg-type]


def parse(maps: Tensor, fields: Tensor, limbs: list[tuple[int, int]], rules: Rules) -> list[dict[int, np.ndarray]]:
    part, uv, _ = paf_parsing.find_peaks(maps, rules.peak, rules.max_peaks)
    return group(part, uv, paf_parsing.connect(fields, torch.tensor(limbs), part, uv, rules), limbs, rules.bridges)


def group(part: Tensor, uv: Tensor, found: tuple[Tensor, ...], limbs: list[tuple[int, int]], bridges: bool = True):  # type: ignore[no-untyped-def]
    _, redundant = paf.pieces(limbs, int(torch.tensor(limbs).max()) + 1)
    owner, _ = paf_parsing.assemble(part.tolist(), *(f.tolist() for f in found), redundant, bridges)  # type: ignore[arg-type]
    people: dict[int, dict[int, np.ndarray]] = {}
    for person, p, xy in zip(owner, part.tolist(), uv.numpy(), strict=True):
        people.setdefault(person, {})[p] = xy
    return list(people.values())


def same(found: list[dict[int, np.ndarray]], people: Tensor, limit: float) -> float:
    """Check that exactly these people were found, and return the largest error."""
    assert len(found) == len(people)
    worst = 0.0
    left = list(found)
    for person in people.numpy():
        there = [p for p in range(len(person)) if np.isfinite(person[p, 0])]
        mine = min(left, key=lambda f: sum(np.linalg.norm(f[p] - person[p]) if p in f else 1e6 for p in there))
        left = [f for f in left if f is not mine]
        assert sorted(mine) == there
        worst = max([worst, *(float(np.linalg.norm(mine[p] - person[p])) for p in there)])
    assert worst <= limit
    return worst


# ---------------------------------------------------------------- limbs


def test_published_limbs_have_the_two_redundant_ones_last() -> None:
    piece, redundant = paf.pieces(COCO18, 18)
    assert len(set(piece)) == 1
    assert redundant == [False] * 17 + [True] * 2


def test_derived_limbs_grow_from_the_best_connected_part() -> None:
    limbs = paf.limbs_of([(4, 3), (3, 2), (2, 1), (1, 0), (2, 5), (5, 4), (2, 3)], 6)
    # 2 has most edges; then breadth first, and 5-4 or 3-4 closes the cycle
    assert limbs == [(2, 3), (2, 1), (2, 5), (3, 4), (1, 0), (4, 5)]
    assert paf.pieces(limbs, 6)[1] == [False] * 5 + [True]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda e: e[0] != e[1]), max_size=20))
def test_limbs_are_a_forest_and_the_rest(edges: list[tuple[int, int]]) -> None:
    limbs = paf.limbs_of(edges, 10)
    assert {frozenset(limb) for limb in limbs} == {frozenset(e) for e in edges}
    assert len(limbs) == len({frozenset(e) for e in edges})
    piece, redundant = paf.pieces(limbs, 10)
    assert redundant == sorted(redundant)
    assert redundant.count(False) == 10 - len(set(piece))


# ---------------------------------------------------------------- targets


def test_maps_have_the_gaussian_of_the_published_code_and_the_maximum_over_people() -> None:
    """Not the papers' exp(-d**2 / sigma**2), and not the sum."""
    people = torch.tensor([[[10.5, 8.5]], [[13.5, 8.5]]])
    m = paf.confidence_maps(people, 2.0, (24, 16))[0]
    assert float(m[8, 10]) == 1
    assert float(m[8, 8]) == pytest.approx(math.exp(-4 / 8))
    assert float(m[8, 12]) == pytest.approx(math.exp(-1 / 8))
    assert float(m.max()) == 1
    # cut off below a hundredth, at 3.03 sigma
    assert float(m[8, 4]) == pytest.approx(math.exp(-36 / 8), rel=1e-5)
    assert float(m[8, 3]) == 0
    assert paf.confidence_maps(torch.zeros(0, 3, 2), 2.0, (4, 5)).shape == (3, 5, 4)
    assert float(paf.confidence_maps(torch.tensor([[[NAN, NAN]]]), 2.0, (4, 5)).max()) == 0


def independent_field(people: np.ndarray, limb: tuple[int, int], width: float, size: tuple[int, int]) -> np.ndarray:
    """The definition, cell by cell."""
    out = np.zeros((2, size[1], size[0]))
    for row, column in itertools.product(range(size[1]), range(size[0])):
        vectors = []
        for person in people:
            a, b = person[limb[0]], person[limb[1]]
            length = math.dist(a, b)
            if not length > 0:
                continue
            v = (b - a) / length
            d = np.array([column + 0.5, row + 0.5]) - a
            if 0 <= v @ d <= length and abs(v[0] * d[1] - v[1] * d[0]) <= width:
                vectors.append(v)
        if vectors:
            out[:, row, column] = np.mean(vectors, axis=0)
    return out


def test_fields_equal_their_definition() -> None:
    """With a missing end, a limb without a length, and two people whose limbs cross; per limb, not per channel."""
    people = np.random.default_rng(0).uniform(0, 20, (4, 3, 2))
    people[1, 0] = NAN
    people[2, 1] = people[2, 0]
    people[3, :2] = [[12.2, 3.0], [4.0, 16.0]]
    people[0, :2] = [[4.1, 4.2], [14.0, 15.0]]
    limbs = [(0, 1), (2, 1)]
    found = paf.affinity_fields(torch.from_numpy(people), torch.tensor(limbs), 1.2, (20, 18)).numpy()
    for got, limb in zip(found, limbs, strict=True):
        np.testing.assert_allclose(got, independent_field(people, limb, 1.2, (20, 18)), atol=1e-12)
    crossing = np.hypot(*found[0])[8:11, 7:11]
    assert (crossing < 0.8).any(), "where limbs cross, the mean is shorter than 1"


@given(st.lists(st.floats(0, 20), min_size=8, max_size=8), st.floats(0.5, 3))
def test_a_field_is_a_unit_vector_on_one_limb_and_never_longer(numbers: list[float], width: float) -> None:
    people = torch.tensor(numbers, dtype=torch.float64).view(2, 2, 2)
    both = paf.affinity_fields(people, torch.tensor([(0, 1)]), width, (20, 20)).norm(dim=1)
    assert float(both.max()) <= 1 + 1e-9
    one = paf.affinity_fields(people[:1], torch.tensor([(0, 1)]), width, (20, 20)).norm(dim=1)
    assert ((one - 1).abs().lt(1e-9) | (one == 0)).all()


def test_a_reversed_limb_is_the_negative_field_and_a_turned_one_the_turned_field() -> None:
    people = torch.tensor([[[3.2, 4.1], [14.7, 11.3]], [[15.1, 2.2], [4.4, 9.9]]], dtype=torch.float64)
    ahead = paf.affinity_fields(people, torch.tensor([(0, 1)]), 1.0, (20, 20))
    back = paf.affinity_fields(people, torch.tensor([(1, 0)]), 1.0, (20, 20))
    torch.testing.assert_close(back, -ahead)
    # a quarter turn: (x, y) -> (20 - y, x)
    turned = torch.stack([20 - people[..., 1], people[..., 0]], dim=-1)
    field = paf.affinity_fields(turned, torch.tensor([(0, 1)]), 1.0, (20, 20))
    expected = torch.rot90(ahead, -1, (2, 3))
    torch.testing.assert_close(field, torch.stack([-expected[:, 1], expected[:, 0]], dim=1))


def test_cover_counts_cell_centres() -> None:
    boxes = torch.tensor([[2.0, 1.0, 4.6, 3.0], [NAN] * 4])
    covered = paf.cover(boxes, 0.0, (8, 6))
    assert covered[0].nonzero().tolist() == [[r, c] for r in (1, 2) for c in (2, 3, 4)]
    assert not covered[1].any()
    assert paf.cover(boxes, 0.5, (8, 6))[0].sum() == 4 * 4


# ---------------------------------------------------------------- peaks


def test_peaks_are_found_to_a_fraction_of_a_cell() -> None:
    """Exact for a Gaussian, at the border as well, up to the precision of float32 logs."""
    random = torch.Generator().manual_seed(0)
    uv = torch.rand(500, 1, 1, 2, generator=random) * torch.tensor([20.0, 16.0])
    for point in uv:
        part, found, height = paf_parsing.find_peaks(paf.confidence_maps(point, 1.0, (20, 16)), 0.1, 9)
        assert part.tolist() == [0]
        assert (found - point[0]).abs().max() < 1e-4
        assert math.exp(-0.25) - 1e-6 <= float(height) <= 1


def test_a_peak_between_cells_is_one_peak() -> None:
    for x, y in [(8.0, 8.5), (8.5, 8.0), (8.0, 8.0)]:
        part, found, _ = paf_parsing.find_peaks(paf.confidence_maps(torch.tensor([[[x, y]]]), 1.0, (20, 16)), 0.1, 9)
        assert len(part) == 1
        assert found[0].tolist() == pytest.approx([x, y], abs=1e-4)


def test_peaks_are_the_maxima_that_scipy_finds() -> None:
    from scipy.ndimage import maximum_filter

    maps = torch.rand(5, 30, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    part, found, height = paf_parsing.find_peaks(maps, 0.6, 10_000)
    wanted = (maximum_filter(maps.numpy(), (1, 3, 3), mode="constant", cval=-1) == maps.numpy()) & (maps.numpy() > 0.6)
    cell = found.floor()
    assert len(part) == wanted.sum()
    assert sorted(height.tolist()) == sorted(maps.numpy()[wanted].tolist())
    # what is refined stays within a cell of its maximum
    assert all(
        wanted[p, max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2].any()
        for p, (c, r) in zip(part.tolist(), cell.long().tolist(), strict=True)
    )
    # the best of each part, in order
    best, _, some = paf_parsing.find_peaks(maps, 0.6, 3)
    assert best.tolist() == [p for p in range(5) for _ in range(3)]
    assert some.tolist() == [h for p in range(5) for h in height[part == p][:3].tolist()]
    assert all((height[part == p].diff() <= 0).all() for p in range(5))


@pytest.mark.parametrize("value", [0.0, -1.0, 1.0])
def test_flat_maps_have_one_peak_at_most(value: float) -> None:
    assert len(paf_parsing.find_peaks(torch.full((2, 5, 7), value), 0.1, 9)[0]) == (2 if value == 1 else 0)
    assert len(paf_parsing.find_peaks(torch.full((2, 1, 1), value), 0.1, 9)[0]) == (2 if value == 1 else 0)


# ---------------------------------------------------------------- connections


def independent_scores(
    fields: np.ndarray, limbs: list[tuple[int, int]], part: np.ndarray, uv: np.ndarray, rules: Rules
):  # type: ignore[no-untyped-def]
    """Every pair, one after the other, by SciPy's bilinear interpolation."""
    from scipy.ndimage import map_coordinates

    out = {}
    for c, (a, b) in enumerate(limbs):
        for i, j in itertools.product(np.flatnonzero(part == a), np.flatnonzero(part == b)):
            length = math.dist(uv[i], uv[j])
            margin = min(1.0, length / 4)
            unit = (uv[j] - uv[i]) / length
            at = uv[i] + unit * np.linspace(margin, length - margin, rules.samples)[:, None]
            values = [map_coordinates(f, [at[:, 1] - 0.5, at[:, 0] - 0.5], order=1, mode="nearest") for f in fields[c]]
            along = values[0] * unit[0] + values[1] * unit[1]
            kept = along > rules.min_paf
            score = along[kept].mean() if kept.any() else 0.0
            good = kept.mean() > rules.min_kept
            if length <= 1:
                good, score = True, max(score, rules.min_paf)
            if rules.long_limb is not None:
                score += min(rules.long_limb * fields.shape[2] / length - 1, 0)
                good = good and score > 0
            if good:
                out[c, int(i), int(j)] = score
    return out


@pytest.mark.parametrize(
    "rules", [Rules(), Rules(min_kept=0.3, samples=7), Rules(min_kept=0.0), Rules(min_kept=0.95), Rules(long_limb=0.2)]
)
def test_scores_equal_those_of_exhaustive_search(rules: Rules) -> None:
    """Means of valid samples only, on smooth random fields, where many pairs are supported in part."""
    random = np.random.default_rng(2)
    coarse = torch.from_numpy(random.normal(size=(3, 2, 5, 6)))
    fields = torch.nn.functional.interpolate(coarse, size=(20, 28), mode="bicubic")
    limbs = [(0, 1), (2, 1), (2, 0)]
    part = random.integers(0, 3, 40)
    uv = random.uniform(0, [28, 20], (40, 2))
    uv[1] = uv[0] + 0.3
    limb, pair, score = paf_parsing.connect(
        fields, torch.tensor(limbs), torch.from_numpy(part), torch.from_numpy(uv), rules
    )
    wanted = independent_scores(fields.numpy(), limbs, part, uv, rules)
    found = {(c, i, j): s for c, (i, j), s in zip(limb.tolist(), pair.tolist(), score.tolist(), strict=True)}
    assert found.keys() == wanted.keys()
    assert len(found) > 20
    for key, value in wanted.items():
        assert found[key] == pytest.approx(value, abs=1e-9)
    assert limb.tolist() == sorted(limb.tolist())


def test_the_score_is_the_mean_of_the_valid_samples() -> None:
    fields = torch.zeros(1, 2, 8, 20)
    fields[0, 0, :, :16] = 0.6
    part, uv = torch.tensor([0, 1]), torch.tensor([[0.5, 4.0], [18.0, 4.0]])
    rules = Rules(samples=12, min_kept=0.5)
    _, _, score = paf_parsing.connect(fields, torch.tensor([(0, 1)]), part, uv, rules)
    assert float(score) > 0.59, "the dropped samples would pull the mean to 0.55"
    assert len(paf_parsing.connect(fields, torch.tensor([(0, 1)]), part, uv, Rules(samples=12, min_kept=0.95))[0]) == 0


def test_x_and_y_are_not_mixed_up() -> None:
    """On a map that is not square, along each axis."""
    for a, b in [((3.0, 5.0), (30.0, 5.0)), ((3.0, 2.0), (3.0, 18.0))]:
        people = torch.tensor([[a, b]])
        assert same(read(people, [(0, 1)], (36, 20), 1.0, 1.0), people, 1e-3) < 1e-3


def test_neighbours_in_a_row_keep_their_own_ends() -> None:
    """Head to tail, a long wrong limb runs through two right ones, and scores as well as they do; the shorter win."""
    for gap in (3.0, 1.0):
        people = torch.tensor([[[4.0, 9.3], [16.0, 9.3]], [[16.0 + gap, 9.3], [28.0 + gap, 9.3]]])
        same(read(people, [(0, 1)], (36, 20), 1.0, 1.0), people, 1e-3)


# ---------------------------------------------------------------- people


@pytest.mark.parametrize("stride", [1, 4, 8])
def test_six_people_are_recovered_at_every_stride(stride: int) -> None:
    """The published decoder is off by up to 0.70, 1.05 and 1.22 pixels at strides 1, 4 and 8; this one reads Gaussians exactly.

    Limit: what the logs of float32 leave, 1e-4 cells at a flat Gaussian of sigma 7 cells.
    """
    offsets = np.array([(20.3 + 170.7 * (i % 3), 4.1 + 195.9 * (i // 3)) for i in range(6)])
    people = torch.from_numpy((STICK + offsets[:, None]) / stride).float()
    found = read(people, COCO18, (544 // stride, 400 // stride), 7 / stride, 8 / stride)
    assert same(found, people, 0.01) * stride < 0.01


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[tuple[int, int]], Tensor]:
    """A random tree of parts, and people with 1 to all of them, in columns of their own: no limbs of theirs meet."""
    parts = draw(st.integers(2, 7))
    limbs = [(draw(st.integers(0, i - 1)), i) for i in range(1, parts)]
    count = draw(st.integers(1, 4))
    unit = st.floats(0, 1, width=32)
    people = torch.tensor(
        [[[24 * n + 16 * draw(unit), 30 * draw(unit)] for _ in range(parts)] for n in range(count)], dtype=torch.float32
    )
    return limbs, people


@settings(max_examples=150, deadline=None)
@given(scenes())
def test_every_person_of_a_clear_scene_is_recovered(scene: tuple[list[tuple[int, int]], Tensor]) -> None:
    """Eight cells between people: whatever the tree, and however short and crossed a person's own limbs are."""
    limbs, people = scene
    same(read(people, limbs, (92, 32), 1.0, 1.0), people, 0.01)


@settings(max_examples=60, deadline=None)
@given(scenes(), st.randoms(use_true_random=False))
def test_the_order_of_peaks_does_not_matter(scene: tuple[list[tuple[int, int]], Tensor], random) -> None:  # type: ignore[no-untyped-def]
    limbs, people = scene
    part, uv, _ = paf_parsing.find_peaks(paf.confidence_maps(people, 1.0, (92, 32)), 0.1, 60)
    fields = paf.affinity_fields(people, torch.tensor(limbs), 1.0, (92, 32))
    order = list(range(len(part)))
    random.shuffle(order)
    part, uv = part[order], uv[order]
    same(group(part, uv, paf_parsing.connect(fields, torch.tensor(limbs), part, uv, Rules()), limbs), people, 0.01)


def test_crossing_limbs_are_separated_where_little_of_them_overlaps() -> None:
    """A right-angled crossing spoils a fifth of a short limb at most; where two run over each other, evidence is gone."""
    crossing = torch.tensor([[[4.0, 4.0], [28.0, 28.0]], [[28.0, 4.5], [4.0, 28.5]]])
    same(read(crossing, [(0, 1)], (32, 32), 1.0, 1.0), crossing, 1e-3)
    opposite = torch.tensor([[[4.0, 10.0], [28.0, 10.0]], [[25.0, 10.1], [7.0, 10.1]]])
    # all that is left are the three cells at either end
    for found in read(opposite, [(0, 1)], (32, 32), 1.0, 1.0):
        assert len(found) == 1 or np.linalg.norm(found[0] - found[1]) < 4


def test_an_empty_image_and_a_single_joint() -> None:
    limbs = [(0, 1), (1, 2)]
    assert read(torch.zeros(0, 3, 2), limbs, (20, 20), 1.0, 1.0) == []
    (lone,) = read(torch.tensor([[[NAN, NAN], [5.0, 6.0], [NAN, NAN]]]), limbs, (20, 20), 1.0, 1.0)
    assert list(lone) == [1]
    (chain,) = read(torch.tensor([[[3.0, 3.0], [9.0, 6.0], [14.0, 14.0]]]), limbs, (20, 20), 1.0, 1.0)
    assert sorted(chain) == [0, 1, 2], "the part with index 0 is a part like any other"


def test_a_wrist_without_its_elbow_is_a_person_of_its_own() -> None:
    arm = [[4.0, 4.0], [NAN, NAN], [24.0, 20.0]]
    found = read(torch.tensor([arm]), [(0, 1), (1, 2)], (32, 32), 1.0, 1.0)
    assert sorted(sorted(f) for f in found) == [[0], [2]]


SQUARE = [(0, 1), (1, 2), (2, 3), (0, 3)]


@pytest.mark.parametrize("bridges", [True, False])
@pytest.mark.parametrize(
    ("missing", "split"),
    [
        # 0-3 is redundant: it never joins two single peaks, ...
        ([1, 2], [[0], [3]]),
        # ... adds a single one to a person, ...
        ([2], [[0, 1, 3]]),
        ([], [[0, 1, 2, 3]]),
    ],
)
def test_redundant_limbs_complete_people_and_never_create_them(
    missing: list[int], split: list[list[int]], bridges: bool
) -> None:
    person = torch.tensor([[[4.0, 4.0], [20.0, 5.0], [21.0, 20.0], [5.0, 22.0]]])
    person[0, missing] = NAN
    found = read(person, SQUARE, (28, 28), 1.0, 1.0, bridges=bridges)
    assert sorted(sorted(f) for f in found) == split


def test_redundant_limbs_bridge_a_gap_where_they_may() -> None:
    ring = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)]
    person = torch.tensor([[[4.0, 4.0], [20.0, 5.0], [NAN, NAN], [15.0, 22.0], [3.0, 20.0]]])
    assert sorted(map(sorted, read(person, ring, (28, 28), 1.0, 1.0))) == [[0, 1, 3, 4]]
    assert sorted(map(sorted, read(person, ring, (28, 28), 1.0, 1.0, bridges=False))) == [[0, 1], [3, 4]]


def test_people_who_share_a_part_are_never_joined() -> None:
    # 0-1 and 0'-1' exist; a false connection 0'-1 follows through another limb
    owner, evidence = paf_parsing.assemble(
        [0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [(0, 2), (1, 3), (2, 4), (3, 4), (1, 4)], [0.9, 0.8, 0.7, 0.6, 0.5],
        [False, False, False, True],
    )  # fmt: skip
    assert owner[0] == owner[2] == owner[4] != owner[1]
    assert owner[1] == owner[3]
    assert evidence[owner[0]] == pytest.approx(0.9 + 0.7)
    assert evidence[owner[1]] == pytest.approx(0.8)


def test_matching_within_a_limb_is_greedy() -> None:
    """0.9 + 0.1 is taken before 0.8 + 0.7, as published."""
    owner, _ = paf_parsing.assemble(
        [0, 0, 1, 1], [0] * 4, [(0, 2), (0, 3), (1, 2), (1, 3)], [0.9, 0.8, 0.7, 0.1], [False]
    )
    assert owner[0] == owner[2]
    assert owner[1] == owner[3]


# ---------------------------------------------------------------- distances


@settings(max_examples=200)
@given(st.lists(st.floats(-10, 10), min_size=8, max_size=8))
def test_segment_distance_is_the_least_over_many_points(numbers: list[float]) -> None:
    a, b, c, d = torch.tensor(numbers, dtype=torch.float64).view(4, 2)
    t = torch.linspace(0, 1, 401, dtype=torch.float64)[:, None]
    dense = ((a + t * (b - a))[:, None] - (c + t * (d - c))).norm(dim=-1).min()
    found = paf.segment_distance(a, b, c, d)
    # 401 points on up to 28 cells: a step of 0.07, of which half on each
    assert float(found) <= float(dense) + 1e-6
    assert float(dense - found) < 0.08
