import pytest
import torch
from torch.testing import assert_close

from cxrssl.losses import SoftmaxCentering


def test_centre_moves_once_by_the_mean_of_all_micro_batches():
    torch.manual_seed(0)
    logits = torch.randn(4, 6, 5)
    whole, parts = SoftmaxCentering(5), SoftmaxCentering(5)
    whole.observe(logits.flatten(0, 1))
    whole.update()
    for part in logits:
        parts.observe(part)
        assert parts.center.abs().sum() == 0
    parts.update()
    assert_close(parts.center, whole.center)
    assert_close(whole.center, 0.1 * logits.mean((0, 1)))


def test_unequal_micro_batches_by_reduction():
    first, second = torch.full((1, 2), 1.0), torch.full((3, 2), 5.0)
    by_rank, by_row = SoftmaxCentering(2), SoftmaxCentering(2, reduction="global")
    for centering in (by_rank, by_row):
        centering.observe(first)
        centering.observe(second)
        centering.update()
    assert_close(by_rank.center, torch.full((2,), 0.1 * 3.0))  # (1 + 5) / 2
    assert_close(by_row.center, torch.full((2,), 0.1 * 4.0))  # (1 + 3 * 5) / 4


def test_an_update_without_observation_changes_nothing():
    centering = SoftmaxCentering(3, reduction="global")
    centering.center.fill_(2.0)
    centering.update()
    assert_close(centering.center, torch.full((3,), 2.0))


def test_probabilities_are_float32_and_centred():
    centering = SoftmaxCentering(3)
    centering.center.copy_(torch.tensor([1.0, 2.0, 3.0]))
    result = centering(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.bfloat16), 0.07)
    assert result.dtype == torch.float32
    assert_close(result, torch.full((1, 3), 1 / 3))


def test_unknown_reduction():
    with pytest.raises(ValueError, match="reduction must be 'rank' or 'global', got 'sum'"):
        SoftmaxCentering(3, reduction="sum")
