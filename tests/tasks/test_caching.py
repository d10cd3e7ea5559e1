import pytest
import torch
from torch.testing import assert_close

from cxrssl.tasks.caching import pack_levels, packed_shapes, unpack_levels
from tests.backbones.official import tiny_vit


@pytest.fixture(params=[True, False], ids=["class token", "no class token"])
def vit(request):
    return tiny_vit(class_token=request.param, registers=2).eval()


def test_packed_patches_come_back_as_tokens(vit):
    levels = vit.levels(torch.randn(2, 3, 70, 70), [0, 1])
    again = unpack_levels(pack_levels(levels, patches=True), vit.has_class_token)
    for before, after in zip(levels, again, strict=True):
        assert torch.equal(after.patches, before.patches)
        assert after.grid == before.grid
        assert after.registers.shape == (2, 0, 64)
        if vit.has_class_token:
            assert torch.equal(after.cls, before.cls)
        else:
            assert after.cls is None


def test_mean_patch_gives_the_same_pooled_vectors(vit):
    levels = vit.levels(torch.randn(2, 3, 70, 70), [1])
    (tokens,) = unpack_levels(pack_levels(levels, patches=False), vit.has_class_token)
    assert tokens.grid == (1, 1)
    for pooling in ("class", "mean", "both") if vit.has_class_token else ("mean",):
        assert_close(tokens.pool(pooling), levels[0].pool(pooling))


@pytest.mark.parametrize("patches", [True, False])
def test_shapes_are_those_of_what_is_packed(vit, patches):
    packed = pack_levels(vit.levels(torch.zeros(1, 3, 42, 42), [0, 1]), patches)
    shapes = packed_shapes(vit, [0, 1], patches, 42)
    assert shapes == [tuple(x.shape[1:]) for x in packed]
    assert shapes[0][0] == int(vit.has_class_token) + (9 if patches else 1)
