"""Complete IoU against torchvision, and distances as distributions against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import complete_box_iou

from kplab.ops.boxes import complete_iou, distance_logits, distance_loss, expected_distance


def boxes_at_random(count: int, seed: int) -> torch.Tensor:
    random = np.random.default_rng(seed)
    start = random.uniform(0, 80, (count, 2))
    return torch.tensor(np.concatenate([start, start + random.uniform(1, 90, (count, 2))], axis=1))


def test_it_equals_torchvision() -> None:
    """In float64: both add 1e-7, at different places, to areas of 1 and more."""
    a, b = boxes_at_random(40, 0), boxes_at_random(50, 1)
    ours = complete_iou(a[:, None], b)
    assert (ours < 0).any()
    assert torch.allclose(ours, complete_box_iou(a, b), atol=1e-6)


def test_its_terms_computed_by_hand() -> None:
    """(0, 0, 4, 2) and (2, 0, 4, 4): intersection 4 of union 12; centres (2, 1), (3, 2); hull 4 x 4."""
    a, b = torch.tensor([0.0, 0, 4, 2]).double(), torch.tensor([2.0, 0, 4, 4]).double()
    v = 4 / np.pi**2 * (np.arctan(0.5) - np.arctan(2)) ** 2
    wanted = 4 / 12 - 2 / 32 - v**2 / (v - 4 / 12 + 1)
    assert float(complete_iou(a, b)) == pytest.approx(wanted, abs=1e-6)
    assert float(complete_iou(a, a)) == pytest.approx(1, abs=1e-6)


def test_the_weight_of_the_aspect_term_has_no_gradient() -> None:
    """With the weight held fixed, the derivative of -a v is that of v alone times -a."""
    box = torch.tensor([0.0, 0, 4, 2], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([0.0, 0, 5, 5], dtype=torch.float64)
    (ours,) = torch.autograd.grad(complete_iou(box, other), box)
    step = 1e-6

    def terms(b: np.ndarray) -> tuple[float, float]:
        iou = float(complete_box_iou(torch.tensor(b)[None], other[None])[0, 0])
        v = 4 / np.pi**2 * (np.arctan(1) - np.arctan((b[2] - b[0]) / (b[3] - b[1]))) ** 2
        return iou, v

    plain = np.array([0.0, 0, 4, 2])
    iou = 8 / 25
    v = terms(plain)[1]
    weight = v / (v - iou + 1)
    for axis in range(4):
        up, down = plain.copy(), plain.copy()
        up[axis] += step
        down[axis] -= step
        (full_up, v_up), (full_down, v_down) = terms(up), terms(down)

        # torchvision's value is iou - distance - a v with a varying: put the fixed weight in its place
        def fixed(full: float, here: float, b: np.ndarray) -> float:
            overlap = max(min(b[2], 5) - max(b[0], 0), 0) * max(min(b[3], 5) - max(b[1], 0), 0)
            its = overlap / ((b[2] - b[0]) * (b[3] - b[1]) + 25 - overlap)
            return full + here**2 / (here - its + 1) - weight * here

        slope = (fixed(full_up, v_up, up) - fixed(full_down, v_down, down)) / (2 * step)
        assert float(ours[axis]) == pytest.approx(slope, abs=1e-4)


def test_boxes_without_overlap_have_a_gradient_towards_each_other() -> None:
    far = torch.tensor([50.0, 0, 60, 10], requires_grad=True)
    complete_iou(far, torch.tensor([0.0, 0, 10, 10])).backward()
    assert far.grad is not None
    assert far.grad[0] + far.grad[2] < 0, "to move it left makes it better"
    assert far.grad[0] < 0


@given(st.floats(0, 14.99))
def test_logits_of_a_distance_have_it_as_their_mean(distance: float) -> None:
    """1e-5 bins: the precision of float32 for numbers up to 15."""
    logits = distance_logits(torch.tensor([distance]), 16)
    assert torch.isfinite(logits).all()
    assert float(expected_distance(logits)) == pytest.approx(distance, abs=1e-5)


def test_distances_beyond_the_bins_are_clamped() -> None:
    assert expected_distance(distance_logits(torch.tensor([-3.0, 99.0]), 16)).tolist() == pytest.approx(
        [0, 14.99], abs=1e-5
    )
    logits = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    for out, limit in ((-3.0, 0.0), (15.0, 14.99), (99.0, 14.99)):
        assert distance_loss(logits, torch.tensor([out])) == distance_loss(logits, torch.tensor([limit]))


@given(st.floats(0, 14.99), st.integers(0, 99))
def test_loss_is_the_cross_entropy_of_two_neighbours(distance: float, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 2, 16)
    log = logits - np.log(np.exp(logits).sum())
    left = int(np.floor(distance))
    wanted = -(left + 1 - distance) * log[left] - (distance - left) * log[left + 1]
    got = distance_loss(torch.tensor(logits), torch.tensor(distance, dtype=torch.float64))
    assert float(got) == pytest.approx(wanted, abs=1e-9)


def test_loss_is_minimal_at_the_logits_of_the_distance() -> None:
    """0 for whole distances, log 2 half way."""
    true = torch.tensor([3.0, 3.5])
    assert distance_loss(distance_logits(true, 16), true).tolist() == pytest.approx([0, np.log(2)], abs=1e-5)
