import math

import pytest
import torch
from torch.testing import assert_close

from cxrssl.losses.multilabel import (
    asymmetric_loss,
    labels_as_published,
    multilabel_bce,
    resolve_labels,
)
from tests.distributed import run_two
from tests.golden import load_golden

NAN = math.nan


def golden_losses():
    """Return golden logits, labels with NaN where missing, and all numbers."""
    golden = load_golden("glori/losses.npz")
    labels = golden["labels_with_missing"].float()
    return golden["x"], labels.masked_fill(labels < 0, NAN), golden


def example(rows=8):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    labels = torch.rand(rows, 3, generator=generator, dtype=torch.float64).round()
    # Most of what is unknown is in the second half.
    labels[rows // 2 :, :2] = NAN
    labels[0, 2] = NAN
    return logits, labels


def slow_sum(logits, labels):
    total = 0.0
    for x, y in zip(logits.flatten().tolist(), labels.flatten().tolist(), strict=True):
        if not math.isnan(y):
            p = 1 / (1 + math.exp(-x))
            total -= y * math.log(p) + (1 - y) * math.log(1 - p)
    return total


def test_golden_asymmetric_loss():
    x, labels, golden = golden_losses()
    x.requires_grad_()
    loss = asymmetric_loss(x, labels)
    assert_close(loss, golden["asl"], atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(loss, x)
    assert_close(gradient, golden["asl_grad"], atol=1e-6, rtol=1e-5)
    attached = asymmetric_loss(x, labels, detach_focus=False)
    assert_close(attached, golden["asl_no_detach"], atol=1e-5, rtol=1e-5)
    everything = asymmetric_loss(x, labels_as_published(labels, 1))
    assert_close(everything, golden["asl_noweight"], atol=1e-5, rtol=1e-5)


def test_golden_labels_as_published():
    x, labels, golden = golden_losses()
    first = multilabel_bce(x, labels_as_published(labels, 0), reduction="sum")
    assert_close(first, golden["bce_as_in_code_head0"], atol=1e-5, rtol=1e-5)
    # The second head of the file halves the logits.
    second = multilabel_bce(x / 2, labels_as_published(labels, 1), reduction="sum")
    assert_close(second, golden["bce_as_in_code_head1_unmasked"], atol=1e-5, rtol=1e-5)
    correct = multilabel_bce(x / 2, labels, reduction="sum")
    assert_close(correct, golden["bce_correct_head1"], atol=1e-5, rtol=1e-5)


def test_cross_entropy_equals_a_loop_over_known_labels():
    logits, labels = example()
    labels[1, 2] = 0.3
    total = slow_sum(logits, labels)
    assert multilabel_bce(logits, labels, reduction="sum").item() == pytest.approx(total)
    assert multilabel_bce(logits, labels).item() == pytest.approx(total / 15)
    weight = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
    weighted = 2 * slow_sum(logits[:, :1], labels[:, :1]) + slow_sum(logits[:, 1:2], labels[:, 1:2])
    found = multilabel_bce(logits, labels, reduction="sum", weight=weight)
    assert found.item() == pytest.approx(weighted)


def test_unknown_labels_get_no_gradient_and_may_be_all_there_is():
    logits, labels = example()
    for loss in (multilabel_bce, asymmetric_loss):
        x = logits.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x, labels), x)
        assert torch.equal(gradient == 0, labels.isnan())
        nothing = loss(x, torch.full_like(x, NAN), reduction="mean")
        (gradient,) = torch.autograd.grad(nothing, x)
        assert nothing == 0
        assert gradient.abs().max() == 0


def test_asymmetric_loss_by_hand():
    logits = torch.tensor([[math.log(1 / 3), math.log(3)]], dtype=torch.float64)
    loss = asymmetric_loss(logits, torch.tensor([[1.0, 0.0]]))
    # p = 1/4 present: -(3/4) log(1/4). p = 3/4 absent, p_m = 0.7: -0.7^4 log 0.3.
    assert loss.item() == pytest.approx(0.75 * math.log(4) - 0.7**4 * math.log(0.3))


