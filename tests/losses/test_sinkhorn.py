import pytest
import torch
from torch.testing import assert_close

from cxrssl.losses import sinkhorn
from tests.golden import load_golden


def slow_sinkhorn(logits, temperature, iterations):
    """Alternating normalisation of the full matrix in float64."""
    q = ((logits.double() - logits.double().max()) / temperature).exp().T
    n_prototypes, n_rows = q.shape
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(1, keepdim=True) * n_prototypes
        q /= q.sum(0, keepdim=True) * n_rows
    return (q * n_rows).T


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_golden(iterations):
    golden = load_golden("dinov2/dino_loss.npz")
    result = sinkhorn(golden["teacher_logits_step0"], golden["teacher_temp"].item(), iterations)
    expected = golden[f"sinkhorn_probs_step0_iters{iterations}"]
    assert_close(result, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("scale", "temperature"), [(1.0, 0.07), (3.0, 0.3), (0.1, 1.0)])
def test_equals_the_slow_form(scale, temperature):
    torch.manual_seed(0)
    logits = torch.randn(12, 30) * scale
    result = sinkhorn(logits, temperature)
    assert_close(result.double(), slow_sinkhorn(logits, temperature, 3), atol=1e-5, rtol=1e-4)
    assert_close(result.sum(1), torch.ones(12))


@pytest.mark.parametrize("length", [1.4, 2.0, 3.0, 10.0])
def test_collapse_onto_one_prototype_stays_exact(length):
    """All rows like the same prototype: the case in which the method has to help."""
    torch.manual_seed(0)
    logits = torch.rand(16, 12) * 0.2 - length
    logits[:, 3] += 2 * length
    result = sinkhorn(logits, 0.04)
    assert_close(result.double(), slow_sinkhorn(logits, 0.04, 3), atol=1e-4, rtol=1e-3)
    assert result.mean(0).max() < 0.5


def test_logits_far_beyond_the_range_of_exp_stay_finite():
    logits = torch.randn(8, 16) * 50
    result = sinkhorn(logits, 0.04)
    assert torch.isfinite(result).all()
    assert_close(result.sum(1), torch.ones(8))


def test_a_constant_does_not_matter():
    torch.manual_seed(0)
    logits = torch.randn(6, 10)
    assert_close(sinkhorn(logits + 100, 0.1), sinkhorn(logits, 0.1), atol=1e-4, rtol=1e-3)


def test_empty_input():
    assert sinkhorn(torch.zeros(0, 5), 0.1).shape == (0, 5)
