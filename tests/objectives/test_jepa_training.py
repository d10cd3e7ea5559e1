"""A step of the world model against a reference that does one thing at a time."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from cxrssl.heads import Predictor
from cxrssl.objectives import Recipe
from cxrssl.schedules import Schedule
from tests.objectives.jepa_training import (
    GRID,
    ijepa_batches,
    small_ijepa,
    small_world,
    world_batches,
)
from tests.objectives.training import loader, quiet_trainer

LR, MOMENTUM, CLIP, DECAY = 1e-2, 0.9, 0.05, 0.05


def place_code(patch, offset, width):
    """Return the published code of a target patch, written out number by number."""
    row, column = divmod(patch, GRID)
    down, right, mirrored, meeting = offset
    row = row + down * GRID
    column = -column - 1 + GRID * meeting if mirrored else column + right * GRID
    quarter = width // 4
    code = []
    for place in (row, column):
        angles = [place * 10000 ** (-k / quarter) for k in range(quarter)]
        code += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return code


def slow_prediction(model, image, action, keep, wanted, offset):
    """Return the prediction (Kt, D) for one image, all inputs without a batch dimension."""
    predictor, width = model.predictor, model.predictor.width
    tokens = model.backbone(image[None], keep=keep[None]).patches
    # The context's table has the column first: the published code with the axes exchanged.
    table = []
    for patch in keep.tolist():
        code = place_code(patch, (0.0, 0.0, 0.0, 0.0), width)
        table.append(code[width // 2 :] + code[: width // 2])
    context = predictor.embed(tokens) + torch.tensor([table])
    codes = torch.tensor([[place_code(patch, offset, width) for patch in wanted.tolist()]])
    target = predictor.mask_token + codes
    repeated = action.expand(1, len(wanted), -1)
    target = torch.cat([target, repeated], -1)
    for layer in predictor.policy.mlp:
        target = layer(target)
    x = torch.cat([context, target], 1)
    for block in predictor.blocks:
        x = block(x)
    return predictor.proj(predictor.norm(x))[0, -len(wanted) :]


def slow_loss(model, batch):
    """Return the mean over images of the mean of the four predictions' errors."""
    losses = []
    for b in range(len(batch["context"])):
        with torch.no_grad():
            tokens = [model.teacher(image[None]).patches[0] for image in batch["target"][b]]
            targets = [F.layer_norm(x, x.shape[-1:]) for x in tokens]
        for source in (0, 1):
            for view in (0, 1):
                wanted = batch["target_index"][b, view]
                own = source == view
                z = slow_prediction(
                    model,
                    batch["context"][b, source],
                    batch["action"][b, source],
                    batch["context_index"][b, source],
                    wanted,
                    (0.0, 0.0, 0.0, 0.0) if own else batch["offset"][b, view].tolist(),
                )
                losses.append((z - targets[view][wanted]).pow(2).mean())
    return torch.stack(losses).mean()


def slow_training(model, batches, lrs):
    """Train with two micro-batches a step: accumulate, clip by the whole norm, AdamW, average."""
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    plain = [p for n, p in trained.items() if p.ndim == 1 or n.endswith(".bias")]
    rest = [p for n, p in trained.items() if not (p.ndim == 1 or n.endswith(".bias"))]
    optimizer = torch.optim.AdamW(
        [{"params": plain, "weight_decay": 0.0}, {"params": rest, "weight_decay": DECAY}], lr=LR
    )
    for step, lr in enumerate(lrs):
        optimizer.zero_grad()
        for batch in batches[2 * step : 2 * step + 2]:
            (slow_loss(model, batch) / 2).backward()
        norm = torch.sqrt(sum(p.grad.pow(2).sum() for p in trained.values()))
        assert norm > CLIP
        for p in trained.values():
            p.grad.mul_(CLIP / (norm + 1e-6))
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        with torch.no_grad():
            for mine, other in zip(
                model.teacher.parameters(), model.backbone.parameters(), strict=True
            ):
                mine.mul_(MOMENTUM).add_(other, alpha=1 - MOMENTUM)


