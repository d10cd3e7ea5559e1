import pytest
import torch
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.heads.classification.pyramid import PatchPyramid


def test_shares_of_a_pyramid_by_hand():
    pyramid = PatchPyramid(1, 2, (2, 4))
    for linear in pyramid.linears:
        torch.nn.init.ones_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    patches = torch.tensor([[0.0, 0, 8, 8, 0, 0, 8, 8]]).repeat(1, 2)[..., None]
    coarse = pyramid(patches, (4, 4))
    # Columns average to 0 and 8; half-pixel centres of four columns lie at 0, 1/4, 3/4 and 1.
    assert_close(coarse[0, :, 0].view(4, 4), torch.tensor([0.0, 2, 6, 8]).expand(4, 4))
    assert_close(coarse[0, :, 1], torch.full((16,), 4.0))


def test_a_kernel_of_one_is_a_linear():
    pyramid = PatchPyramid(3, 5, (1,))
    patches = torch.randn(2, 6, 3)
    assert_close(pyramid(patches, (2, 3)), pyramid.linears[0](patches))


def test_kernels_that_do_not_divide_the_grid_keep_a_constant_map():
    pyramid = PatchPyramid(3, 6, (8, 4))
    patches = torch.randn(2, 1, 3).expand(-1, 15, -1)
    coarse = pyramid(patches, (5, 3))
    assert coarse.shape == (2, 15, 6)
    assert_close(coarse, coarse[:, :1].expand_as(coarse))


def test_dropped_patches_are_refused():
    with pytest.raises(InputError, match=r"all patches of the grid \(4, 4\), got 9"):
        PatchPyramid(3, 6)(torch.zeros(1, 9, 3), (4, 4))
