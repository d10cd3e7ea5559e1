import pytest
import torch
from torch.testing import assert_close

from cxrssl.losses import token_loss, token_spread


def test_distances_of_a_hand_computed_case():
    predicted = torch.tensor([[[0.0, 2.0], [1.0, 1.0]]])
    wanted = torch.tensor([[[0.5, 0.0], [1.0, 1.0]]])
    assert token_loss(predicted, wanted) == pytest.approx((0.25 + 4) / 4)
    # Below 1 half the square, above it the distance less a half.
    assert token_loss(predicted, wanted, "smooth_l1") == pytest.approx((0.125 + 1.5) / 4)


def test_loss_is_float32_whatever_comes_in():
    tokens = torch.randn(2, 3, 4, dtype=torch.bfloat16)
    assert token_loss(tokens, tokens).dtype == torch.float32


def test_spread_is_over_the_tokens_of_an_image():
    tokens = torch.tensor([[[0.0, 5.0], [2.0, 5.0]]])
    expected = torch.tensor([[(2 + 1e-4) ** 0.5, 1e-4**0.5]])
    assert_close(token_spread(tokens), expected)


def test_one_token_has_no_spread():
    assert_close(token_spread(torch.randn(3, 1, 4)), torch.full((3, 4), 1e-2))
