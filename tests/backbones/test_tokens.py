import pytest
import torch
from torch.testing import assert_close

from cxrssl.backbones import Tokens
from cxrssl.errors import InputError


def tokens(cls=True, n=6, grid=(2, 3)):
    patches = torch.arange(2 * n * 4.0).view(2, n, 4)
    return Tokens(torch.full((2, 4), -1.0) if cls else None, patches[:, :0], patches, grid)


def test_map_is_a_view_with_rows_and_columns_in_their_place():
    each = tokens()
    assert each.map.shape == (2, 4, 2, 3)
    assert torch.equal(each.map[1, :, 1, 2], each.patches[1, 5])
    assert torch.equal(each.map[0, :, 0, 1], each.patches[0, 1])
    assert each.map.data_ptr() == each.patches.data_ptr()


def test_dropped_patches_make_no_map():
    with pytest.raises(InputError, match="6 patches make no map of 3 x 3"):
        _ = tokens(grid=(3, 3)).map


def test_pooling_with_and_without_a_class_token():
    each, bare = tokens(), tokens(cls=False)
    mean = each.patches.mean(1)
    assert torch.equal(each.pool("class"), each.cls)
    assert torch.equal(each.image, each.cls)
    assert_close(each.pool("mean"), mean)
    assert_close(each.pool("both"), torch.cat([each.cls, mean], 1))
    for pooling in ("class", "mean", "both"):
        assert_close(bare.pool(pooling), mean)
