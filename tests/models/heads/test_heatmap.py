"""What only the heatmap head promises: its loss's scale, its weights, its scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kplab.errors import ModelError
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.heatmap import HeatmapHead
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

SIZE = (192, 256)
MIRRORED = Skeleton("two", ("left", "right"), (), (1, 0), (0.05, 0.05), "made up")


def head(**options: object) -> HeatmapHead:
    torch.manual_seed(0)
    return HeatmapHead(HeadInputs([8, 16], [4, 8], SIZE, MIRRORED), **options)  # type: ignore[arg-type]


def pose(*xy: tuple[float, float]) -> Poses:
    return Poses.make(np.array([xy]))


NAN = (math.nan, math.nan)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("second", [(120.0, 180.0), NAN])
@pytest.mark.parametrize("sigma", [1.5, 2.0, 3.0])
def test_maps_of_zeros_cost_one(level: int, second: tuple[float, float], sigma: float) -> None:
    """Whatever the stride, sigma and number of labelled keypoints."""
    h = head(level=level, sigma=sigma)
    targets = h.encode([pose((95.3, 101.7), second)], SIZE)
    zeros = torch.zeros_like(targets["heatmap"])
    assert float(h.loss(zeros, targets)["heatmap"]) == pytest.approx(1, rel=1e-3)


def test_loss_is_the_papers_up_to_its_scale() -> None:
    """0.5 mean over all elements, by torch's own mse_loss, times 2 h w / (pi sigma**2) when all is labelled."""
    h = head()
    targets = h.encode([pose((95.3, 101.7), (60.0, 70.0))] * 3, SIZE)
    outputs = torch.randn(3, 2, 64, 48, generator=torch.Generator().manual_seed(0))
    paper = 0.5 * torch.nn.functional.mse_loss(outputs, targets["heatmap"])
    assert float(h.loss(outputs, targets)["heatmap"]) == pytest.approx(float(paper) * 2 * 64 * 48 / (math.pi * 4))


def test_unlabelled_keypoints_get_no_gradient_at_all() -> None:
    h = head()
    targets = h.encode([pose((95.3, 101.7), NAN), pose(NAN, NAN), Poses.empty(2)], SIZE)
    outputs = torch.randn(3, 2, 64, 48).requires_grad_()
    h.loss(outputs, targets)["heatmap"].backward()
    assert outputs.grad is not None
    assert (outputs.grad[0, 0] != 0).all()
    assert (outputs.grad[0, 1] == 0).all()
    assert (outputs.grad[1:] == 0).all()


def test_points_outside_by_more_than_three_sigma_are_not_trained() -> None:
    h = head()
    reach = 3 * 2.0 * 4
    weights = h.encode([pose((-reach + 0.1, 50), (-reach - 0.1, 50)), pose((50, 256 + reach + 0.1), (50, 260))], SIZE)
    assert weights["weight"].tolist() == [[1, 0], [0, 1]]
    assert weights["heatmap"][0, 1].abs().max() == 0


def test_ignored_instances_are_not_trained() -> None:
    crowd = pose((10, 10), (20, 20))
    crowd.ignore[:] = True
    both = Poses.concat([crowd, pose((95.3, 101.7), (60.0, 70.0))])
    h = head()
    with_crowd, without = h.encode([both], SIZE), h.encode([pose((95.3, 101.7), (60.0, 70.0))], SIZE)
    assert torch.equal(with_crowd["heatmap"], without["heatmap"])
    assert h.encode([crowd], SIZE)["weight"].sum() == 0


def test_two_subjects_in_a_view_are_refused() -> None:
    with pytest.raises(ModelError, match=r"1 pose per view, but a view shows 2.*regions=annotated"):
        head().encode([Poses.concat([pose((1, 1), (2, 2))] * 2)], SIZE)


def test_score_is_the_height_of_the_peak() -> None:
    h = head()
    # the centre of a cell, where the Gaussian is 1
    maps = h.encode([pose((82.0, 90.0), (62.0, 70.0))], SIZE)["heatmap"]
    scale = torch.tensor([0.25, 3.0])
    (found,) = h.decode(maps * scale[None, :, None, None])
    assert found.keypoint_score[0] == pytest.approx([0.25, 1.0])
    assert found.score == pytest.approx([0.625])
    assert np.isnan(found.box).all()
    (nothing,) = h.decode(maps * -1)
    assert nothing.keypoint_score.max() == 0


def test_dark_is_worth_a_pixel_and_a_half() -> None:
    """Highest cells are 1.53 px off on average at stride 4."""
    random = np.random.default_rng(0)
    true = [pose(*random.uniform([0, 0], SIZE, (2, 2))) for _ in range(500)]
    mean = {}
    for dark in (True, False):
        h = head(dark=dark)
        found = h.decode(h.ideal(h.encode(true, SIZE)))
        mean[dark] = np.mean([np.linalg.norm(f.xy - t.xy, axis=-1) for f, t in zip(found, true, strict=True)])
    assert mean[False] == pytest.approx(1.53, abs=0.06)
    assert mean[True] < 0.01


def test_it_reads_the_level_it_is_told() -> None:
    maps = [torch.randn(1, 8, 64, 48), torch.randn(1, 16, 32, 24)]
    assert head(level=1, hidden=4)(maps).shape == (1, 2, 32, 24)
    assert head()(maps).shape == (1, 2, 64, 48)
    with pytest.raises(ModelError, match=r"reads map 2, but the neck gives 2"):
        head(level=2)


@pytest.mark.parametrize(("options", "message"), [({"sigma": 0.0}, "sigma > 0"), ({"blur": 10}, "odd blur")])
def test_options_that_make_no_sense_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        head(**options)
