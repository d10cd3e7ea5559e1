import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cxrssl.analysis.spectrum import effective_rank
from cxrssl.losses import embedding_statistics

NAMES = ["std", "active_hinges", "effective_rank", "correlation"]


def gaussian(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(30, 7), (7, 30), (2, 3)])
def test_equal_numpy_on_the_definition(shape):
    z = gaussian(*shape) * torch.linspace(0.1, 2, shape[1]) + 3
    found = embedding_statistics(z)
    x = z.double().numpy()
    std = x.std(0, ddof=1)
    correlation = np.abs(np.corrcoef(x.T))[~np.eye(shape[1], dtype=bool)].mean()
    expected = (std.mean(), (std < 1).mean(), effective_rank(x, centred=True), correlation)
    assert list(found) == NAMES
    for name, value in zip(NAMES, expected, strict=True):
        assert found[name].item() == pytest.approx(value, rel=1e-5)


def test_are_scalars_of_float32_without_gradient():
    z = gaussian(8, 4).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = embedding_statistics(z)
    for value in found.values():
        assert value.dtype == torch.float32
        assert value.shape == ()
        assert not value.requires_grad


def test_collapse_onto_a_point_and_onto_a_line():
    point = embedding_statistics(torch.full((7, 5), 0.1))
    expected = {"std": 0, "active_hinges": 1, "effective_rank": 0, "correlation": 0}
    assert {name: value.item() for name, value in point.items()} == pytest.approx(expected)
    line = embedding_statistics(gaussian(64, 1) * torch.tensor([1.0, -2.0, 3.0]))
    assert line["effective_rank"].item() == pytest.approx(1, abs=1e-5)
    assert line["correlation"].item() == pytest.approx(1, abs=1e-5)


def test_constant_dimensions_are_left_out_of_the_correlation():
    z = torch.cat([gaussian(20, 2), torch.full((20, 3), 1 / 3)], 1)
    expected = embedding_statistics(z[:, :2])["correlation"]
    assert_close(embedding_statistics(z)["correlation"], expected)
    assert embedding_statistics(z[:, 1:])["correlation"] == 0  # one that varies
    assert embedding_statistics(z[:, :1])["correlation"] == 0  # D = 1


def test_hinges_follow_the_variance_term():
    z = torch.tensor([[-1.0, -1.0], [1.0, 1.0]]) * torch.tensor([0.7, 0.71])  # std sqrt(2) times it
    assert embedding_statistics(z)["active_hinges"] == 0.5
    assert embedding_statistics(z, eps=0.1)["active_hinges"] == 0
    assert embedding_statistics(z, gamma=1.5)["active_hinges"] == 1


def test_wide_embeddings_keep_the_correlation_of_independent_dimensions():
    found = embedding_statistics(gaussian(64, 2500))
    assert found["correlation"].item() == pytest.approx(math.sqrt(2 / (math.pi * 64)), rel=0.02)


def test_one_row_has_no_spread():
    found = embedding_statistics(gaussian(1, 4))
    assert [value.item() for value in found.values()] == [0, 1, 0, 0]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_embeddings_that_are_not_finite_give_nan(bad):
    z = gaussian(6, 4)
    z[2, 1] = bad
    assert all(torch.isnan(value) for value in embedding_statistics(z).values())
