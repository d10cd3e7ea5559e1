import pytest
import torch
from torch.testing import assert_close

from cxrssl.losses import koleo_loss
from tests.golden import load_golden


@pytest.mark.parametrize("case", ["rand", "dup", "single", "anti"])
def test_golden(case):
    golden = load_golden("dinov2/koleo.npz")
    x = golden[f"{case}_x"].clone().requires_grad_()
    loss = koleo_loss(x)
    loss.backward()
    if case == "anti":
        # The neighbour of an antipodal pair is a tie; both answers are valid.
        assert torch.isfinite(loss)
        return
    assert_close(loss, golden[f"{case}_loss"], atol=1e-5, rtol=1e-5)
    if case != "dup":  # near-zero distances make that gradient a matter of rounding
        assert_close(x.grad, golden[f"{case}_grad"], atol=1e-5, rtol=1e-5)


def test_four_points_on_a_square():
    # Each neighbour is sqrt(2) away.
    x = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    assert_close(koleo_loss(x), -torch.tensor(2.0).sqrt().log(), atol=1e-6, rtol=1e-6)


def test_rows_may_be_permuted_and_rotated():
    torch.manual_seed(0)
    x = torch.randn(9, 5)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5))
    assert_close(koleo_loss(x[torch.randperm(9)] @ rotation), koleo_loss(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_duplicates_stay_finite_in_half_precision(dtype):
    x = torch.randn(3, 16).to(dtype).repeat(2, 1).requires_grad_()
    loss = koleo_loss(x)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(x.grad).all()


def test_unknown_scope():
    with pytest.raises(ValueError, match="scope must be 'rank' or 'global', got 'all'"):
        koleo_loss(torch.randn(2, 3), scope="all")
