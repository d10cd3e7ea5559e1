import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch.testing import assert_close

from cxrssl.losses import draw_directions, sigreg
from tests.distributed import run_two


def directions(dim, n=64, seed=0):
    return draw_directions(dim, n, torch.Generator().manual_seed(seed))


def integrated(x, limit=np.inf):
    """Return the statistic of numbers x from its definition, by adaptive quadrature."""

    def integrand(t):
        empirical = np.exp(1j * t * x).mean()
        return abs(empirical - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)

    return len(x) * quad(integrand, -limit, limit, limit=200)[0]


def closed_form(x):
    """Return the statistic over the whole line, its Gaussian integrals solved."""
    n = len(x)
    pairs = np.exp(-((x[:, None] - x[None]) ** 2) / 2).sum()
    singles = np.exp(-(x**2) / 4).sum()
    return n * (
        math.sqrt(2 * math.pi) / n**2 * pairs
        - 2 * math.sqrt(math.pi) / n * singles
        + math.sqrt(2 * math.pi / 3)
    )


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 2.0])
def test_equals_independent_integrals(scale):
    x = np.random.default_rng(0).normal(0.2, scale, 40)
    line = torch.ones(1, 1, dtype=torch.float64)
    ours = sigreg(torch.from_numpy(x)[:, None], line).item()
    assert ours == pytest.approx(integrated(x, 5.0), rel=5e-3)
    assert integrated(x) == pytest.approx(closed_form(x), rel=1e-9)
    # What lies beyond the limit weighs less than exp(-12).
    assert ours == pytest.approx(closed_form(x), rel=5e-3)
    fine = sigreg(torch.from_numpy(x)[:, None], line, points=201, limit=9.0).item()
    assert fine == pytest.approx(closed_form(x), rel=1e-9)


def test_is_the_mean_over_directions():
    torch.manual_seed(0)
    z, lines = torch.randn(30, 5, dtype=torch.float64), directions(5, 7).double()
    each = [integrated((z @ line).numpy(), 5.0) for line in lines.T]
    assert sigreg(z, lines).item() == pytest.approx(np.mean(each), rel=2e-3)


def expected_of_a_gaussian():
    """Return the expectation for normal numbers: N E|ecf - phi|^2 = 1 - exp(-t^2)."""
    return quad(lambda t: (1 - math.exp(-(t**2))) * math.exp(-(t**2) / 2), -np.inf, np.inf)[0]


def test_tells_an_isotropic_gaussian_from_everything_else():
    torch.manual_seed(0)
    gaussian = torch.randn(2000, 8)
    lines = directions(8, 512)
    isotropic = torch.stack([sigreg(torch.randn(500, 8), lines) for _ in range(20)]).mean()
    assert isotropic.item() == pytest.approx(expected_of_a_gaussian(), rel=0.2)
    stretched = gaussian * torch.tensor([10.0, *[1.0] * 6, 0.01])
    others = {
        "collapsed": torch.zeros_like(gaussian),
        "shifted": gaussian + 1,
        "anisotropic": stretched,
        "on a line": gaussian[:, :1].expand(-1, 8),
        "bimodal": gaussian.sign(),
    }
    for name, batch in others.items():
        assert sigreg(batch, lines) > 5 * isotropic, name


def test_descending_it_makes_a_cloud_isotropic():
    torch.manual_seed(0)
    z = (torch.randn(256, 4) * torch.tensor([2.0, 1.0, 0.3, 0.1]) + 0.5).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.1)
    for step in range(400):
        optimizer.zero_grad()
        sigreg(z, directions(4, 64, seed=step)).backward()
        optimizer.step()
    assert_close(z.detach().mean(0), torch.zeros(4), atol=0.1, rtol=0)
    assert_close(torch.cov(z.detach().T), torch.eye(4), atol=0.15, rtol=0)


def test_directions_are_of_unit_length_and_follow_the_generator():
    lines = directions(6, 10)
    assert_close(lines.norm(dim=0), torch.ones(10))
    assert torch.equal(lines, directions(6, 10))
    assert not torch.equal(lines, directions(6, 10, seed=1))


def test_half_precision_is_computed_in_single():
    torch.manual_seed(0)
    z = torch.randn(16, 4).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        value = sigreg(z, directions(4))
    assert value.dtype == torch.float32
    assert torch.equal(value, sigreg(z.float(), directions(4)))


def half(rank, z, w):
    w = w.clone().requires_grad_()
    loss = sigreg(z.chunk(2)[rank] @ w, directions(5).double())
    loss.backward()
    return loss.detach(), w.grad


def test_two_processes_equal_one(tmp_path):
    torch.manual_seed(0)
    z, w = torch.randn(12, 5, dtype=torch.float64), torch.randn(5, 5, dtype=torch.float64)
    first, second = run_two(half, tmp_path, z, w)
    w = w.requires_grad_()
    whole = sigreg(z @ w, directions(5).double())
    whole.backward()
    assert_close(first[0], whole.detach())
    assert_close(second[0], whole.detach())
    assert_close((first[1] + second[1]) / 2, w.grad)


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="points must be odd and at least 3, got 16"):
        sigreg(torch.randn(4, 2), directions(2), points=16)
    with pytest.raises(ValueError, match="limit must be positive, got 0"):
        sigreg(torch.randn(4, 2), directions(2), limit=0)
