"""Figures of interest points against what they must be for perfect, empty, moved and random points."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kplab.metrics.repeatability import (
    assign,
    chance,
    common,
    corner_error,
    descriptor_distances,
    matching,
    mutual_nearest,
    project,
    ratios,
    repeatability,
)
from kplab.ops import affine

SIZE = (320, 240)


def scattered(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, SIZE, (n, 2))


def test_perfect_moved_and_missing_points() -> None:
    """1 for the same points, whatever their order; 0 against none; NaN where there is nothing to find again."""
    xy, none = scattered(200), np.zeros((0, 2))
    figures = repeatability(xy, xy[::-1])
    assert figures == {"repeatability": 1, "repeatability_symmetric": 1, "localisation_px": 0}
    moved = repeatability(xy, xy + np.array([0.6, 0.8]))
    assert moved["repeatability"] == 1
    assert repeatability(xy[:1], xy[:1] + np.array([0.6, 0.8]))["localisation_px"] == pytest.approx(1)
    for a, b in ((xy, none), (none, xy)):
        figures = repeatability(a, b)
        assert figures["repeatability"] == figures["repeatability_symmetric"] == 0
        assert np.isnan(figures["localisation_px"])
    assert all(np.isnan(v) for v in repeatability(none, none).values())


def test_a_point_is_found_again_once() -> None:
    """Three points around one: one pair of three, while the symmetric form counts all four."""
    crowd = np.array([[10.0, 10], [11, 10], [10, 11]])
    figures = repeatability(crowd, np.array([[10.0, 10], [99, 99], [150, 9]]))
    assert figures["repeatability"] == pytest.approx(1 / 3)
    assert figures["repeatability_symmetric"] == pytest.approx(4 / 6)


@given(st.integers(0, 10_000))
def test_assignment_is_the_best_there_is(seed: int) -> None:
    """Against all permutations of five: most pairs first, then the least sum."""
    distance = np.random.default_rng(seed).uniform(0, 6, (5, 5))
    radius = 3.0
    i, j = assign(distance, radius)
    assert (distance[i, j] <= radius).all()
    assert len(set(i)) == len(set(j)) == len(i)
    options = []
    for order in permutations(range(5)):
        d = distance[np.arange(5), order]
        options.append((-(d <= radius).sum(), d[d <= radius].sum()))
    most, least = min(options)
    assert len(i) == -most
    assert distance[i, j].sum() == pytest.approx(least)


def test_points_anywhere_score_by_chance() -> None:
    """300 points in 320x240 within 3 px: .105 symmetric (.101 published), .099 one-to-one; edges cost 1 % of the disc.

    A trial's standard deviation is about .018, so that the mean of 150 is known to .0015; the tolerance is three of them.
    """
    assert chance(300, 320 * 240, 3) == pytest.approx(0.105, abs=0.0005)
    runs = [repeatability(scattered(300, 2 * s), scattered(300, 2 * s + 1)) for s in range(150)]
    mean = {k: np.mean([r[k] for r in runs]) for k in runs[0]}
    # the mean disc that lies inside the frame: a share of 4 r / (3 pi) per unit of half-perimeter over area is cut off
    inner = 1 - 4 * 3 / (3 * np.pi) * (1 / 320 + 1 / 240)
    load = 300 * np.pi * 9 / (320 * 240) * inner
    assert mean["repeatability_symmetric"] == pytest.approx(1 - np.exp(-load), abs=0.0045)
    # edges, less one for every two that share a point, plus one for every star of three and every path of three
    assert mean["repeatability"] == pytest.approx(load - load**2 + 4 / 3 * load**3, abs=0.0045)
    # pairs are spread evenly over the disc: mean radius 2/3, drawn in a little where there is a choice
    assert mean["localisation_px"] == pytest.approx(2, abs=0.06)


def test_homographies_lead_from_a_to_b() -> None:
    """A known warp of a corner; its inverse leads back; what is behind the camera is nowhere."""
    matrix = affine.translation(10, 20) @ affine.scaling(2, 3)
    np.testing.assert_allclose(project(matrix, np.array([[1.0, 1.0]])), [[12, 23]])
    tilt = np.array([[1, 0.1, 5], [0, 1.1, -3], [0.001, 0, 1.0]])
    xy = scattered(50)
    np.testing.assert_allclose(project(np.linalg.inv(tilt), project(tilt, xy)), xy, atol=1e-9)
    np.testing.assert_allclose(project(tilt, np.array([[100.0, 0]])), [[105 / 1.1, -3 / 1.1]])
    behind = np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1.0]])
    assert np.isnan(project(behind, np.array([[150.0, 5]]))).all()


def test_only_what_both_see_counts() -> None:
    """The second image shows the right half moved left: either side's points without a counterpart are no misses."""
    there = affine.translation(-160, 0)
    a = scattered(400)
    b = np.concatenate([project(there, a), scattered(50) + np.array([160, 0])])
    b = b[(b >= 0).all(1) & (b <= SIZE).all(1)]
    see_a = common(a, there, SIZE, SIZE)
    see_b = common(b, np.linalg.inv(there), SIZE, SIZE)
    assert (see_a == (a[:, 0] >= 160)).all()
    assert (see_b == (b[:, 0] <= 160)).all()
    assert repeatability(project(there, a[see_a]), b[see_b], 0.01)["repeatability"] == 1
    one_sided = repeatability(project(there, a[see_a]), b, 0.01)["repeatability_symmetric"]
    assert one_sided < 0.97
    # the margin is that of both frames
    near = np.array([[162.0, 100], [200, 3], [200, 100], [318, 50]])
    assert common(near, there, SIZE, SIZE, margin=5).tolist() == [False, False, True, False]


