"""The flow is a density: it integrates to one, and its change of volume is its Jacobian's."""

from __future__ import annotations

import torch

from kplab.models.flow import RealNVP


def flow() -> RealNVP:
    torch.manual_seed(0)
    made = RealNVP()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1.5)  # far from the identity
    return made


def test_it_integrates_to_one() -> None:
    made, step = flow(), 0.1
    axis = torch.arange(-30, 30, step) + step / 2
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).flatten(0, 1)
    with torch.no_grad():
        mass = sum(made.log_prob(part).exp().double().sum() for part in points.split(200_000)) * step**2
    assert abs(float(mass) - 1) < 1e-3


def test_its_density_is_the_normal_one_through_its_jacobian() -> None:
    made = flow()
    z = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    normal = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    for one in z:
        volume = torch.autograd.functional.jacobian(made, one)
        wanted = normal.log_prob(one) - torch.linalg.slogdet(volume).logabsdet
        torch.testing.assert_close(made.log_prob(made(one)), wanted, atol=1e-4, rtol=0)


def test_it_moves_both_coordinates() -> None:
    """Couplings take turns: the Jacobian has no zero."""
    jacobian = torch.autograd.functional.jacobian(flow(), torch.tensor([0.3, -0.7]))
    assert (jacobian.abs() > 1e-4).all()
