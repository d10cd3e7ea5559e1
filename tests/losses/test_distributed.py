import torch
from torch import distributed as dist
from torch.testing import assert_close

from cxrssl.losses import SoftmaxCentering, gather_rows, koleo_loss, sinkhorn
from tests.distributed import run_two
from tests.golden import SHARED, load_golden


def compute(rank, golden):
    """Return on one rank everything the tests below compare."""
    result = {}
    torch.manual_seed(0)
    everything = torch.randn(8, 6)
    mine = everything[rank * 4 : rank * 4 + 4].clone().requires_grad_()
    # A different weight on each rank tells apart gradients that come from the other one.
    gathered = gather_rows(mine)
    ((rank + 1) * gathered.square().sum()).backward()
    result["gathered"], result["gather_grad"] = gathered.detach(), mine.grad.clone()

    mine.grad = None
    koleo = koleo_loss(mine, scope="global")
    (koleo / dist.get_world_size()).backward()
    result["koleo"], result["koleo_grad"] = koleo.detach(), mine.grad

    rows = everything[:3] if rank == 0 else everything[3:]
    result["sinkhorn_unequal"] = sinkhorn(rows, 0.1)
    result["sinkhorn_empty"] = sinkhorn(everything if rank == 0 else everything[:0], 0.1)
    for reduction in ("rank", "global"):
        centering = SoftmaxCentering(6, reduction=reduction)
        centering.observe(rows)
        centering.update()
        result[f"center_{reduction}"] = centering.center

    if golden is not None:
        temperature = golden["teacher_temp"].item()
        cls, patch = golden[f"cls_logits_rank{rank}"], golden[f"patch_logits_rank{rank}"]
        result["golden_cls"] = sinkhorn(cls, temperature)
        result["golden_patch"] = sinkhorn(patch, temperature)
        for name, logits in (("dino", cls), ("ibot", patch)):
            centering = SoftmaxCentering(20)
            centering.observe(logits)
            centering.update()
            result[f"golden_{name}_center"] = centering.center
    return result


def test_two_processes_equal_one(tmp_path):
    has_golden = (SHARED / "golden/dinov2/sinkhorn_2rank.npz").is_file()
    golden = load_golden("dinov2/sinkhorn_2rank.npz") if has_golden else None
    ranks = run_two(compute, tmp_path, golden)
    torch.manual_seed(0)
    everything = torch.randn(8, 6)

    whole = everything.clone().requires_grad_()
    koleo_loss(whole).backward()
    assert_close(sum(r["koleo"] for r in ranks) / 2, koleo_loss(everything))
    for rank, result in enumerate(ranks):
        own = slice(rank * 4, rank * 4 + 4)
        assert_close(result["gathered"], everything)
        assert_close(result["gather_grad"], 3 * 2 * everything[own])  # (1 + 2) * d(x^2)
        assert_close(result["koleo_grad"], whole.grad[own], atol=1e-6, rtol=1e-5)

    joined = torch.cat([r["sinkhorn_unequal"] for r in ranks])
    assert_close(joined, sinkhorn(everything, 0.1), atol=1e-6, rtol=1e-5)
    assert_close(ranks[0]["sinkhorn_empty"], sinkhorn(everything, 0.1), atol=1e-6, rtol=1e-5)
    by_rank = (everything[:3].mean(0) + everything[3:].mean(0)) / 2
    for result in ranks:
        assert_close(result["center_global"], 0.1 * everything.mean(0))
        assert_close(result["center_rank"], 0.1 * by_rank)

    for rank, result in enumerate(ranks if golden else []):
        for ours, theirs in {
            "golden_cls": f"dino_probs_rank{rank}",
            "golden_patch": f"ibot_probs_rank{rank}",
        }.items():
            assert_close(result[ours], golden[theirs], atol=1e-5, rtol=1e-5)
        for name in ("dino", "ibot"):
            expected = golden[f"{name}_center_rank{rank}"].flatten()
            assert_close(result[f"golden_{name}_center"], expected, atol=1e-6, rtol=1e-5)
