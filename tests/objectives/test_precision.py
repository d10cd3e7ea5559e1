"""Training in bfloat16 follows training in float32 from the same seed, within stated bounds."""

import copy
from functools import cache, partial

import numpy as np
import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from cxrssl.backbones import ConvNet
from cxrssl.data.phantom import Phantom
from cxrssl.heads.action import ActionToken
from cxrssl.objectives import Recipe
from cxrssl.schedules import Schedule
from cxrssl.views import PairViews
from tests.objectives.jepa_training import small_ijepa
from tests.objectives.siamese_training import (
    small_dino_head,
    small_dinov2,
    small_joint,
    small_lejepa,
    small_mlvicx,
    small_vicreg,
    small_world,
)
from tests.objectives.training import loader, quiet_trainer

pytestmark = pytest.mark.filterwarnings("ignore:weights kept in bf16-true miss updates")

STEPS, BATCH = 5, 8
RECIPE = Recipe(lr=Schedule(1e-3), lr_scaling="none")
FLOOR = 0.1  # differences of smaller losses are relative to it
# Largest relative difference of any loss, in the first step (one forward pass) and in all steps:
# about three times what was measured. The batch norms of a ConvNet, over few pixels of 8 images,
# and losses behind a low temperature react most to rounding.
BOUNDS = {
    "bf16-mixed": {
        "DINOv2, softmax": (0.01, 0.04),
        "DINOv2, Sinkhorn": (0.01, 0.01),
        "WorldModel": (0.001, 0.001),
        "IJEPA": (0.001, 0.001),
        "MLVICX": (0.01, 0.03),
        "MLVICX, ConvNet": (0.12, 0.8),
        "VICReg": (0.015, 0.04),
        "LeJEPA": (0.003, 0.2),
        "Joint": (0.05, 0.05),
    },
    "bf16-true": {
        "DINOv2, softmax": (0.02, 0.05),
        "DINOv2, Sinkhorn": (0.01, 0.02),
        "WorldModel": (0.001, 0.001),
        "IJEPA": (0.001, 0.008),
        "MLVICX": (0.02, 0.12),
        "MLVICX, ConvNet": (0.06, 0.6),
        "VICReg": (0.015, 0.04),
        "LeJEPA": (0.006, 0.15),
        "Joint": (0.05, 0.06),
    },
}


def mlvicx_on_a_convnet(**options):
    # Below 64 px the maps have one pixel, on which the CPU's kernels are not to be trusted.
    backbone = ConvNet("test_resnet", img_size=64)
    return small_mlvicx(backbone, views=PairViews(image_size=64), **options)


OBJECTIVES = {
    "DINOv2, softmax": small_dinov2,
    "DINOv2, Sinkhorn": partial(small_dinov2, centering="sinkhorn", ibot_head=small_dino_head),
    "WorldModel": small_world,
    "IJEPA": small_ijepa,
    "MLVICX": small_mlvicx,
    "MLVICX, ConvNet": mlvicx_on_a_convnet,
    "VICReg": small_vicreg,
    "LeJEPA": small_lejepa,
    "Joint": partial(small_joint, "dinov2", "mlvicx", "world"),
}


class Losses(Callback):
    """Notes every loss after every step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, *_):
        metrics = trainer.callback_metrics
        assert {v.dtype for k, v in metrics.items() if k.startswith("loss")} == {torch.float32}
        self.steps.append({k: float(v) for k, v in metrics.items() if k.startswith("loss")})


def phantoms(views, n_batches):
    """Return batches that the views make of phantoms."""
    rng = np.random.default_rng(0)
    phantom = Phantom(48)
    numbers = range(n_batches * BATCH)
    samples = [views(phantom.pixels(number), rng) for number in numbers]
    return [views.collate(samples[i : i + BATCH], rng) for i in numbers[::BATCH]]


@cache
def trained(name, precision):
    """Return the losses by name after each step."""
    objective, losses = OBJECTIVES[name](recipe=RECIPE), Losses()
    trainer = quiet_trainer(precision=precision, callbacks=[losses])
    trainer.fit(objective, loader(phantoms(objective.views, STEPS)))
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    assert {p.dtype for p in objective.parameters()} == {dtype}
    assert trainer.callback_metrics["health/nonfinite_steps"] == 0
    assert len(losses.steps) == STEPS
    return losses.steps


def differences(name, precision):
    """Return the largest relative difference of any loss from float32, after each step."""
    pairs = zip(trained(name, "32-true"), trained(name, precision), strict=True)
    return [
        max(abs(found[term] - exact[term]) / max(abs(exact[term]), FLOOR) for term in exact)
        for exact, found in pairs
    ]


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_follow_those_of_float32(name, precision):
    first, bound = BOUNDS[precision][name]
    found = differences(name, precision)
    assert found[0] < first, found
    assert max(found) < bound, found
    assert max(found) > 0


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_teacher_is_averaged_in_float32_and_resumes_exactly(tmp_path):
    def fitted(**options):
        objective = small_dinov2(recipe=RECIPE, momentum=Schedule(0.9999))
        checkpoints = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        trainer = quiet_trainer(
            precision="bf16-true", max_epochs=2, enable_checkpointing=True, callbacks=[checkpoints]
        )
        start = copy.deepcopy(objective.teacher.module).bfloat16().state_dict()
        trainer.fit(objective, loader(phantoms(objective.views, 3)), **options)
        return objective.state_dict(), start

    whole, start = fitted()
    resumed, _ = fitted(ckpt_path=tmp_path / "epoch=0.ckpt")
    assert list(whole) == list(resumed)
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    assert {v.dtype for n, v in whole.items() if n.startswith("teacher.")} == {torch.float32}
    name = "backbone.vit.blocks.0.mlp.fc1.weight"
    average, before = whole[f"teacher.module.{name}"], start[name].float()
    # The steps are there, where bfloat16 alone would show next to none of them.
    assert (average != before).float().mean() > 0.5
    assert (average.bfloat16() != before).float().mean() < 0.05
    assert {whole[f"{c}_center.center"].dtype for c in ("dino", "ibot")} == {torch.float32}


def test_numbers_of_an_action_keep_their_angles_in_bfloat16():
    token = ActionToken(5, 24)
    action = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = token.features(action.float())
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = token.bfloat16().features(action)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)
