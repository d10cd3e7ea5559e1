import pytest
import torch
from torch.testing import assert_close

from cxrssl.losses import covariance, invariance, variance, vicreg_terms
from tests.golden import load_golden

WEIGHTS = {"invariance": 25, "variance": 25, "covariance": 1}
SHORT = {"invariance": "inv", "variance": "var", "covariance": "cov"}


def total(terms):
    return sum(WEIGHTS[name] * term for name, term in terms.items())


def exact(ours, theirs):
    assert_close(ours, theirs, atol=1e-12, rtol=1e-9)


def compare(terms, golden, case):
    for name, term in terms.items():
        exact(term, golden[f"{case}_{SHORT[name]}"])
    exact(total(terms), golden[f"{case}_total"])


def slow_covariance(z):
    """The definition: each pair of dimensions on its own."""
    n, dim = z.shape
    x = z - z.mean(0)
    pairs = [(i, j) for i in range(dim) for j in range(dim) if i != j]
    return sum(((x[:, i] * x[:, j]).sum() / (n - 1)) ** 2 for i, j in pairs) / dim


@pytest.mark.parametrize("case", ["plain", "indep", "collapsed"])
def test_vicreg_golden(case):
    golden = load_golden("vicreg/loss.npz")
    x, y = (golden[f"{case}_{name}"].requires_grad_() for name in "xy")
    terms = vicreg_terms(x, y)
    compare(terms, golden, case)
    total(terms).backward()
    exact(x.grad, golden[f"{case}_grad_x"])
    exact(y.grad, golden[f"{case}_grad_y"])


def test_mlvicx_golden():
    golden = load_golden("mlvicx/loss_terms.npz")
    inputs = {name: golden[name].requires_grad_() for name in ("z1", "z2", "d1", "d2")}
    branches = {
        "global": vicreg_terms(inputs["z1"], inputs["z2"]),
        "local": vicreg_terms(inputs["d1"], inputs["d2"]),
    }
    for case, terms in branches.items():
        compare(terms, golden, case)
    loss = sum(map(total, branches.values()))
    exact(loss, golden["total"])
    loss.backward()
    for name, value in inputs.items():
        exact(value.grad, golden[f"grad_{name}"])


@pytest.mark.parametrize("case", ["collapsed", "same", "n2", "d1", "big", "maps"])
def test_mlvicx_golden_edge_cases(case):
    golden = load_golden("mlvicx/loss_edge.npz")
    compare(vicreg_terms(golden[f"{case}_a"], golden[f"{case}_b"]), golden, case)


def test_hand_computed_case():
    # Deviations from the mean are (-1, -3), (0, 0), (1, 3) over 2: variances 1/4 and 9/4,
    # covariance 3/4. Hinges are 1 - 1/2 and 0; two off-diagonal entries over D = 2.
    z = torch.tensor([[0.0, 0.0], [0.5, 1.5], [1.0, 3.0]])
    assert variance(z, eps=0.0) == pytest.approx(0.25)
    assert variance(z, eps=0.0, gamma=2.0) == pytest.approx((1.5 + 0.5) / 2)
    assert covariance(z) == pytest.approx(9 / 16)
    assert invariance(z, z + 2) == pytest.approx(4)


@pytest.mark.parametrize(("n", "dim"), [(2, 5), (6, 7), (6, 6), (9, 5), (5, 1)])
def test_covariance_and_its_gradient_equal_the_definition(n, dim):
    torch.manual_seed(0)
    z = torch.randn(n, dim, dtype=torch.float64, requires_grad=True)
    slow = slow_covariance(z) if dim > 1 else z.sum() * 0
    exact(covariance(z), slow)
    ours, theirs = (torch.autograd.grad(loss, z)[0] for loss in (covariance(z), slow))
    exact(ours, theirs)


def test_terms_are_made_of_the_three_functions():
    torch.manual_seed(0)
    z1, z2 = torch.randn(2, 6, 3, 2)
    terms = vicreg_terms(z1, z2, eps=1e-2, gamma=1.5)
    assert_close(terms["invariance"], invariance(z1, z2))
    spread = [variance(z, eps=1e-2, gamma=1.5) for z in (z1, z2)]
    assert_close(terms["variance"], sum(spread) / 2)
    assert_close(terms["covariance"], covariance(z1) + covariance(z2))


@pytest.mark.parametrize("shape", [(8, 6), (4, 9)])
def test_collapsed_batch_has_its_known_values_and_finite_gradients(shape):
    z = torch.full(shape, 0.3, requires_grad=True)
    terms = vicreg_terms(z, z)
    assert terms["invariance"].item() == 0
    assert terms["variance"].item() == pytest.approx(0.99, abs=1e-5)
    assert terms["covariance"].item() == pytest.approx(0, abs=1e-9)
    total(terms).backward()
    assert torch.isfinite(z.grad).all()


def test_covariance_has_the_floor_that_the_batch_sets():
    torch.manual_seed(0)
    z = torch.randn(8, 70, dtype=torch.float64)
    assert covariance((z - z.mean(0)) / z.std(0)) >= 70 / 7 - 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [4, 40])
def test_half_precision_and_autocast_do_not_reach_the_terms(dtype, dim):
    torch.manual_seed(0)
    z1, z2 = (300 * torch.randn(2, 10, dim)).to(dtype)  # squares overflow in float16
    expected = vicreg_terms(z1.double(), z2.double())
    with torch.autocast("cpu", torch.bfloat16):
        terms = vicreg_terms(z1, z2)
        assert_close(covariance(z1) + covariance(z2), terms["covariance"])
    for name, term in terms.items():
        assert term.dtype == torch.float32
        assert_close(term.double(), expected[name], atol=1e-6, rtol=1e-5)


def test_one_row_has_no_variance():
    with pytest.raises(ValueError, match="need a batch of at least 2 over all processes, got 1"):
        vicreg_terms(torch.randn(1, 4), torch.randn(1, 4))