def test_asymmetric_loss_without_focus_and_clip_is_the_cross_entropy():
    logits, labels = example()
    options = {"gamma_negative": 0.0, "gamma_positive": 0.0, "clip": 0.0}
    for reduction in ("sum", "mean"):
        found = asymmetric_loss(logits, labels, reduction=reduction, **options)
        assert_close(found, multilabel_bce(logits, labels, reduction=reduction))


@pytest.mark.parametrize("options", [{}, {"clip": 0.0}, {"gamma_negative": 0.5}])
def test_gradient_of_the_asymmetric_loss(options):
    logits, labels = example()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: asymmetric_loss(x, labels, detach_focus=False, **options), logits
    )
    extreme = torch.tensor([[-200.0, 200.0]]).requires_grad_()
    for targets in (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])):
        loss = asymmetric_loss(extreme, targets, detach_focus=False, **options)
        (gradient,) = torch.autograd.grad(loss, extreme)
        assert gradient.isfinite().all()


def test_float32_under_autocast():
    logits, labels = example()
    low = logits.to(torch.bfloat16)
    for loss in (multilabel_bce, asymmetric_loss):
        with torch.autocast("cpu", torch.bfloat16):
            found = loss(low, labels)
        assert found.dtype == torch.float32
        assert_close(found, loss(low.float(), labels))
        assert loss(logits, labels).dtype == torch.float64


def test_policies_for_uncertain_labels():
    labels = torch.tensor([[1.0, -1, -1, -1, -1], [-1, 0, NAN, 0.2, 1]])
    policies = ["ignore", "zeros", "ones", "smoothing", "ignore"]
    expected = torch.tensor([[1.0, 0, 1, 0.7, NAN], [NAN, 0, NAN, 0.2, 1]])
    assert_close(resolve_labels(labels, policies), expected, equal_nan=True)
    by_name = resolve_labels(
        labels, {"b": "zeros", "c": "ones", "d": "smoothing"}, findings=list("abcde")
    )
    assert_close(by_name, expected, equal_nan=True)
    ones = resolve_labels(torch.tensor([[-1, 0]]), "ones")
    assert_close(ones, torch.tensor([[1.0, 0.0]]))


def test_constant_smoothing_is_the_expectation_of_random_targets():
    logits = torch.tensor([[0.8]], dtype=torch.float64)
    draws = torch.linspace(0.55, 0.85, 101, dtype=torch.float64)[:, None]
    expected = multilabel_bce(logits.expand(101, 1), draws)
    found = multilabel_bce(logits, resolve_labels(torch.tensor([[-1.0]]), "smoothing"))
    assert_close(found, expected, atol=1e-7, rtol=1e-7)


def test_wrong_labels_and_options_are_refused():
    logits, labels = example()
    with pytest.raises(ValueError, match=r"one shape, got \(8, 3\) and \(8, 1\)"):
        multilabel_bce(logits, labels[:, :1])
    with pytest.raises(ValueError, match=r"reduction must be .* got 'none'"):
        asymmetric_loss(logits, labels, reduction="none")
    with pytest.raises(ValueError, match=r"policy must be .* got 'half'"):
        resolve_labels(labels, "half")
    with pytest.raises(ValueError, match="there are 3 findings, got policies for 2"):
        resolve_labels(labels, ["ones", "zeros"])
    with pytest.raises(ValueError, match=r"all of \['Edema'\], got None"):
        resolve_labels(labels, {"Edema": "ones"})


def gradient_of_mean(logits, labels):
    scale = torch.ones(3, dtype=torch.float64, requires_grad=True)
    loss = multilabel_bce(logits * scale, labels)
    loss.backward()
    return loss.detach(), scale.grad


def gradient_on(rank):
    logits, labels = example()
    own = slice(rank * 4, rank * 4 + 4)
    return gradient_of_mean(logits[own], labels[own])


def test_mean_of_two_processes_is_that_of_the_joined_batch(tmp_path):
    expected = gradient_of_mean(*example())
    ranks = run_two(gradient_on, tmp_path)
    for found, wanted in zip(zip(*ranks, strict=True), expected, strict=True):
        assert_close(torch.stack(found).mean(0), wanted)
