import re
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from cxrssl.backbones import ViT
from cxrssl.callbacks import ProgressBar, RunEstimate, estimate
from cxrssl.callbacks.estimate import advice, optimizer_bytes, weight_bytes
from cxrssl.data import PhantomDataModule
from cxrssl.objectives import DINOv2, FullySharded, Recipe, Teacher
from cxrssl.objectives.footprint import Footprint
from cxrssl.objectives.lars import LARS
from cxrssl.views import MultiCrop
from tests.callbacks.tiny import MemoryLogger, TinyData, TinyObjective, train
from tests.objectives.training import quiet_trainer, small_head

FOOTPRINT = Footprint(64, 1000, 1000, 5_000_000, 8_000_000, 3_000_000, 64 * 10**9)


def objective(**options):
    torch.manual_seed(0)
    backbone = ViT("vit_tiny", img_size=32, width=32, depth=2, heads=2, drop_path=0.3)
    views = MultiCrop(global_size=32, local_size=16, n_local=2)
    return DINOv2(backbone, views=views, dino_head=small_head, **options)


def fit(callbacks, module=None, **options):
    """Train for three steps and return the trainer, its losses and its module."""
    module = objective() if module is None else module
    data = PhantomDataModule(40, 64, batch_size=8, num_workers=0, views=module.views, seed=0)
    logger = MemoryLogger()
    settings = {"max_steps": 3, "limit_val_batches": 0, "logger": logger, "callbacks": callbacks}
    trainer = quiet_trainer(**(settings | options))
    trainer.fit(module, datamodule=data)
    losses = [(step, value) for step, name, value in logger.points if name == "loss"]
    return trainer, losses, module


@pytest.fixture
def said(monkeypatch):
    """What is told and warned of."""
    lines = []
    monkeypatch.setattr(estimate, "rank_zero_info", lambda text: lines.extend(text.split("\n")))
    monkeypatch.setattr(estimate, "rank_zero_warn", lines.append)
    return lines


def test_a_run_is_the_same_with_and_without_it(said):
    callback = RunEstimate()
    options = {"centering": "softmax", "weights": {"sigreg": 0.1}}
    _, losses, with_it = fit([callback], objective(**options))
    _, expected, without = fit([], objective(**options))
    assert len(losses) == 3
    assert losses == expected
    for name, value in without.state_dict().items():
        assert torch.equal(value, with_it.state_dict()[name]), name
    assert callback.flops_per_image > 0


def test_what_it_says(said):
    fit([RunEstimate()], accumulate_grad_batches=2)
    text = "\n".join(said)
    weights = (
        r"  weights: 1\d\d.\d kB trained, 0.4 kB frozen, 1\d\d.\d kB of a teacher; gradients: "
    )
    assert said[0] == "Estimate for each device:"
    assert re.match(weights + r"1\d\d.\d kB; AdamW: 2\d\d.\d kB$", said[1])
    assert "8 images at once:" in text
    assert "logits over prototypes: up to " in text
    assert "that are free" not in text
    # Two micro-batches of 8 images, each with two crops of 4 patches and two of one.
    assert "a step: 16 images, 160 patches; 0.0" in text
    assert "over" not in said[-1]
    assert len(said) == 5


class Sizes(Callback):
    """Takes down the optimiser's state after the last step."""

    def on_train_end(self, trainer, pl_module):
        (optimizer,) = trainer.optimizers
        tensors = [t for state in optimizer.state.values() for t in state.values()]
        self.found = sum(t.nbytes for t in tensors if isinstance(t, torch.Tensor))
        self.told = optimizer_bytes(optimizer)


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(optimizer="lars")])
def test_optimizer_bytes_are_those_after_a_step(recipe):
    sizes = Sizes()
    fit([sizes], objective(recipe=recipe))
    assert sizes.found == sizes.told > 0


def test_optimizers_without_momentum_and_unknown_ones():
    weights = [torch.nn.Parameter(torch.zeros(10))]
    assert optimizer_bytes(torch.optim.SGD(weights)) == 0
    assert optimizer_bytes(torch.optim.SGD(weights, momentum=0.9)) == 40
    assert optimizer_bytes(LARS([{"params": weights}], 1.0)) == 40
    assert optimizer_bytes(torch.optim.Adam(weights, amsgrad=True)) == 124
    assert optimizer_bytes(torch.optim.Adagrad(weights)) is None


def test_weights_are_trained_frozen_or_of_a_teacher():
    module = torch.nn.Module()
    module.student = torch.nn.Linear(3, 4)  # 16 numbers
    module.again = module.student
    module.frozen = torch.nn.BatchNorm1d(5).requires_grad_(False)  # 20 numbers and an int64
    module.teacher = Teacher(module.student, 0.9)
    found = weight_bytes(module)
    assert (found.trained, found.frozen, found.teacher) == (64, 88, 64)
    assert weight_bytes(module, shards=2).trained == 32


def test_sharded_weights_are_those_of_one_device():
    trainer = SimpleNamespace(strategy=FullySharded(), world_size=8)
    assert estimate._shards(trainer) == 8
    trainer.strategy = SimpleNamespace()
    assert estimate._shards(trainer) == 1


