import copy

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.amp import GradScaler

from cxrssl.objectives import Recipe
from cxrssl.objectives.lars import LARS
from cxrssl.objectives.recipe import build_optimizer
from cxrssl.schedules import Schedule
from tests.golden import load_golden
from tests.objectives.training import crops, loader, quiet_trainer, small_objective


def optimizer_of(parameters, decay=0.1, **options):
    """Return LARS for matrices that are adapted and decayed, and vectors that are neither."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "always_adapt": False},
    ]
    return LARS(groups, 0.1, **options)


def set_gradients(parameters, gradients):
    for p, gradient in zip(parameters, gradients, strict=True):
        p.grad = gradient.clone()


def some_parameters():
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (5,))]


def some_gradients(step):
    generator = torch.Generator().manual_seed(step + 1)
    return [torch.randn(shape, generator=generator) for shape in ((4, 3), (5,))]


@pytest.mark.parametrize("decay", ["1e-6", "0.1"])
@pytest.mark.parametrize("foreach", [False, True])
def test_golden(decay, foreach):
    # A rate of 0 at first, parameters that are all 0, and a gradient that is all 0 at step 1.
    golden = load_golden("mlvicx/lars.npz")
    parameters = [nn.Parameter(golden[f"init_p{i}"].clone()) for i in range(4)]
    optimizer = optimizer_of(parameters, float(decay))
    for step, lr in enumerate(golden["lrs"].tolist()):
        for group in optimizer.param_groups:
            group["lr"], group["foreach"] = lr, foreach
        set_gradients(parameters, [golden[f"wd{decay}_s{step}_grad{i}"] for i in range(4)])
        optimizer.step()
        for i, p in enumerate(parameters):
            expected = golden[f"wd{decay}_s{step}_p{i}"]
            torch.testing.assert_close(p.data, expected, rtol=1e-9, atol=1e-12)


def test_two_steps_by_hand():
    # |p| = 5 and g + w p = (0.6 + 0.1 * 3, 0.8 + 0.1 * 4) of norm 1.5: the ratio is 0.5 * 5 / 1.5.
    p = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    optimizer = optimizer_of([p], trust=0.5, momentum=0.5)
    set_gradients([p], [torch.tensor([[0.6, 0.8]])])
    optimizer.step()
    torch.testing.assert_close(p.data, torch.tensor([[3 - 0.15, 4 - 0.2]]))
    # With the decay alone the norms cancel: the gradient is 0.5 * p, and half of the last step,
    # (1.5, 2), is added.
    set_gradients([p], [torch.zeros(1, 2)])
    optimizer.step()
    expected = [2.85 - 0.1 * (1.425 + 0.75), 3.8 - 0.1 * (1.9 + 1.0)]
    torch.testing.assert_close(p.data, torch.tensor([expected]))


def test_without_a_norm_the_step_is_that_of_momentum_sgd():
    zero, still = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = optimizer_of([zero, still], decay=0.0)
    set_gradients([zero, still], [torch.ones(2, 2), torch.zeros(2, 2)])
    optimizer.step()
    assert torch.equal(zero.data, torch.full((2, 2), -0.1))
    assert torch.equal(still.data, torch.ones(2, 2))


def test_a_vector_is_not_adapted_and_one_without_gradient_stays():
    matrix, vector = some_parameters()
    before = matrix.detach().clone(), vector.detach().clone()
    optimizer = optimizer_of([matrix, vector])
    vector.grad = torch.ones(5)
    optimizer.step()
    assert torch.equal(matrix.data, before[0])
    assert matrix not in optimizer.state
    torch.testing.assert_close(vector.data, before[1] - 0.1)


def test_a_step_leaves_gradients_and_groups_as_they_are():
    parameters = some_parameters()
    optimizer = optimizer_of(parameters)
    set_gradients(parameters, some_gradients(0))
    before = [p.grad for p in parameters]
    optimizer.step()
    for p, gradient, value in zip(parameters, before, some_gradients(0), strict=True):
        assert p.grad is gradient
        assert torch.equal(gradient, value)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def test_a_closure_computes_the_gradients():
    by_hand, parameters = some_parameters(), some_parameters()
    first, second = optimizer_of(by_hand), optimizer_of(parameters)

    def closure():
        second.zero_grad()
        loss = sum((p**2).sum() for p in parameters)
        loss.backward()
        return loss

    set_gradients(by_hand, [2 * p.detach() for p in by_hand])
    first.step()
    expected = sum((p**2).sum() for p in parameters)
    assert second.step(closure) == expected
    for p, other in zip(parameters, by_hand, strict=True):
        assert torch.equal(p, other)


def test_a_restored_state_goes_on_exactly():
    through, resumed = some_parameters(), some_parameters()
    optimizer = optimizer_of(through)
    for step in range(5):
        if step == 2:
            for p, other in zip(resumed, through, strict=True):
                p.data.copy_(other)
            second = optimizer_of(resumed, decay=0.0)
            second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        set_gradients(through, some_gradients(step))
        optimizer.step()
        if step >= 2:
            set_gradients(resumed, some_gradients(step))
            second.step()
    for p, other in zip(resumed, through, strict=True):
        assert torch.equal(p, other)


def lars_objective():
    recipe = Recipe(
        optimizer="lars", lr=Schedule(0.5, warmup=1.0, warmup_end=False), lr_scaling="none"
    )
    return small_objective(recipe=recipe)


def test_training_starts_at_rate_zero():
    objective = lars_objective()
    before = copy.deepcopy(dict(objective.named_parameters()))
    quiet_trainer(max_steps=1).fit(objective, loader(crops(1)))
    assert isinstance(objective.trainer.optimizers[0], LARS)
    for name, p in objective.named_parameters():
        assert torch.equal(p, before[name]), name
    quiet_trainer(max_steps=4).fit(objective, loader(crops(4)))
    moved = [n for n, p in objective.named_parameters() if not torch.equal(p, before[n])]
    assert any("backbone" in name for name in moved)


def test_steps_of_scaled_gradients_are_those_of_plain_ones():
    plain, scaled = some_parameters(), some_parameters()
    target = some_gradients(0)
    scaler = GradScaler("cpu", init_scale=2.0**10)
    for parameters, scale in ((plain, None), (scaled, scaler)):
        optimizer = optimizer_of(parameters)
        for factor in (1.0, float("inf"), 1.0):
            optimizer.zero_grad()
            loss = sum((p * t).sum() for p, t in zip(parameters, target, strict=True)) * factor
            if scale is None:
                if factor == 1.0:
                    loss.backward()
                    optimizer.step()
            else:
                scale.scale(loss).backward()
                scale.unscale_(optimizer)
                scale.step(optimizer)
                scale.update()
    for p, other in zip(scaled, plain, strict=True):
        torch.testing.assert_close(p, other)


def test_training_with_a_loss_scaler():
    objective = lars_objective()
    before = copy.deepcopy(dict(objective.named_parameters()))
    precision = MixedPrecision("16-mixed", device="cpu", scaler=GradScaler("cpu", init_scale=64.0))
    quiet_trainer(max_steps=4, plugins=[precision]).fit(objective, loader(crops(4)))
    values = dict(objective.named_parameters())
    assert all(torch.isfinite(p).all() for p in values.values())
    assert any(not torch.equal(p, before[name]) for name, p in values.items() if p.requires_grad)


def test_recipe_reaches_the_optimizer():
    module = nn.ModuleDict({"head": nn.Linear(2, 2)})
    recipe = Recipe(optimizer="lars", momentum=0.8, trust=0.01)
    optimizer = build_optimizer(
        module.named_parameters(), small_objective().backbone, recipe, 0.3, fused=True
    )
    found = {
        group["params"][0].ndim: (
            group["lr"],
            group["momentum"],
            group["trust_coeff"],
            group["eps"],
            group["always_adapt"],
        )
        for group in optimizer.param_groups
    }
    assert found == {2: (0.3, 0.8, 0.01, 0.0, True), 1: (0.3, 0.8, 0.01, 0.0, False)}