def test_accumulated_steps_equal_a_slow_reference():
    steps, stretch, warmup = 4, 1.25, 0.25
    recipe = Recipe(
        lr=Schedule(LR, final=1e-6, warmup=warmup, stretch=stretch),
        lr_scaling="none",
        weight_decay=Schedule(DECAY),
        layer_decay=1.0,
        patch_embed_lr=1.0,
        clip=CLIP,
        freeze_last_layer=0.0,
        schedule_unit="micro_batch",
    )
    model = small_world(recipe=recipe, momentum=Schedule(MOMENTUM))
    reference = copy.deepcopy(model)
    batches = world_batches(2 * steps)
    quiet_trainer(accumulate_grad_batches=2).fit(model, loader(batches))

    # A table of micro-batches, of which each step reads the entry of its second one.
    n = 2 * steps
    warm = round(warmup * n)
    length = int(stretch * n)
    table = [LR * k / (warm - 1) for k in range(warm)]
    table += [
        1e-6 + 0.5 * (LR - 1e-6) * (1 + math.cos(math.pi * k / (length - warm)))
        for k in range(length - warm)
    ]
    slow_training(reference, batches, table[1:n:2])
    for (name, ours), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert_close(ours, theirs, atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("make", "batches"), [(small_world, world_batches), (small_ijepa, ijepa_batches)]
)
def test_training_lowers_the_loss_and_moves_the_target_encoder_alone_by_the_average(make, batches):
    recipe = Recipe(
        lr=Schedule(1e-2), lr_scaling="none", layer_decay=1.0, clip=None, freeze_last_layer=0.0
    )
    model = make(recipe=recipe, momentum=Schedule(0.999))
    start = copy.deepcopy(model.teacher)
    [batch] = batches(1)
    before = sum(model.loss_terms(batch, 0.0).values()).item()
    quiet_trainer().fit(model, loader([batch] * 30))
    after = sum(model.loss_terms(batch, 1.0).values()).item()
    assert after < 0.8 * before
    moved = [
        (mine - old).abs().max()
        for mine, old in zip(model.teacher.parameters(), start.parameters(), strict=True)
    ]
    assert 0 < max(moved) < 0.05
    assert all(p.grad is None for p in model.teacher.parameters())


def test_momentum_one_leaves_the_target_encoder():
    model = small_world(momentum=Schedule(1.0))
    start = copy.deepcopy(model.teacher.state_dict())
    quiet_trainer().fit(model, loader(world_batches(2)))
    for name, value in model.teacher.state_dict().items():
        assert torch.equal(value, start[name]), name


@pytest.mark.parametrize(
    ("make", "batches"), [(small_world, world_batches), (small_ijepa, ijepa_batches)]
)
def test_mixed_precision_gives_nearly_the_same_losses(make, batches):
    found = {}
    for precision in ("32-true", "bf16-mixed"):
        trainer = quiet_trainer(precision=precision)
        trainer.fit(make(), loader(batches(4)))
        found[precision] = trainer.callback_metrics["loss"]
        assert found[precision].dtype == torch.float32
    assert_close(found["bf16-mixed"], found["32-true"], atol=0.02, rtol=0.02)
    assert found["bf16-mixed"] != found["32-true"]


@pytest.mark.parametrize("conditioning", ["concat", "residual", "token"])
def test_trained_weights_can_be_tested_in_half_precision(conditioning):
    def predictor(dim, actions):
        return Predictor(dim, actions, width=24, depth=2, heads=2, conditioning=conditioning)

    found = {}
    for precision in ("32-true", "bf16-true"):
        trainer = quiet_trainer(precision=precision)
        [scores] = trainer.test(
            small_world(predictor=predictor), loader(world_batches(1)), verbose=False
        )
        found[precision] = scores["test/loss"]
    assert found["bf16-true"] == pytest.approx(found["32-true"], rel=0.05)
