import pytest
import torch
from torch import distributed as dist
from torch.testing import assert_close

from cxrssl.losses import (
    SoftmaxCentering,
    covariance,
    draw_directions,
    gather_rows,
    koleo_loss,
    sigreg,
    sinkhorn,
    variance,
    vicreg_terms,
)
from cxrssl.losses.distributed import sum_with_gradient
from tests.distributed import run_two
from tests.golden import SHARED, load_golden


def vicreg_loss(x, y, w):
    terms = vicreg_terms(x @ w, y @ w)
    return 25 * terms["invariance"] + 25 * terms["variance"] + terms["covariance"]


def sketched(x, y, w):
    directions = draw_directions(w.shape[1], 8, torch.Generator().manual_seed(0))
    return sigreg(x @ w, directions)


LOSSES = {
    "vicreg": vicreg_loss,
    "variance": lambda x, y, w: variance(x @ w),
    "covariance": lambda x, y, w: covariance(x @ w),
    "wide covariance": lambda x, y, w: covariance(x @ torch.cat([w, w.square()], 1)),
    "sigreg": sketched,
}


def embeddings():
    """Return two views (16, 10) and the weight they share, the golden ones if they are there."""
    if (SHARED / "golden/vicreg/loss_2proc.npz").is_file():
        golden = load_golden("vicreg/loss_2proc.npz")
        return golden["x"], golden["y"], golden["w"]
    generator = torch.Generator().manual_seed(0)
    shapes = [(16, 10), (16, 10), (10, 10)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def loss_and_gradients(loss, x, y, w):
    """Return the loss, and its gradients with respect to the weight and to the first view."""
    x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
    value = loss(x, y, w)
    return value.detach(), *torch.autograd.grad(value, (w, x))


def compute_embedding_losses(rank):
    x, y, w = embeddings()
    own = slice(rank * 8, rank * 8 + 8)
    result = {name: loss_and_gradients(loss, x[own], y[own], w) for name, loss in LOSSES.items()}
    mine = x[own].clone().requires_grad_()
    total = sum_with_gradient(mine)
    ((rank + 1) * total.square().sum()).backward()
    result["sum"] = total.detach(), mine.grad
    return result


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
    result["embeddings"] = compute_embedding_losses(rank)
    return result


def golden_of_sinkhorn():
    has_golden = (SHARED / "golden/dinov2/sinkhorn_2rank.npz").is_file()
    return load_golden("dinov2/sinkhorn_2rank.npz") if has_golden else None


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both ranks computed; starting processes takes longer than all the rest."""
    return run_two(compute, tmp_path_factory.mktemp("ranks"), golden_of_sinkhorn())


def test_two_processes_equal_one(ranks):
    golden = golden_of_sinkhorn()
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


def test_two_processes_equal_one_in_losses_of_embeddings(ranks):
    first, second = (result["embeddings"] for result in ranks)
    x, y, w = embeddings()
    for name, loss in LOSSES.items():
        value, grad_w, grad_x = loss_and_gradients(loss, x, y, w)
        (value1, grad_w1, grad_x1), (value2, grad_w2, grad_x2) = first[name], second[name]
        # What DDP does with losses and gradients is to take the mean.
        assert_close((value1 + value2) / 2, value)
        assert_close((grad_w1 + grad_w2) / 2, grad_w)
        assert_close(torch.cat([grad_x1, grad_x2]) / 2, grad_x)
    for result in (first, second):
        total, gradient = result["sum"]
        assert_close(total, x[:8] + x[8:])
        assert_close(gradient, 3 * 2 * total)  # (1 + 2) * d(t^2)


def test_vicreg_golden_of_two_processes(ranks):
    golden = load_golden("vicreg/loss_2proc.npz")
    first, second = (result["embeddings"] for result in ranks)
    x, y, w = (golden[name] for name in ("x", "y", "w"))
    exact = {"atol": 1e-12, "rtol": 1e-9}
    single, gradient, _ = loss_and_gradients(vicreg_loss, x, y, w)
    assert_close(single, golden["single_loss"], **exact)
    assert_close(gradient, golden["single_grad_w"], **exact)
    mean = (first["vicreg"][1] + second["vicreg"][1]) / 2
    for rank, result in enumerate((first, second)):
        value, grad_w, grad_x = result["vicreg"]
        assert_close(value, golden[f"rank{rank}_loss"], **exact)
        assert_close(grad_w, golden[f"rank{rank}_grad_w_local"], **exact)
        assert_close(mean, golden[f"rank{rank}_grad_w_ddp_mean"], **exact)
        # The file's gradient is that of the embedding x @ w.
        assert_close(grad_x, golden[f"rank{rank}_grad_x"] @ w.T, **exact)
