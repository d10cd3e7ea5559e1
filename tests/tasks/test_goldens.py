"""What the reference repositories compute, through a whole task."""

import pytest
import torch
from torch.testing import assert_close

from cxrssl.heads import LinearProbe
from cxrssl.objectives.recipe import Recipe, parameter_groups
from cxrssl.schedules import Schedule
from cxrssl.tasks import Classification
from cxrssl.views import EvalView
from tests.backbones.official import micro_vit
from tests.golden import load_golden, subset
from tests.tasks.small import small_classification


def chexworld():
    """Return the micro model of CheXWorld with its linear head, fine-tuned."""
    encoder = micro_vit()
    weights = load_golden("chexworld/model_micro.npz")
    encoder.vit.load_state_dict(subset(weights, "sd/target_encoder."))
    return Classification(
        encoder,
        [f"finding {n}" for n in range(5)],
        lambda dims, n: LinearProbe(dims, n, pooling="mean"),
        frozen=False,
        views=EvalView(image_size=64, in_chans=3),
        recipe=Recipe(layer_decay=0.75, patch_embed_lr=1.0, weight_decay=Schedule(0.05)),
    )


def test_loss_and_gradient_of_chexworld():
    golden, task = subset(load_golden("chexworld/finetune.npz"), "fc/"), chexworld()
    classifier = task.chosen_head.classifier
    classifier.load_state_dict(subset(golden, "head."))
    assert_close(task(golden["x"]), golden["logits"], atol=2e-5, rtol=0)
    [(_, loss)] = task.weighted_terms({"image": golden["x"], "labels": golden["y"]}, 0).values()
    assert_close(loss, golden["bce"], atol=2e-5, rtol=0)
    loss.backward()
    assert_close(classifier.weight.grad, golden["grad_head_w"], atol=2e-5, rtol=0)


def test_layer_decay_of_chexworld():
    golden, task = load_golden("chexworld/finetune.npz"), chexworld()
    groups = parameter_groups(task.named_parameters(), task.backbone, task.recipe)
    found = sorted(
        (group["lr_factor"], 0.05 * group["decay_factor"])
        for group in groups
        for _ in group["params"]
    )
    expected = sorted(zip(golden["lrd/scale"].tolist(), golden["lrd/wd"].tolist(), strict=True))
    assert len(found) == len(expected)
    for pair, wanted in zip(found, expected, strict=True):
        assert pair == pytest.approx(wanted)


def test_labels_of_later_heads_as_in_the_code_of_chexfound():
    golden = load_golden("glori/losses.npz")
    task = small_classification(
        findings=[f"finding {n}" for n in range(6)],
        candidates={"first": LinearProbe, "second": LinearProbe},
        published_mask=True,
        reduction="sum",
    )
    labels = golden["labels_with_missing"].float()
    labels[labels == -1] = torch.nan
    first, second = golden["x"], golden["x"] / 2  # the second head of the file halves the logits
    assert_close(task._loss(first, labels, 0), golden["bce_as_in_code_head0"])
    assert_close(task._loss(second, labels, 1), golden["bce_as_in_code_head1_unmasked"])
