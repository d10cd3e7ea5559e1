import pytest
import torch
from torch.testing import assert_close

from cxrssl.losses import SoftmaxCentering, dino_global_loss, dino_local_loss, sinkhorn
from tests.golden import load_golden


def slow_dino(student_local, student_global, teacher, temperature):
    """Average of the cross-entropy over all pairs of different crops, by loops in float64."""
    pairs = []
    crops = [("local", s) for s in student_local] + [("global", s) for s in student_global]
    for number, (kind, logits) in enumerate(crops):
        for g, target in enumerate(teacher):
            if kind == "global" and number - len(student_local) == g:
                continue
            log_p = (logits.double() / temperature).log_softmax(-1)
            pairs.append(-(target.double() * log_p).sum(-1).mean())
    return torch.stack(pairs).mean()


@pytest.mark.parametrize("mode", ["softmax", "sinkhorn"])
def test_golden_losses_and_gradients(mode):
    golden = load_golden("dinov2/dino_loss.npz")
    temperature = golden["teacher_temp"].item()
    if mode == "softmax":
        teacher = golden["softmax_probs_step0"]
    else:
        teacher = sinkhorn(golden["teacher_logits_step0"], temperature)
        assert_close(teacher, golden["sinkhorn_probs_step0_iters3"], atol=1e-5, rtol=1e-5)
    batch, n_local = int(golden["batch"]), int(golden["n_local"])
    local = golden["student_local_logits"].unflatten(0, (n_local, batch)).requires_grad_()
    crops = golden["student_global_logits"].unflatten(0, (2, batch)).requires_grad_()
    teacher = teacher.unflatten(0, (2, batch))

    local_term = dino_local_loss(local, teacher)
    # The golden teacher rows are already swapped: row block g belongs to student crop g.
    global_term = dino_global_loss(crops, teacher.flip(0), n_local)
    total = local_term + global_term
    total.backward()

    pairs = 2 + 2 * n_local
    assert_close(local_term * pairs, golden[f"{mode}_local_loss_sum"], atol=1e-4, rtol=1e-5)
    assert_close(global_term * pairs / 2, golden[f"{mode}_global_loss"], atol=1e-5, rtol=1e-5)
    assert_close(total, golden[f"{mode}_total"], atol=1e-5, rtol=1e-5)
    assert_close(local.grad.flatten(0, 1), golden[f"{mode}_grad_local"], atol=1e-5, rtol=1e-5)
    assert_close(crops.grad.flatten(0, 1), golden[f"{mode}_grad_global"], atol=1e-5, rtol=1e-5)


def test_golden_softmax_with_lagged_centre():
    golden = load_golden("dinov2/dino_loss.npz")
    centering = SoftmaxCentering(32)
    for step in range(3):
        assert_close(centering.center, golden[f"center_used_step{step}"][0], atol=1e-6, rtol=1e-5)
        logits = golden[f"teacher_logits_step{step}"]
        probabilities = centering(logits, golden["teacher_temp"].item())
        assert_close(probabilities, golden[f"softmax_probs_step{step}"], atol=1e-6, rtol=1e-5)
        centering.observe(logits)
        centering.update()
    assert_close(centering.center, golden["center_after_step2"][0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("n_local", [1, 3, 8])
def test_terms_are_the_mean_over_pairs_of_different_crops(n_local):
    torch.manual_seed(0)
    local, crops = torch.randn(n_local, 5, 7), torch.randn(2, 5, 7)
    teacher = torch.randn(2, 5, 7).softmax(-1)
    total = dino_local_loss(local, teacher) + dino_global_loss(crops, teacher, n_local)
    assert_close(total.double(), slow_dino(local, crops, teacher, 0.1), atol=1e-5, rtol=1e-5)


def test_without_local_crops_the_global_term_keeps_the_published_factor():
    torch.manual_seed(0)
    crops, teacher = torch.randn(2, 5, 7), torch.randn(2, 5, 7).softmax(-1)
    expected = slow_dino([], crops, teacher, 0.1) * 2 / 3
    assert_close(dino_global_loss(crops, teacher, 0).double(), expected, atol=1e-6, rtol=1e-6)


def test_only_pairs_of_two_global_crops():
    with pytest.raises(ValueError, match="pairs two global crops, got 3"):
        dino_global_loss(torch.zeros(3, 2, 4), torch.zeros(2, 2, 4), 0)
