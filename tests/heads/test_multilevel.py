import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.heads import LevelFusion, MultiLevelHead
from tests.golden import load_golden, subset


def slow_fusion(fusion, maps):
    """The published order: resize, project, sum, pool."""
    total = 0
    for conv, level in zip(fusion.convs, maps, strict=True):
        if fusion.size is not None:
            side = (fusion.size, fusion.size)
            level = F.interpolate(level, side, mode="bilinear", align_corners=False)
        total = total + conv(level)
    return F.adaptive_avg_pool2d(total, fusion.pooled)


def random_maps(sides, dims, dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(2, dim, *side, dtype=dtype) for dim, side in zip(dims, sides, strict=True)]


def golden_head():
    golden = load_golden("mlvicx/heads.npz")
    head = MultiLevelHead((4, 4, 6), 16, channels=8, widths=(10, 10, 10)).double()
    state = {}
    for name, value in subset(golden, "rp_sd.").items():
        parts = name.split(".")
        if parts[0] == "convs":
            state[f"fusion.{name}"] = value
        else:  # conv_head.projection.N: pooling and flattening come first
            state[f"projector.mlp.{int(parts[2]) - 2}.{parts[3]}"] = value
    head.load_state_dict(state)
    return head, [golden[f"rp_map{level}"] for level in range(3)], golden


def test_golden():
    head, maps, golden = golden_head()
    assert_close(head.fusion(maps), golden["rp_pooled"], atol=1e-12, rtol=1e-9)
    assert_close(head(maps), golden["rp_out_train"], atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(
    ("size", "sides", "pooled"),
    [
        (64, [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7)], 4),
        (10, [(20, 13), (3, 7), (1, 1)], 4),  # windows overlap, and maps are not square
        (None, [(14, 14), (14, 14)], 4),
        (None, [(9, 5), (9, 5)], 3),
        (None, [(2, 2)], 4),
    ],
)
def test_fusion_and_its_gradients_equal_the_published_order(size, sides, pooled):
    dims = range(2, 2 + len(sides))
    fusion = LevelFusion(list(dims), size, channels=5, pooled=pooled).double()
    maps = [level.requires_grad_() for level in random_maps(sides, dims)]
    fast, slow = fusion(maps), slow_fusion(fusion, maps)
    assert fast.shape == (2, 5, pooled, pooled)
    assert_close(fast, slow, atol=1e-12, rtol=1e-9)
    inputs = [*maps, *fusion.parameters()]
    ours, theirs = (torch.autograd.grad(out.square().sum(), inputs) for out in (fast, slow))
    assert_close(ours, theirs, atol=1e-11, rtol=1e-9)


def test_autocast_does_not_reach_the_resizing():
    fusion = LevelFusion([3], 16, channels=3)
    torch.nn.init.dirac_(fusion.convs[0].weight)
    torch.nn.init.zeros_(fusion.convs[0].bias)
    (level,) = random_maps([(20, 20)], [3], torch.float32)
    expected = slow_fusion(fusion, [level])
    with torch.autocast("cpu", torch.bfloat16):
        found = fusion([level])  # only the convolution rounds
    assert_close(found.float(), expected.bfloat16().float(), atol=0, rtol=2**-7)
    assert fusion([level]).dtype == torch.float32


def test_published_sizes():
    with torch.device("meta"):
        head = MultiLevelHead((64, 64, 128, 256, 512))
    assert sum(p.numel() for p in head.fusion.parameters()) == 1024 * 512 + 5 * 512
    # Linear layers with bias, each with a batch norm.
    assert sum(p.numel() for p in head.projector.parameters()) == (8192 + 8192 + 9) * 4096


def test_other_number_of_maps_is_refused():
    fusion = LevelFusion([3, 3], None, channels=2)
    with pytest.raises(InputError, match="built for 2 levels, got 1"):
        fusion([torch.zeros(1, 3, 4, 4)])


@pytest.mark.parametrize(
    ("dims", "options"),
    [
        ([], {}),
        ([3, 0], {}),
        ([3], {"size": 0}),
        ([3], {"channels": 0}),
        ([3], {"pooled": 0}),
    ],
)
def test_impossible_sizes_are_refused(dims, options):
    with pytest.raises(InputError, match="at least one level and positive sizes, got dims"):
        LevelFusion(dims, **options)