@pytest.mark.parametrize(
    ("strategy", "accumulated", "expected"),
    [
        (FullySharded(), 1, 100),
        (FullySharded(), 2, 800),
        (FullySharded(reduce_each=True), 2, 100),
        (SimpleNamespace(), 2, 100),
    ],
)
def test_accumulated_gradients_are_whole_unless_each_is_reduced(strategy, accumulated, expected):
    trainer = SimpleNamespace(strategy=strategy, world_size=8, accumulate_grad_batches=accumulated)
    assert estimate._gradient_bytes(trainer, 100) == expected


def test_what_does_not_fit_is_warned_of_with_what_helps(said, monkeypatch):
    monkeypatch.setattr(estimate, "_free_bytes", lambda device: 600_000)
    fit([RunEstimate()])
    assert "of 600.0 kB that are free" in said[3]
    assert said[-1].startswith("A step is estimated to take")
    assert "activation_checkpointing true" in said[-1]
    assert "model.views.n_local 2" in said[-1]


def advised(room, **options):
    settings = {"precision": "32-true", "accumulate_grad_batches": 3}
    trainer = SimpleNamespace(**(settings | options))
    module = SimpleNamespace(backbone=SimpleNamespace(), views=SimpleNamespace())
    return advice(trainer, module, FOOTPRINT, room)


def test_advice():
    first, second, third, last = advised(4_500_000)
    assert first.startswith("trainer.precision bf16-mixed")
    assert second.startswith("data.batch_size 32 with trainer.accumulate_grad_batches 6")
    assert advised(3_000_000)[1].startswith("data.batch_size 16 with")  # a third is no whole number
    assert third == "fewer prototypes in the heads"
    assert last == "a smaller backbone"
    assert advised(-1, precision="bf16-mixed") == [third, last]
    assert advised(1000, precision="bf16-mixed") == [third, last]  # not even one image


def test_advice_to_recompute_names_every_part_that_does_not():
    trainer = SimpleNamespace(precision="bf16-mixed", accumulate_grad_batches=1)
    parts = {
        name: SimpleNamespace(activation_checkpointing=False) for name in ("backbone", "predictor")
    }
    module = SimpleNamespace(**parts, views=SimpleNamespace())
    said = [line for line in advice(trainer, module, FOOTPRINT, -1) if "recomputes" in line]
    assert [line.split()[0] for line in said] == [
        "model.backbone.activation_checkpointing",
        "model.predictor.activation_checkpointing",
    ]
    parts["backbone"].activation_checkpointing = True
    said = [line for line in advice(trainer, module, FOOTPRINT, -1) if "recomputes" in line]
    assert [line.split()[0] for line in said] == ["model.predictor.activation_checkpointing"]


def test_an_objective_that_cannot_be_estimated_still_trains(said):
    class Peeking(DINOv2):
        def loss_terms(self, batch, progress):
            terms = super().loss_terms(batch, progress)
            assert float(next(iter(terms.values()))) > 0  # fake tensors have no value
            return terms

    torch.manual_seed(0)
    backbone = ViT("vit_tiny", img_size=32, width=32, depth=2, heads=2)
    views = MultiCrop(global_size=32, local_size=16, n_local=2)
    callback = RunEstimate()
    trainer, _, _ = fit([callback], Peeking(backbone, views=views, dino_head=small_head))
    assert trainer.global_step == 3
    assert said[0].startswith("The memory of a step could not be estimated")
    assert len(said) == 3
    assert callback.flops_per_image == 0


def test_a_module_that_is_no_objective(said, tmp_path):
    train(TinyObjective(), TinyData(), [RunEstimate()], tmp_path)
    assert len(said) == 2
    assert "SGD: 0" in said[1]


class OnAGPU(ProgressBar):
    """Believes that the device is an A100."""

    def on_train_start(self, *args):
        super().on_train_start(*args)
        self._peak = 312e12


def test_use_of_the_peak_is_shown_and_logged_where_it_is_known(capsys):
    run = {"enable_progress_bar": True, "max_steps": 4}
    trainer, _, _ = fit([OnAGPU(refresh_rate=1), RunEstimate()], **run)
    mfu = float(trainer.callback_metrics["speed/mfu"])
    assert 0 < mfu < 1
    assert "mfu=" in capsys.readouterr().out
    trainer, _, _ = fit([ProgressBar(refresh_rate=1), RunEstimate()], **run)
    assert "speed/mfu" not in trainer.callback_metrics
    trainer, _, _ = fit([OnAGPU(refresh_rate=1)], **run)
    assert "speed/mfu" not in trainer.callback_metrics


def test_use_of_the_peak_is_that_of_all_devices():
    bar = ProgressBar(refresh_rate=0)
    callback = RunEstimate()
    callback.flops_per_image = 1e12
    bar._trainer = SimpleNamespace(world_size=2, callbacks=[callback])
    bar._peak = 100e12
    bar._batches.append((8, 0.5, 0.5))  # 16 images a second over both
    assert bar.mfu == pytest.approx(16 / 200)
