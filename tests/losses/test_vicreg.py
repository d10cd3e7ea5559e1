import pytest
import torch
from torch.testing import assert_close

from cxrssl.losses import covariance, invariance, variance, vicreg_terms
from tests.distributed import run_two
from tests.golden import load_golden, subset

WEIGHTS = {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}
SHORT = {"invariance": "inv", "variance": "var", "covariance": "cov"}
EXACT = {"atol": 1e-12, "rtol": 1e-9}


def total(terms):
    return sum(WEIGHTS[name] * term for name, term in terms.items())


def slow_terms(first, second):
    """Return the terms as the paper writes them, one number at a time."""
    n, dim = first.shape
    var, cov = [], []
    for z in (first, second):
        columns = z - z.mean(0)
        matrix = sum(row[:, None] * row[None] for row in columns) / (n - 1)
        var.append(sum(max(0, 1 - (matrix[j, j] + 1e-4) ** 0.5) for j in range(dim)) / dim)
        pairs = ((i, j) for i in range(dim) for j in range(dim) if i != j)
        cov.append(sum(matrix[i, j] ** 2 for i, j in pairs) / dim)
    return {
        "invariance": (first - second).square().sum() / (n * dim),
        "variance": sum(var) / 2,
        "covariance": sum(cov),
    }


@pytest.mark.parametrize("case", ["plain", "indep", "collapsed"])
def test_golden_of_vicreg(case):
    golden = subset(load_golden("vicreg/loss.npz"), f"{case}_")
    x, y = (golden[name].clone().requires_grad_() for name in "xy")
    terms = vicreg_terms(x, y)
    for name, short in SHORT.items():
        assert_close(terms[name].detach(), golden[short], **EXACT)
    loss = total(terms)
    loss.backward()
    assert_close(loss.detach(), golden["total"], **EXACT)
    assert_close(x.grad, golden["grad_x"], **EXACT)
    assert_close(y.grad, golden["grad_y"], **EXACT)


def test_golden_of_mlvicx():
    golden = load_golden("mlvicx/loss_terms.npz")
    rows = {name: golden[name].clone().requires_grad_() for name in ("z1", "z2", "d1", "d2")}
    parts = {
        "global": vicreg_terms(rows["z1"], rows["z2"]),
        "local": vicreg_terms(rows["d1"], rows["d2"]),
    }
    for branch, terms in parts.items():
        for name, short in SHORT.items():
            assert_close(terms[name].detach(), golden[f"{branch}_{short}"], **EXACT)
        assert_close(total(terms).detach(), golden[f"{branch}_total"], **EXACT)
    sum(map(total, parts.values())).backward()
    for name, value in rows.items():
        assert_close(value.grad, golden[f"grad_{name}"], **EXACT)


@pytest.mark.parametrize("case", ["collapsed", "same", "n2", "d1", "big", "maps"])
def test_golden_edges(case):
    golden = subset(load_golden("mlvicx/loss_edge.npz"), f"{case}_")
    terms = vicreg_terms(golden["a"], golden["b"])
    for name, short in SHORT.items():
        assert_close(terms[name], golden[short], **EXACT)
    assert_close(total(terms), golden["total"], **EXACT)


def share(rank, golden):
    own = slice(rank * 8, rank * 8 + 8)
    w = golden["w"].clone().requires_grad_()
    x, y = ((golden[name][own] @ w) for name in "xy")
    x.retain_grad(), y.retain_grad()
    loss = total(vicreg_terms(x, y))
    loss.backward()
    return {"loss": loss.detach(), "w": w.grad, "x": x.grad, "y": y.grad}


def test_golden_of_two_processes(tmp_path):
    golden = load_golden("vicreg/loss_2proc.npz")
    ranks = run_two(share, tmp_path, golden)
    for rank, result in enumerate(ranks):
        assert_close(result["loss"], golden[f"rank{rank}_loss"], **EXACT)
        assert_close(result["w"], golden[f"rank{rank}_grad_w_local"], **EXACT)
        assert_close(result["x"], golden[f"rank{rank}_grad_x"], **EXACT)
        assert_close(result["y"], golden[f"rank{rank}_grad_y"], **EXACT)
    mean = sum(result["w"] for result in ranks) / 2
    assert_close(mean, golden["single_grad_w"], **EXACT)
    assert_close(sum(r["loss"] for r in ranks) / 2, golden["single_loss"], **EXACT)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (7, 7), (2, 3), (6, 1)])
def test_equals_the_slow_reference_on_either_side_of_the_gram_matrix(shape):
    torch.manual_seed(0)
    first, second = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for _ in "12")
    slow = slow_terms(first, second)
    wanted = torch.autograd.grad(total(slow), (first, second))
    fast = vicreg_terms(first, second)
    for name, value in fast.items():
        assert_close(value, torch.as_tensor(slow[name], dtype=torch.float64))
    got = torch.autograd.grad(total(fast), (first, second))
    assert_close(got, wanted)


def test_single_terms_are_those_of_the_pair():
    torch.manual_seed(0)
    first, second = torch.randn(2, 6, 4)
    terms = vicreg_terms(first, second)
    assert_close(invariance(first, second), terms["invariance"])
    assert_close((variance(first) + variance(second)) / 2, terms["variance"])
    assert_close(covariance(first) + covariance(second), terms["covariance"])


def test_a_collapsed_batch_has_a_finite_gradient():
    z = torch.ones(8, 4, requires_grad=True)
    terms = vicreg_terms(z, z)
    assert_close(terms["variance"], torch.tensor(0.99))
    total(terms).backward()
    assert torch.isfinite(z.grad).all()


def test_half_precision_is_computed_in_single():
    torch.manual_seed(0)
    first, second = torch.randn(2, 16, 300).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        terms = vicreg_terms(first, second)
    for name, value in vicreg_terms(first.float(), second.float()).items():
        assert terms[name].dtype == torch.float32
        assert torch.equal(terms[name], value)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="need at least two images over all processes, got 1"):
        vicreg_terms(torch.randn(1, 3), torch.randn(1, 3))
    with pytest.raises(ValueError, match=r"must have one shape, got \(2, 3\) and \(2, 4\)"):
        vicreg_terms(torch.randn(2, 3), torch.randn(2, 4))
