import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.heads import LevelFusion, MultiLevelHead
from tests.golden import load_golden, subset


def slow_fusion(fusion, maps):
    """Resize, project, add, and pool, in the published order."""
    total = 0
    for conv, level in zip(fusion.convs, maps, strict=True):
        if fusion.size is not None:
            level = F.interpolate(level, (fusion.size,) * 2, mode="bilinear", align_corners=False)
        total = total + conv(level)
    return F.adaptive_avg_pool2d(total, fusion.pooled)


@pytest.mark.parametrize("size", [16, 10, None])
@pytest.mark.parametrize("sides", [(20, 12, 5), (9, 9, 9), (2, 3, 4)])
def test_pooling_first_changes_nothing(size, sides):
    torch.manual_seed(0)
    if size is None:
        sides = sides[:1] * 3  # levels of their own sizes can be added only where these agree
    fusion = LevelFusion((3, 4, 6), 8, size).double()
    maps = [
        torch.randn(2, d, n, n + (size is not None), dtype=torch.float64, requires_grad=True)
        for d, n in zip((3, 4, 6), sides, strict=True)
    ]
    fast, slow = fusion(maps), slow_fusion(fusion, maps)
    assert_close(fast, slow)
    probe = torch.randn_like(fast)
    ours = torch.autograd.grad((fast * probe).sum(), maps)
    theirs = torch.autograd.grad((slow * probe).sum(), maps)
    assert_close(ours, theirs)


def test_golden():
    golden = load_golden("mlvicx/heads.npz")
    head = MultiLevelHead((4, 4, 6), 16, channels=8, widths=(10, 10, 10)).double()
    state = subset(golden, "rp_sd.")
    renamed = {}
    for name, value in state.items():
        if name.startswith("convs."):
            renamed[f"fusion.{name}"] = value
        else:
            number, rest = name.removeprefix("conv_head.projection.").split(".")
            renamed[f"projector.{int(number) - 2}.{rest}"] = value
    fresh = {k: v for k, v in renamed.items() if "running" not in k and "tracked" not in k}
    missing, unexpected = head.load_state_dict(fresh, strict=False)
    assert unexpected == []
    assert all("running" in name or "tracked" in name for name in missing)
    maps = [golden[f"rp_map{n}"] for n in range(3)]
    assert_close(head.fusion(maps), golden["rp_pooled"], rtol=1e-9, atol=1e-12)
    assert_close(head(maps), golden["rp_out_train"], rtol=1e-9, atol=1e-11)


def test_sizes_must_be_positive():
    for options in ({"dims": ()}, {"dims": (3,), "size": 0}, {"dims": (3,), "channels": -1}):
        with pytest.raises(InputError, match="the fusion needs positive sizes"):
            LevelFusion(**options)
