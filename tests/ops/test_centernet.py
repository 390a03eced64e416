"""CenterNet's formulas against golden numbers, SciPy, and NumPy written from the formulas cell by cell."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter
from scipy.optimize import brentq

from kplab.ops import centernet

#: (h, w), radius of the released code, and radius with the formula's true roots; overlap 0.7
RADII = [
    ((1, 1), 0.2733, 0.082),
    ((5, 5), 1.3666, 0.408),
    ((10, 10), 2.7332, 0.817),
    ((10, 30), 4.1870, 1.197),
    ((20, 40), 7.3559, 2.155),
    ((64, 64), 17.4925, 5.227),
    ((100, 50), 18.3896, 5.387),
    ((128, 128), 34.9850, 10.454),
]


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("size", "released", "corrected"), RADII)
def test_radius_has_its_golden_values(size: tuple[int, int], released: float, corrected: float) -> None:
    """Half of the last digit given."""
    for box in (size, size[::-1]):
        sides = np.array(box, dtype=np.float64)
        assert centernet.gaussian_radius(sides) == pytest.approx(released, abs=5e-5)
        assert centernet.gaussian_radius(sides, corrected=True) == pytest.approx(corrected, abs=5e-4)


@settings(max_examples=100)
@given(st.floats(1, 300), st.floats(1, 300), st.floats(0.3, 0.9))
def test_corrected_radius_keeps_the_overlap(h: float, w: float, o: float) -> None:
    """The least of the radii at which boxes shifted, shrunk and grown have just this overlap, found numerically."""

    def shifted(r: float) -> float:
        common = (h - r) * (w - r)
        return common / (2 * h * w - common)

    def shrunk(r: float) -> float:
        return (h - 2 * r) * (w - 2 * r) / (h * w)

    def grown(r: float) -> float:
        return h * w / ((h + 2 * r) * (w + 2 * r))

    least = min(h, w)
    ends = [(shifted, least), (shrunk, least / 2), (grown, 10 * max(h, w))]
    wanted = min(brentq(lambda r, f=f: f(r) - o, 0, end, xtol=1e-12) for f, end in ends)
    assert centernet.gaussian_radius(np.array([w, h]), o, corrected=True) == pytest.approx(wanted, abs=1e-6)


def test_gaussian_equals_the_formula_in_each_cell() -> None:
    """sigma is (2 r + 1) / 6, and not r / 3; zero outside the square of 2 r + 1 cells, at the border too."""
    cells, radii, size = [(7, 5), (0, 11), (19, 3)], [3, 4, 0], (20, 12)
    drawn = centernet.gaussians(torch.tensor(cells), torch.tensor(radii), size)
    wanted = np.zeros((3, 12, 20))
    for n, ((x, y), r) in enumerate(zip(cells, radii, strict=True)):
        sigma = (2 * r + 1) / 6
        for row in range(max(0, y - r), min(12, y + r + 1)):
            for column in range(max(0, x - r), min(20, x + r + 1)):
                wanted[n, row, column] = math.exp(-((row - y) ** 2 + (column - x) ** 2) / (2 * sigma**2))
    np.testing.assert_allclose(drawn.numpy(), wanted, atol=1e-6)  # float32
    assert (drawn == 1).sum((1, 2)).tolist() == [1, 1, 1]
    assert drawn[0, 5, 7] == drawn[1, 11, 0] == drawn[2, 3, 19] == 1


def test_exactly_one_cell_of_a_gaussian_is_positive() -> None:
    drawn = centernet.gaussians(torch.tensor([300, 200]), torch.tensor(500), (600, 400))
    assert (drawn == 1).sum() == 1


@settings(max_examples=100)
@given(st.lists(st.floats(-3, 12), min_size=4, max_size=4), st.floats(0, 1), st.floats(0, 1))
def test_every_point_of_a_box_lies_in_a_covered_cell(corners: list[float], s: float, t: float) -> None:
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    area = centernet.covered(torch.tensor([[x0, y0, x1, y1]], dtype=torch.float64), (10, 8))[0]
    x, y = min(x0 + s * (x1 - x0), x1), min(y0 + t * (y1 - y0), y1)
    if 0 <= x < 10 and 0 <= y < 8:
        assert area[int(y), int(x)]
    rows, columns = np.nonzero(area.numpy())
    assert all(math.floor(x0) <= c <= math.floor(x1) for c in columns)
    assert all(math.floor(y0) <= r <= math.floor(y1) for r in rows)


def test_a_box_of_nan_covers_nothing() -> None:
    assert not centernet.covered(torch.full((1, 4), torch.nan), (10, 8)).any()


def test_focal_loss_golden_value() -> None:
    """p = 1/2 everywhere, one positive in 2x2: 4 cells x 1/4 x ln 2."""
    target = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    counted = torch.ones(2, 2, dtype=torch.bool)
    assert float(centernet.focal(torch.zeros(2, 2), target, counted)) == pytest.approx(0.6931, abs=5e-5)


def focal_by_hand(logits: np.ndarray, target: np.ndarray, counted: np.ndarray) -> float:
    total, positives = 0.0, 0
    for x, t, c in zip(logits.ravel(), target.ravel(), counted.ravel(), strict=True):
        p = min(max(1 / (1 + math.exp(-x)), 1e-4), 1 - 1e-4)
        if c and t == 1:
            total, positives = total + (1 - p) ** 2 * math.log(p), positives + 1
        elif c:
            total += (1 - t) ** 4 * p**2 * math.log(1 - p)
    return -total / positives if positives else -total


@pytest.mark.parametrize("positives", [0, 1, 5])
def test_focal_loss_is_the_formula_over_the_whole_batch(positives: int) -> None:
    """All positives in one view of three: divided by their number in the batch, not view by view; by 1 where none is."""
    logits = torch.randn(3, 2, 6, 5, generator=random(), dtype=torch.float64) * 6
    target = torch.rand(3, 2, 6, 5, generator=random(1), dtype=torch.float64) * 0.99
    target[1].flatten()[torch.randperm(60, generator=random(2))[:positives]] = 1
    counted = torch.rand(3, 2, 6, 5, generator=random(3)) > 0.3
    wanted = focal_by_hand(logits.numpy(), target.numpy(), counted.numpy())
    assert float(centernet.focal(logits, target, counted)) == pytest.approx(wanted, rel=1e-9)


def test_focal_loss_of_extreme_logits_is_finite_and_nearly_0_where_correct() -> None:
    target = torch.tensor([1.0, 0.0, 0.0])
    counted = torch.ones(3, dtype=torch.bool)
    right = torch.tensor([1e4, -1e4, -1e4])
    assert 0 < float(centernet.focal(right, target, counted)) < 1e-6
    wrong = (-right).requires_grad_()
    loss = centernet.focal(wrong, target, counted)
    # (1 - 1e-4)**2 x -ln 1e-4 in each of the three cells
    assert float(loss) == pytest.approx(3 * 0.9999**2 * 9.21034, rel=1e-4)
    loss.backward()
    assert wrong.grad is not None
    assert torch.isfinite(wrong.grad).all()


def test_l1_is_the_mean_over_the_counted_coordinates() -> None:
    said = torch.tensor([[[1.0, 2.0], [5.0, 5.0]], [[0.0, 0.0], [-1.0, 3.0]]])
    true = torch.tensor([[[0.0, 4.0], [0.0, 0.0]], [[9.0, 9.0], [1.0, 3.0]]])
    counted = torch.tensor([[True, False], [False, True]])
    assert float(centernet.masked_l1(said, true, counted)) == pytest.approx((1 + 2 + 2 + 0) / (4 + 1e-4), rel=1e-6)
    said.requires_grad_()
    nothing = centernet.masked_l1(said, true, torch.zeros_like(counted))
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert said.grad is not None
    assert (said.grad == 0).all()


def test_peaks_are_scipys_local_maxima() -> None:
    maps = torch.rand(4, 3, 9, 14, generator=random())
    score, cell, around = centernet.top_peaks(maps, 200)
    assert score.shape == (4, 3, 126)
    for m, s, c, a in zip(
        maps.flatten(0, 1).numpy(), score.flatten(0, 1).numpy(), cell.flatten(0, 1).numpy(), around.flatten(0, 1).numpy(), strict=True
    ):  # fmt: skip
        highest = maximum_filter(m, size=3, mode="constant")
        np.testing.assert_array_equal(a, highest)
        rows, columns = np.nonzero(m == highest)
        order = np.argsort(-m[rows, columns])
        n = len(rows)
        np.testing.assert_array_equal(s[:n], m[rows, columns][order])
        np.testing.assert_array_equal(c[:n], np.stack([columns, rows], -1)[order])
        assert (s[n:] == 0).all()


def snap_by_hand(
    guess: np.ndarray, box: np.ndarray, peak: np.ndarray, score: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One view, keypoint by keypoint."""
    out, taken = guess.copy(), np.zeros(guess.shape[:2], dtype=bool)
    for n, k in np.ndindex(*guess.shape[:2]):
        good = [p for p, s in zip(peak[k], score[k], strict=True) if s > 0.1]
        if not good:
            continue
        x, y = min(good, key=lambda p: math.dist(p, guess[n, k]))
        x0, y0, x1, y1 = box[n]
        near = math.dist((x, y), guess[n, k]) <= 0.3 * max(x1 - x0, y1 - y0)
        if near and x0 <= x <= x1 and y0 <= y <= y1:
            out[n, k], taken[n, k] = (x, y), True
    return out, taken


