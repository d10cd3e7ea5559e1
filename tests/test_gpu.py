"""What only a GPU can show: its kernels, precisions, compiled blocks, sharding and memory."""

import dataclasses
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.testing import assert_close

from cxrssl.backbones import ViT
from cxrssl.callbacks import ProgressBar, RunEstimate
from cxrssl.data import PhantomDataModule
from cxrssl.objectives import DINOv2
from cxrssl.objectives.footprint import measure_footprint
from cxrssl.views import MultiCrop
from tests.objectives.jepa_training import ijepa_batches
from tests.objectives.sharded_training import fit
from tests.objectives.siamese_training import batches, small_dino_head, small_dinov2, small_vit
from tests.objectives.test_precision import OBJECTIVES, RECIPE
from tests.objectives.training import loader, quiet_trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

ACCELERATOR = "gpu"
STEPS = 4
ON_BLOCKS = [name for name in OBJECTIVES if "ConvNet" not in name]


class Losses(Callback):
    """Notes the loss of every step."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, *_):
        self.values.append(float(trainer.callback_metrics["loss"]))


def losses(objective, *, compiled=False, accelerator=None, **options):
    """Train for a few steps and return their losses."""
    if compiled:
        objective.recipe = dataclasses.replace(objective.recipe, compile_blocks=True)
    made = ijepa_batches if type(objective).__name__ == "IJEPA" else None
    given = made(STEPS) if made else batches(objective.views, STEPS)
    notes = Losses()
    accelerator = ACCELERATOR if accelerator is None else accelerator
    trainer = quiet_trainer(
        accelerator=accelerator,
        devices=1,
        callbacks=[notes],
        use_distributed_sampler=False,
        **options,
    )
    trainer.fit(objective, loader(given))
    return torch.tensor(notes.values)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_float32_follows_the_cpu(name):
    make = partial(OBJECTIVES[name], recipe=RECIPE)
    on_gpu, on_cpu = losses(make()), losses(make(), accelerator="cpu")
    assert_close(on_gpu[0], on_cpu[0], atol=1e-4, rtol=1e-3)
    assert_close(on_gpu, on_cpu, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", ON_BLOCKS)
def test_bfloat16_follows_float32(name):
    make = partial(OBJECTIVES[name], recipe=RECIPE)
    half = losses(make(), precision="bf16-mixed")
    assert_close(half, losses(make()), atol=0.02, rtol=0.1)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", ON_BLOCKS)
def test_compiled_blocks_follow_eager_ones(name, precision):
    make = partial(OBJECTIVES[name], recipe=RECIPE)
    compiled = losses(make(), compiled=True, precision=precision)
    tolerance = 1e-3 if precision == "32-true" else 0.1
    assert_close(compiled, losses(make(), precision=precision), atol=0.02, rtol=tolerance)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_sharded_run_follows_an_ordinary_one(checkpointed, compiled):
    def make():
        return small_dinov2(small_vit(activation_checkpointing=checkpointed, drop_path=0.3))

    sharded = losses(make(), compiled=compiled, strategy="fully_sharded")
    assert_close(sharded, losses(make()), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("drop_path", [0.0, 0.4])
def test_packed_and_separate_crops_are_the_same(drop_path):
    packed, separate = (
        losses(small_dinov2(small_vit(packed=packed, drop_path=drop_path)))
        for packed in (True, False)
    )
    assert_close(packed, separate, atol=1e-3, rtol=1e-3)


def test_a_resumed_run_goes_on_as_the_whole_one(tmp_path):
    options = {"accelerator": ACCELERATOR, "devices": 1}
    given = batches(small_dinov2().views, STEPS)
    whole = fit(small_dinov2(), given, tmp_path / "one.ckpt", **options)
    resumed = fit(small_dinov2(), given, ckpt_path=tmp_path / "one.ckpt", **options)
    assert len(resumed["losses"]) == STEPS - 1
    # As exact as the GPU's kernels: some add up in no fixed order.
    assert_close(resumed["losses"], whole["losses"][1:], atol=1e-2, rtol=1e-2)


def vit_small(**options):
    torch.manual_seed(0)
    backbone = ViT("vit_small", img_size=224, patch_size=16, **options)
    return DINOv2(backbone, dino_head=small_dino_head, views=MultiCrop(n_local=2))


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_estimate_of_memory_is_near_what_is_taken(checkpointed):
    objective = vit_small(activation_checkpointing=checkpointed).to("cuda").train()
    expected = measure_footprint(objective, 16)
    [batch] = batches(objective.views, 1, batch_size=16)
    batch = {name: value.to("cuda") for name, value in batch.items()}
    sum(objective.loss_terms(batch, 0.5).values()).backward()  # kernels take their workspaces
    objective.zero_grad()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    sum(objective.loss_terms(batch, 0.5).values()).backward()
    taken = torch.cuda.max_memory_allocated() - before
    assert 0.7 * taken < expected.peak < 1.3 * taken


def test_the_use_of_the_peak_is_between_nothing_and_all(monkeypatch):
    monkeypatch.setattr("cxrssl.callbacks.progress.peak_flops", lambda *_: 1e15)
    objective = vit_small()
    bar = ProgressBar()
    data = PhantomDataModule(64, 224, batch_size=8, num_workers=2, views=objective.views, seed=0)
    trainer = quiet_trainer(
        accelerator=ACCELERATOR,
        devices=1,
        precision="bf16-mixed",
        enable_progress_bar=True,
        callbacks=[bar, RunEstimate()],
        limit_val_batches=0,
        max_steps=6,
        max_epochs=-1,
    )
    trainer.fit(objective, datamodule=data)
    assert bar.mfu is not None
    assert 0 < bar.mfu < 1
