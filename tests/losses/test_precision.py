"""Every loss computes in float32, whatever the precision of its inputs and of the run."""

from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch.testing import assert_close

from cxrssl.losses import (
    SoftmaxCentering,
    covariance,
    dino_global_loss,
    dino_local_loss,
    draw_directions,
    embedding_statistics,
    ibot_loss,
    invariance,
    koleo_loss,
    mask_weights,
    sigreg,
    sinkhorn,
    soft_cross_entropy,
    token_loss,
    token_spread,
    variance,
    vicreg_terms,
)

MANY = 65536  # prototypes of DINOv2's short recipe


@contextmanager
def bfloat16_by_default():
    """As Lightning has it while it trains with weights in bf16-true."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


CONTEXTS = {
    "plain": nullcontext,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default": bfloat16_by_default,
}


def normal(*shape, scale=1.0, seed=0):
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).bfloat16()


def probabilities(*shape):
    return normal(*shape, scale=3.0, seed=1).float().softmax(-1)


def ibot(student, teacher):
    masks = torch.tensor([[True, True, False], [True, False, False]])
    weights = mask_weights(masks, masks.flatten().nonzero()[:, 0])
    return ibot_loss(student, teacher, weights, 2)


def centred(logits):
    centering = SoftmaxCentering(logits.shape[-1])
    centering.observe(logits)
    centering.update()
    return centering(logits, 0.04)


LOSSES = {
    "cross entropy": (
        lambda z, p: soft_cross_entropy(z, p, 0.1),
        (normal(4, MANY), probabilities(4, MANY)),
    ),
    "dino_local": (dino_local_loss, (normal(3, 2, MANY), probabilities(2, 2, MANY))),
    "dino_global": (
        lambda z, p: dino_global_loss(z, p, 3),
        (normal(2, 2, MANY), probabilities(2, 2, MANY)),
    ),
    "ibot": (ibot, (normal(3, MANY), probabilities(3, MANY))),
    "koleo": (koleo_loss, (normal(9, 64),)),
    "koleo, duplicates": (koleo_loss, (normal(4, 64).repeat(3, 1),)),
    "koleo, all equal": (koleo_loss, (normal(1, 64).repeat(6, 1),)),
    "invariance": (invariance, (normal(6, 5), normal(6, 5, seed=2))),
    "variance": (variance, (normal(40, 5, scale=0.5) + 20,)),
    "variance, collapsed": (variance, (normal(1, 5).repeat(6, 1),)),
    "covariance, tall": (covariance, (normal(40, 5) + 20,)),
    "covariance, wide": (covariance, (normal(6, 300) + 20,)),
    "vicreg": (
        lambda a, b: torch.stack(list(vicreg_terms(a, b).values())).sum(),
        (normal(6, 5), normal(6, 5, seed=2)),
    ),
    "sigreg": (
        lambda z: sigreg(z, draw_directions(16, 8, torch.Generator().manual_seed(0))),
        (normal(12, 16),),
    ),
    "mse": (token_loss, (normal(2, 3, 8), normal(2, 3, 8, seed=2))),
    "smooth_l1": (
        lambda a, b: token_loss(a, b, "smooth_l1"),
        (normal(2, 3, 8), normal(2, 3, 8, seed=2)),
    ),
    "spread": (token_spread, (normal(2, 3, 8),)),
}
TARGETS = {
    "sinkhorn": lambda z: sinkhorn(z, 0.04),
    "centring": centred,
    "statistics": lambda z: torch.stack(list(embedding_statistics(z[:, :64]).values())),
    "no statistics": lambda z: torch.stack(list(embedding_statistics(z[:, :4] / 0).values())),
}


def value_and_gradients(loss, inputs, context=nullcontext):
    """Return both; the backward pass is outside of the context, as in a run."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    with context():
        value = loss(*inputs)
    value.sum().backward()
    return value.detach(), [x.grad for x in inputs]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_bfloat16_is_exactly_that_of_the_same_numbers_in_float32(name, context):
    loss, inputs = LOSSES[name]
    expected, slopes = value_and_gradients(loss, [x.float() for x in inputs])
    found, gradients = value_and_gradients(loss, inputs, CONTEXTS[context])
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert torch.equal(found, expected)
    for gradient, slope, given in zip(gradients, slopes, inputs, strict=True):
        if slope is None:  # no gradient flows into a teacher
            assert gradient is None
            continue
        assert torch.isfinite(gradient).all()
        # The gradient is rounded once, to what came in; two of it may add up, each rounded.
        assert_close(gradient.float(), slope.to(given.dtype).float(), atol=1e-7, rtol=2**-7)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", TARGETS)
def test_a_target_of_bfloat16_is_exactly_that_of_the_same_numbers_in_float32(name, context):
    logits = normal(6, MANY)
    expected = TARGETS[name](logits.float())
    with CONTEXTS[context]():
        found = TARGETS[name](logits)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected) or (found.isnan().all() and expected.isnan().all())


def test_many_prototypes_are_summed_to_float32s_precision():
    logits, targets = normal(4, MANY), probabilities(4, MANY)
    found = soft_cross_entropy(logits, targets, 0.1)
    log_p = (logits.double() / 0.1).log_softmax(-1)
    assert_close(found.double(), -(targets.double() * log_p).sum(-1), atol=0, rtol=1e-5)
    balanced = sinkhorn(logits, 0.04).double()
    assert_close(balanced.sum(1), torch.ones(4).double(), atol=1e-5, rtol=0)


def test_directions_are_drawn_in_float32():
    expected = draw_directions(16, 8, torch.Generator().manual_seed(0))
    with bfloat16_by_default():
        found = draw_directions(16, 8, torch.Generator().manual_seed(0))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_the_centre_stays_in_float32_with_a_model_in_bfloat16():
    exact = SoftmaxCentering(4, momentum=0.9999)
    with bfloat16_by_default():
        rounded = torch.nn.Sequential(SoftmaxCentering(4, momentum=0.9999)).bfloat16()[0]
    for centering in (exact, rounded):
        centering.center.fill_(1.0)
        for _ in range(50):
            centering.observe(torch.full((3, 4), 3.0, dtype=torch.bfloat16))
            centering.update()
    assert {buffer.dtype for buffer in rounded.buffers()} == {torch.float32}
    assert torch.equal(rounded.center, exact.center)
    assert_close(rounded.center, torch.full((4,), 3 - 2 * 0.9999**50), atol=1e-5, rtol=0)
    assert {buffer.dtype for buffer in rounded.double().buffers()} == {torch.float64}