def test_snapping_is_the_rule_keypoint_by_keypoint() -> None:
    g = random(5)
    double = {"generator": g, "dtype": torch.float64}
    guess = 20 * torch.rand(3, 6, 1, 2, **double) + 3 * torch.randn(3, 6, 4, 2, **double)
    box = torch.cat([guess.amin(2), guess.amax(2)], -1)
    peak = guess.transpose(1, 2) + torch.randn(3, 4, 6, 2, **double)
    score = torch.rand(3, 4, 6, **double)
    xy, value, taken = centernet.snap(guess, box, peak, score)
    for i in range(3):
        wanted, snapped = snap_by_hand(*(t[i].numpy() for t in (guess, box, peak, score)))
        np.testing.assert_allclose(xy[i].numpy(), wanted)
        np.testing.assert_array_equal(taken[i].numpy(), snapped)
    assert 0.2 < taken.double().mean() < 0.8  # both outcomes are tested
    assert (value[taken] > 0.1).all()


@pytest.mark.parametrize(
    ("peak", "score", "taken"),
    [
        ((13.0, 10.0), 0.9, True),  # 0.3 x 10 away: just near enough
        ((13.01, 10.0), 0.9, False),
        ((10.0, 12.5), 0.9, False),  # near, but out of the box of 10 x 4
        ((10.0, 12.0), 0.9, True),
        ((10.0, 10.5), 0.1, False),  # no more than the threshold
        ((10.0, 10.5), 0.11, True),
    ],
)
def test_limits_of_snapping(peak: tuple[float, float], score: float, taken: bool) -> None:
    guess = torch.tensor([[[[10.0, 10.0]]]], dtype=torch.float64)
    box = torch.tensor([[[5.0, 8.0, 15.0, 12.0]]], dtype=torch.float64)
    xy, _, snapped = centernet.snap(
        guess, box, torch.tensor([[[peak]]], dtype=torch.float64), torch.tensor([[[score]]])
    )
    assert bool(snapped) is taken
    assert xy.flatten().tolist() == list(peak if taken else (10.0, 10.0))


def test_a_weak_peak_is_skipped_but_a_strong_peak_outside_the_box_is_not() -> None:
    """The nearest of the peaks above the threshold decides, also if it is outside of the box."""
    guess = torch.tensor([[[[10.0, 10.0]]]])
    box = torch.tensor([[[5.0, 8.0, 15.0, 12.0]]])
    peaks = torch.tensor([[[[10.0, 10.1], [12.5, 10.0]]]])
    assert centernet.snap(guess, box, peaks, torch.tensor([[[0.05, 0.9]]]))[0].flatten().tolist() == [12.5, 10.0]
    peaks = torch.tensor([[[[10.0, 12.4], [12.5, 10.0]]]])
    assert centernet.snap(guess, box, peaks, torch.tensor([[[0.9, 0.9]]]))[0].flatten().tolist() == [10.0, 10.0]
