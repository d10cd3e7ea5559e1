import pytest
import torch

from cxrssl.analysis import effective_rank
from cxrssl.losses import embedding_statistics


def statistics(z):
    return {name: value.item() for name, value in embedding_statistics(z).items()}


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_equals_what_numpy_says(shape):
    torch.manual_seed(0)
    z = torch.randn(*shape) * torch.linspace(0.2, 2, shape[1])
    found = statistics(z)
    assert found["std"] == pytest.approx(z.std(0).mean().item(), rel=1e-5)
    assert found["active_hinges"] == pytest.approx((z.std(0) < 1).float().mean().item())
    assert found["effective_rank"] == pytest.approx(
        effective_rank(z.numpy(), centred=True), rel=1e-3
    )
    correlation = torch.corrcoef(z.T).abs()
    off = (correlation.sum() - correlation.trace()) / (shape[1] * (shape[1] - 1))
    assert found["correlation"] == pytest.approx(off.item(), rel=1e-4)


def test_a_collapsed_batch_is_no_error():
    assert statistics(torch.ones(5, 3)) == {
        "std": 0.0,
        "active_hinges": 1.0,
        "effective_rank": 0.0,
        "correlation": 0.0,
    }
    assert statistics(torch.randn(1, 3))["effective_rank"] == 0.0


def test_constant_dimensions_do_not_count_in_the_correlation():
    torch.manual_seed(0)
    z = torch.randn(20, 1).expand(-1, 3).clone()
    z[:, 2] = 4.0
    assert statistics(z)["correlation"] == pytest.approx(1.0)
