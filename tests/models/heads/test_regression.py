"""What heads of coordinates share, and the RLE head: likelihoods against torch's distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kplab.errors import ModelError
from kplab.models.heads.base import HeadInputs
from kplab.models.heads.regression import Likelihood
from kplab.models.heads.rle import RLEHead
from kplab.ops.oks import oks
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton

SIZE = (192, 256)
MIRRORED = Skeleton("two", ("left", "right"), (), (1, 0), (0.05, 0.1), "made up")
NAN = (math.nan, math.nan)


def head(**options: object) -> RLEHead:
    torch.manual_seed(0)
    return RLEHead(HeadInputs([8, 16], [16, 32], SIZE, MIRRORED), **options)  # type: ignore[arg-type]


def pose(*xy: tuple[float, float], area: float = 900.0) -> Poses:
    return Poses.make(np.array([xy]), area=np.array([area]))


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("base", "kind"), [("laplace", torch.distributions.Laplace), ("gaussian", torch.distributions.Normal)]
)
def test_plain_likelihoods_are_torchs(base: str, kind: type) -> None:
    mu, spread, truth = numbers(5, 3, 2), numbers(5, 3, 2, seed=1), numbers(5, 3, 2, seed=2)
    wanted = -kind(mu, spread.sigmoid()).log_prob(truth).sum(-1)
    torch.testing.assert_close(Likelihood(base, residual=False)(mu, spread, truth), wanted, atol=1e-5, rtol=1e-5)


def test_the_residual_counts_the_flow_and_the_spread_for_each_axis() -> None:
    """log sigma - log G(e) - log Q, of x and of y."""
    torch.manual_seed(0)
    likelihood = Likelihood()
    mu, spread, truth = numbers(4, 2), numbers(4, 2, seed=1), numbers(4, 2, seed=2) * 0.1
    sigma = spread.sigmoid()
    error = (mu - truth) / sigma
    assert likelihood.flow is not None
    shape = likelihood.flow.log_prob(error)
    wanted = sum(sigma[:, i].log() - shape + (2 * sigma[:, i]).log() + error[:, i].abs() for i in range(2))
    torch.testing.assert_close(likelihood(mu, spread, truth), wanted, atol=1e-4, rtol=1e-5)


def test_a_spread_wants_to_be_as_large_as_the_error() -> None:
    likelihood = Likelihood("laplace", residual=False)
    spread = torch.tensor([-4.0, 0.0], requires_grad=True)  # sigma 0.018 and 0.5
    error = 0.1
    likelihood(torch.full((2, 2), error), spread[:, None].expand(2, 2), torch.zeros(2, 2)).sum().backward()
    assert spread.grad is not None
    assert spread.grad[0] < 0 < spread.grad[1]
    tiny = likelihood(torch.zeros(1, 2), torch.full((1, 2), -80.0), torch.zeros(1, 2))
    assert torch.isfinite(tiny).all()


def test_targets_are_fractions_from_the_centre_and_beyond_the_border_weigh_nothing() -> None:
    targets = head().encode([pose((192.0, 64.0), (-0.5, 10.0)), pose((0.0, 256.0), NAN)], SIZE)
    assert targets["uv"].numpy() == pytest.approx(np.array([[[0.5, -0.25], [0, 0]], [[-0.5, 0.5], [0, 0]]]))
    assert targets["weight"].tolist() == [[1, 0], [1, 0]]
    assert targets["area"].tolist() == [900, 900]


def test_similarities_are_the_summands_of_oks() -> None:
    h = head()
    true, said = pose((60.0, 70.0), (100.0, 90.0)), pose((64.0, 67.0), (90.0, 95.0))
    targets = h.encode([true], SIZE)
    own = h.similarity(h.encode([said], SIZE)["uv"], targets)
    wanted = oks(said.xy, true.xy, true.visible, true.area, np.array(MIRRORED.sigmas))
    assert float(own.mean()) == pytest.approx(float(wanted[0, 0]), abs=1e-5)


def test_targets_follow_a_crop_where_something_is_labelled() -> None:
    h = head()
    targets = h.encode([pose((60.0, 70.0), NAN)], SIZE)
    by = torch.tensor([[[19.2, -25.6], [5.0, 5.0]]], requires_grad=True)
    moved = h.shift_targets(targets, by)
    assert (moved["uv"] - targets["uv"]).detach().numpy() == pytest.approx(np.array([[[0.1, -0.1], [0, 0]]]), abs=1e-6)
    moved["uv"].sum().backward()
    assert by.grad is not None
    assert by.grad[0, 1].abs().sum() == 0


def test_scores_are_one_less_the_mean_spread() -> None:
    spread = torch.tensor([[[0.0, 0.0], [-3.0, 2.0]]])
    (found,) = head().decode({"uv": torch.zeros(1, 2, 2), "spread": spread})
    assert found.xy[0] == pytest.approx(np.array([[96, 128], [96, 128]]))
    wanted = [0.5, 1 - float(spread[0, 1].sigmoid().mean())]
    assert found.keypoint_score[0] == pytest.approx(wanted, abs=1e-6)
    assert found.score[0] == pytest.approx(np.mean(wanted), abs=1e-6)


def test_it_says_so_in_full_precision() -> None:
    h = head()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = h([numbers(2, 8, 16, 12).bfloat16(), numbers(2, 16, 8, 6).bfloat16()])
    assert all(value.dtype == torch.float32 for value in outputs.values())


def test_what_it_does_not_know_is_refused() -> None:
    with pytest.raises(ModelError, match="base laplace and gaussian"):
        head(base="cauchy")
    with pytest.raises(ModelError, match=r"head\.level"):
        head(level=2)
