import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch.testing import assert_close

from cxrssl.losses import draw_directions, sigreg


def directions(dim, n):
    return draw_directions(dim, n, torch.Generator().manual_seed(0))


def gaussian(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def by_quadrature(x, limit):
    """The statistic of projections (N,) of one direction, integrated adaptively."""

    def integrand(t):
        distance = abs(np.exp(1j * t * x).mean() - math.exp(-(t**2) / 2))
        return distance**2 * math.exp(-(t**2) / 2)

    return len(x) * quad(integrand, -limit, limit)[0]


def in_closed_form(x):
    """The same over the whole line, as the Gaussian integrals that the square falls into."""
    pairs = np.exp(-((x[:, None] - x) ** 2) / 2).mean() * math.sqrt(2 * math.pi)
    single = np.exp(-(x**2) / 4).mean() * 2 * math.sqrt(math.pi)
    return len(x) * (pairs - single + math.sqrt(2 * math.pi / 3))


@pytest.mark.parametrize("scale", [0.1, 1.0, 1.5])
def test_equals_quadrature_and_the_closed_form(scale):
    z, along = scale * gaussian(9, 3) + 0.2, directions(3, 4).double()
    projections = (z @ along).T.numpy()
    integrated = np.mean([by_quadrature(x, 5) for x in projections])
    assert sigreg(z, along, points=1001).item() == pytest.approx(integrated, abs=1e-8)
    assert sigreg(z, along).item() == pytest.approx(integrated, rel=1e-3)
    closed = np.mean([in_closed_form(x) for x in projections])
    assert sigreg(z, along, points=201, limit=10).item() == pytest.approx(closed, rel=1e-10)


@pytest.mark.parametrize(("points", "limit"), [(17, 5.0), (2, 1.0), (3, 2.0), (8, 3.0)])
def test_is_the_trapezoidal_rule(points, limit):
    z, along = gaussian(6, 3), directions(3, 2).double()
    t = torch.linspace(-limit, limit, points, dtype=torch.float64)
    empirical = torch.exp(1j * t * (z @ along)[..., None]).mean(0)  # (K, T)
    normal = torch.exp(-(t**2) / 2)
    values = (empirical - normal).abs() ** 2 * normal
    expected = len(z) * torch.trapezoid(values, t).mean()
    assert_close(sigreg(z, along, points=points, limit=limit), expected)


def test_gradient():
    along = directions(3, 2).double()
    assert torch.autograd.gradcheck(lambda z: sigreg(z, along), gaussian(4, 3).requires_grad_())


def test_gaussian_batch_has_the_expected_value_and_others_far_more():
    # E |f(t) - e^(-t^2/2)|^2 = (1 - e^(-t^2)) / N, so that N drops out of the integral.
    expected = math.sqrt(2 * math.pi) - math.sqrt(2 * math.pi / 3)
    independent = sigreg(gaussian(64, 2000), torch.eye(2000))
    assert independent.item() == pytest.approx(expected, rel=0.05)

    z, along = gaussian(512, 8), directions(8, 64).double()
    at_zero = math.sqrt(2 * math.pi) - 2 * math.sqrt(math.pi) + math.sqrt(2 * math.pi / 3)
    assert sigreg(0 * z, along).item() == pytest.approx(512 * at_zero, rel=1e-4)
    anisotropic = z * torch.tensor([10, 0.01, 1, 1, 1, 1, 1, 1])
    for other in (0 * z, anisotropic, z + 1, 2 * z):
        assert sigreg(other, along) > 10 * expected


def test_descent_makes_a_stretched_cloud_isotropic():
    z = (gaussian(128, 3) * torch.tensor([1.5, 0.1, 1]) + 0.3).float().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.05)
    generator = torch.Generator().manual_seed(2)
    for _ in range(200):
        optimizer.zero_grad()
        sigreg(z, draw_directions(3, 16, generator)).backward()
        optimizer.step()
    assert z.mean(0).abs().max() < 0.1
    assert_close(torch.cov(z.detach().T), torch.eye(3), atol=0.15, rtol=0)


def test_projections_a_period_apart_are_the_same_to_it():
    z, along = gaussian(10, 1), torch.ones(1, 1)
    period = 2 * math.pi / (10 / 16)
    assert_close(sigreg(z + period, along), sigreg(z, along))
    assert sigreg(z + period, along, points=65) > 1.5 * sigreg(z, along, points=65)


def test_rotating_cloud_and_directions_together_changes_nothing():
    rotation, _ = torch.linalg.qr(gaussian(4, 4))
    z, along = gaussian(10, 4), directions(4, 5).double()
    assert_close(sigreg(z @ rotation, rotation.T @ along), sigreg(z, along))


def test_half_precision_and_autocast_do_not_reach_it():
    z, along = gaussian(20, 4).bfloat16(), directions(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        value = sigreg(z, along)
    assert value.dtype == torch.float32
    assert_close(value.double(), sigreg(z.double(), along), atol=1e-5, rtol=1e-5)


def test_directions_are_unit_vectors_that_a_seed_fixes():
    along = directions(6, 500)
    assert along.shape == (6, 500)
    assert_close(along.norm(dim=0), torch.ones(500))
    assert_close(along @ along.T / 500, torch.eye(6) / 6, atol=0.03, rtol=0)
    assert torch.equal(along, directions(6, 500))


@pytest.mark.parametrize("options", [{"points": 1}, {"limit": 0.0}])
def test_impossible_rules_are_refused(options):
    with pytest.raises(ValueError, match="at least 2 points and a positive limit"):
        sigreg(torch.zeros(2, 3), directions(3, 2), **options)