def test_descriptors_are_apart_as_defined() -> None:
    """Euclid against a loop, Hamming against counting bits; of a place's several descriptors the nearest counts."""
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 200, (6, 128)).astype(np.float32), rng.uniform(0, 200, (4, 128)).astype(np.float32)
    full = descriptor_distances(a, b)
    np.testing.assert_allclose(full, [[np.linalg.norm(x - y) for y in b] for x in a], rtol=1e-6)
    bits = [rng.integers(0, 256, (n, 32)).astype(np.uint8) for n in (6, 4)]
    wanted = [[sum(int(p ^ q).bit_count() for p, q in zip(x, y, strict=True)) for y in bits[1]] for x in bits[0]]
    np.testing.assert_array_equal(descriptor_distances(*bits), wanted)
    places = descriptor_distances(a, b, np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2]))
    assert places.shape == (3, 3)
    assert places[0, 1] == full[:2, 1:3].min()
    assert places[2, 2] == full[3:, 3].min()
    assert descriptor_distances(a[:0], b, np.zeros(0, int), np.arange(4)).shape == (0, 4)


def test_mutual_nearest_neighbours() -> None:
    """Row 1 likes column 0 as well, which likes row 0 better."""
    distance = np.array([[1.0, 9, 9], [2, 9, 9], [9, 9, 3]])
    i, j = mutual_nearest(distance)
    assert (i.tolist(), j.tolist()) == ([0, 2], [0, 2])
    assert len(mutual_nearest(np.zeros((0, 3)))[0]) == 0


@given(st.integers(0, 10_000), st.integers(0, 30))
def test_matching_accuracy_never_falls(seed: int, n: int) -> None:
    """A longer distance allows more matches."""
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0, 30, (n, 2)), rng.uniform(0, 30, (n, 2))
    thresholds = range(1, 11)
    figures = matching(a, b, (np.arange(n), rng.permutation(n)), thresholds, 3)
    curve = [figures[f"mma@{t}"] for t in thresholds]
    assert n == 0 or curve == sorted(curve)
    assert n == 0 or figures["matching_score"] == pytest.approx(figures["mma@3"])


def test_matching_by_hand() -> None:
    """Two matches, 1 and 5 px off, of four and three points; without a match 0, without a point NaN."""
    a, b = np.array([[0.0, 0], [10, 0], [20, 0], [30, 0]]), np.array([[0.0, 1], [10, 5], [50, 50]])
    figures = matching(a, b, (np.array([0, 1]), np.array([0, 1])), (1, 3, 5), 3)
    assert figures == {"matching_score": pytest.approx(1 / 3), "mma@1": 0.5, "mma@3": 0.5, "mma@5": 1.0}
    none = (np.zeros(0, int), np.zeros(0, int))
    assert matching(a, b, none, (3,), 3) == {"matching_score": 0.0, "mma@3": 0.0}
    assert matching(a[:0], b, none, (3,), 3) == {"matching_score": 0.0, "mma@3": 0.0}
    assert all(np.isnan(v) for v in matching(a[:0], b[:0], none, (3,), 3).values())


def test_ratios_tell_unique_points() -> None:
    """1 to 4 is unique, 3 to 3 is not, whatever lies further off; twins at distance 0 are not unique either."""
    found = ratios(np.array([[9.0, 1, 4], [3, 8, 3], [0, 0, 5]]))
    np.testing.assert_allclose(found, [0.25, 1, 1])
    assert np.isnan(ratios(np.ones((2, 1)))).all()


def test_corner_error_is_that_of_the_corners() -> None:
    """A shift is an error of its length; a doubling about the first corner one of the mean distance to it."""
    assert corner_error(affine.translation(3, 4), np.eye(3), (100, 50)) == pytest.approx(5)
    mean = (0 + 100 + 50 + np.hypot(100, 50)) / 4
    assert corner_error(affine.scaling(2, 2), np.eye(3), (100, 50)) == pytest.approx(mean)
    assert corner_error(None, np.eye(3), (100, 50)) == np.inf
    assert corner_error(np.full((3, 3), np.nan), np.eye(3), (100, 50)) == np.inf
