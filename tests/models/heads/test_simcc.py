"""What only the SimCC head promises: its labels, its divergence, its scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from kplab.errors import ModelError
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.simcc import SimCCHead
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

SIZE = (192, 256)
MIRRORED = Skeleton("two", ("left", "right"), (), (1, 0), (0.05, 0.05), "made up")
NAN = (math.nan, math.nan)


def head(size: tuple[int, int] = SIZE, **options: object) -> SimCCHead:
    torch.manual_seed(0)
    return SimCCHead(HeadInputs([8, 16], [16, 32], size, MIRRORED), **options)  # type: ignore[arg-type]


def pose(*xy: tuple[float, float]) -> Poses:
    return Poses.make(np.array([xy]))


def test_default_sigmas_are_the_published_ones() -> None:
    """4.9 and 5.66 bins for 192x256, 6.93 for 384 (RTMPose's configs)."""
    assert head().sigmas == pytest.approx([4.9, 5.66], abs=0.01)
    assert head((288, 384)).sigmas == pytest.approx([6.0, 6.93], abs=0.01)
    assert head(split_ratio=1.0).sigmas == pytest.approx([2.45, 2.83], abs=0.01)
    assert head(sigma=6.0).sigmas == [6.0, 6.0]


def test_labels_are_normal_distributions_around_the_point() -> None:
    h = head()
    targets = h.encode([pose((95.3, 101.7), (3.1, 250.0))], SIZE)
    centres = (np.arange(384) + 0.5) / 2
    wanted = norm(95.3, h.sigmas[0] / 2).pdf(centres) / 2
    assert targets["x"][0, 0].numpy() == pytest.approx(wanted, abs=1e-6)
    for name, bins in (("x", 384), ("y", 512)):
        assert targets[name].shape == (1, 2, bins)
        # near the border too, where part of the Gaussian is cut off
        assert targets[name].sum(-1).numpy() == pytest.approx(1, abs=1e-5)


def test_loss_is_torchs_divergence_over_labelled_keypoints() -> None:
    h = head()
    targets = h.encode([pose((95.3, 101.7), (20.0, 30.0)), pose((50, 60), NAN)], SIZE)
    random = torch.Generator().manual_seed(0)
    outputs = {"x": torch.randn(2, 2, 384, generator=random), "y": torch.randn(2, 2, 512, generator=random)}
    losses = h.loss(outputs, targets)
    for name in "xy":
        log = outputs[name].log_softmax(-1)
        labelled = targets["weight"] > 0
        wanted = torch.nn.functional.kl_div(log[labelled], targets[name][labelled], reduction="batchmean")
        assert float(losses[f"simcc_{name}"]) == pytest.approx(float(wanted), rel=1e-5)


def test_knowing_nothing_costs_the_difference_of_entropies() -> None:
    h = head()
    targets = h.encode([pose((95.3, 101.7), (100.0, 130.0))], SIZE)
    flat = {"x": torch.zeros(1, 2, 384), "y": torch.zeros(1, 2, 512)}
    losses = h.loss(flat, targets)
    for name, bins, sigma in zip("xy", (384, 512), h.sigmas, strict=True):
        wanted = math.log(bins) - 0.5 * math.log(2 * math.pi * math.e * sigma**2)
        assert float(losses[f"simcc_{name}"]) == pytest.approx(wanted, rel=1e-4)


def test_unlabelled_keypoints_get_no_gradient_at_all() -> None:
    h = head()
    targets = h.encode([pose((95.3, 101.7), NAN), Poses.empty(2)], SIZE)
    outputs = {"x": torch.randn(2, 2, 384).requires_grad_(), "y": torch.randn(2, 2, 512).requires_grad_()}
    torch.stack(list(h.loss(outputs, targets).values())).sum().backward()
    for output in outputs.values():
        assert output.grad is not None
        assert (output.grad[0, 0] != 0).all()
        assert (output.grad[0, 1] == 0).all()
        assert (output.grad[1] == 0).all()


def test_points_outside_by_more_than_three_sigma_are_not_trained() -> None:
    h = head(sigma=6.0)
    targets = h.encode([pose((-8.9, 50), (-9.1, 50)), pose((50, 256 + 8.9), (50, 1e6))], SIZE)
    assert targets["weight"].tolist() == [[1, 0], [1, 0]]
    assert all(torch.isfinite(t).all() for t in targets.values())


def test_score_falls_as_the_distribution_widens() -> None:
    """A Gaussian twice as wide is half as high on both axes, and so is the geometric mean."""
    narrow, wide = head(sigma=5.0), head(sigma=10.0)
    view = [pose((95.3, 101.7), (100.0, 130.0))]
    sharp = narrow.decode(narrow.ideal(narrow.encode(view, SIZE)))[0].keypoint_score
    blunt = narrow.decode(wide.ideal(wide.encode(view, SIZE)))[0].keypoint_score
    assert sharp == pytest.approx(np.ones((1, 2)), abs=0.01)
    assert blunt == pytest.approx(np.full((1, 2), 0.5), abs=0.01)


def test_a_head_made_for_one_size_says_so() -> None:
    with pytest.raises(ModelError, match=r"views of 192x256 pixels, but got 256x192"):
        head().encode([Poses.empty(2)], (256, 192))
    with pytest.raises(ModelError, match=r"6x8 cells .* but got 8x6"):
        head()([torch.zeros(1, 8, 12, 16), torch.zeros(1, 16, 6, 8)])
    with pytest.raises(ModelError, match="split_ratio > 0"):
        head(split_ratio=0.0)
