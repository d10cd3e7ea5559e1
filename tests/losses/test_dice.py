import math

import pytest
import torch
from torch.testing import assert_close

from cxrssl.losses.dice import segmentation_bce, soft_dice


def example(seed=0, unknown=0.2, shape=(3, 2, 5, 7)):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, requires_grad=True)
    draw = torch.rand(shape, generator=generator)
    masks = (draw < 0.4).to(torch.uint8)
    masks[draw > 1 - unknown] = 255
    return logits, masks


def slow_dice(logits, masks, smooth=1e-5):
    losses = []
    for image, truths in zip(logits.tolist(), masks.tolist(), strict=True):
        for plane, truth in zip(image, truths, strict=True):
            pixels = [
                (1 / (1 + math.exp(-x)), t)
                for row, known in zip(plane, truth, strict=True)
                for x, t in zip(row, known, strict=True)
                if t != 255
            ]
            if pixels:
                overlap = sum(p * t for p, t in pixels)
                total = sum(p + t for p, t in pixels)
                losses.append(1 - (2 * overlap + smooth) / (total + smooth))
    return sum(losses) / len(losses)


def slow_bce(logits, masks):
    terms = [
        math.log1p(math.exp(-x if t else x))
        for x, t in zip(logits.flatten().tolist(), masks.flatten().tolist(), strict=True)
        if t != 255
    ]
    return sum(terms) / len(terms)


@pytest.mark.parametrize("smooth", [1e-5, 1.0])
def test_dice_equals_loops_over_images_structures_and_pixels(smooth):
    logits, masks = example()
    masks[1, 0] = 255  # this one is left out of the mean
    expected = slow_dice(logits, masks, smooth)
    assert soft_dice(logits, masks, smooth).item() == pytest.approx(expected, abs=1e-6)


def test_bce_equals_a_loop_over_pixels():
    logits, masks = example()
    expected = slow_bce(logits, masks)
    assert segmentation_bce(logits, masks).item() == pytest.approx(expected, abs=1e-6)


def test_dice_by_hand():
    logits = torch.zeros(1, 1, 1, 4)  # p = 1/2 everywhere
    masks = torch.tensor([[[[1, 1, 0, 255]]]], dtype=torch.uint8)
    # Overlap 1, sum of p 3/2, sum of t 2: 1 - 2 / 3.5.
    assert soft_dice(logits, masks, 0.0).item() == pytest.approx(1 - 2 / 3.5)
    perfect = torch.tensor([[[[50.0, 50.0, -50.0, 50.0]]]])
    assert soft_dice(perfect, masks).item() == pytest.approx(0, abs=1e-6)


def test_nothing_predicted_where_nothing_is_costs_nothing():
    masks = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    assert soft_dice(torch.full((2, 1, 4, 4), -50.0), masks).item() == pytest.approx(0)
    assert soft_dice(torch.full((2, 1, 4, 4), 50.0), masks).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("loss", [soft_dice, segmentation_bce])
def test_gradients_reach_known_pixels_only(loss):
    logits, masks = example()
    loss(logits, masks).backward()
    assert logits.grad[masks == 255].abs().max() == 0
    assert logits.grad[masks != 255].abs().min() > 0


@pytest.mark.parametrize("loss", [soft_dice, segmentation_bce])
def test_what_lies_under_unknown_pixels_does_not_matter(loss):
    logits, masks = example()
    other = torch.where(masks == 255, logits.detach() + 3, logits.detach())
    assert_close(loss(other, masks), loss(logits, masks))


@pytest.mark.parametrize("loss", [soft_dice, segmentation_bce])
def test_all_unknown_is_0_with_gradient_0(loss):
    logits, masks = example()
    masks.fill_(255)
    value = loss(logits, masks)
    value.backward()
    assert value.item() == 0
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("loss", [soft_dice, segmentation_bce])
def test_half_precision_is_summed_in_float32(loss):
    logits, masks = example(shape=(1, 1, 300, 300))
    half = logits.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(half, masks)
    assert found.dtype == torch.float32
    assert_close(found, loss(half.float(), masks))


@pytest.mark.parametrize("loss", [soft_dice, segmentation_bce])
@pytest.mark.parametrize("shape", [(3, 5, 7), (3, 1, 5, 7)])
def test_other_shapes_are_refused(loss, shape):
    logits, _ = example()
    with pytest.raises(ValueError, match=r"logits \(3, 2, 5, 7\) and masks \(3, "):
        loss(logits, torch.zeros(shape, dtype=torch.uint8))
