import json

import pytest
import torch
from torch import nn

from cxrssl.backbones import ViT
from cxrssl.heads import Predictor
from cxrssl.objectives import DINOv2, Recipe
from cxrssl.objectives.recipe import parameter_groups, set_rates
from cxrssl.schedules import Schedule
from tests.golden import SHARED, load_golden
from tests.objectives.test_dinov2 import official_name, small_head


@pytest.fixture
def objective():
    backbone = ViT("vit_tiny", img_size=32, width=32, depth=2, heads=2, layer_scale=1e-5)
    return DINOv2(backbone, dino_head=small_head, ibot_head=small_head)


def test_golden_groups(objective):
    path = SHARED / "golden" / "dinov2" / "param_groups.json"
    if not path.is_file():
        pytest.skip("golden file param_groups.json is not beside this checkout")
    groups = parameter_groups(objective.named_parameters(), 2, Recipe(layer_decay=0.9))
    ours = {}
    by_id = {id(p): official_name(name) for name, p in objective.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            ours[by_id[id(parameter)]] = group
    checked = 0
    for row in json.loads(path.read_text()):
        sub, name = row["sub"], row["name"]
        group = ours.get(f"{sub}.{name}")
        if group is None:
            continue
        assert group["lr_factor"] == pytest.approx(row["lr"])
        assert group["decay_factor"] == row["wd"]
        assert group["last_layer"] == row["last"]
        checked += 1
    assert checked == len(json.loads(path.read_text()))


def test_teacher_is_in_no_group(objective):
    groups = parameter_groups(objective.named_parameters(), 2, Recipe())
    trained = {id(p) for group in groups for p in group["params"]}
    assert not trained & {id(p) for p in objective.teacher.parameters()}
    assert len(trained) == sum(p.requires_grad for p in objective.parameters())


@pytest.mark.parametrize(("rule", "factor"), [("sqrt", 0.5), ("linear", 0.25), ("none", 1.0)])
def test_scaling_of_the_rate(rule, factor):
    recipe = Recipe(lr=Schedule(4e-3, final=1e-6, warmup=0.1), lr_scaling=rule)
    lr = recipe.scaled_lr(256)
    assert lr.value == pytest.approx(4e-3 * factor)
    assert (lr.final, lr.start, lr.warmup) == (1e-6, 0.0, 0.1)


def test_scaling_changes_the_value_alone():
    options = {
        "final": 1e-6,
        "start": 2e-4,
        "warmup": 0.2,
        "freeze": 0.1,
        "stretch": 1.25,
        "shape": "linear",
        "from_one": True,
    }
    recipe = Recipe(lr=Schedule(1e-3, **options), lr_scaling="linear", reference_batch=2048)
    assert recipe.scaled_lr(1024) == Schedule(5e-4, **options)
    constant = Recipe(lr=Schedule(1e-3), lr_scaling="linear", reference_batch=2048).scaled_lr(1024)
    assert constant(0.0) == constant(1.0) == 5e-4


def jepa_parameters():
    backbone = ViT(
        "vit_tiny",
        img_size=64,
        width=32,
        depth=2,
        heads=4,
        class_token=False,
        position="sincos",
    )
    predictor = Predictor(32, 5, width=24, depth=2, heads=4)
    module = nn.ModuleDict({"backbone": backbone, "predictor": predictor})
    module.register_parameter("mask_token", nn.Parameter(torch.zeros(1, 32)))
    return dict(module.named_parameters())


def test_decay_of_encoder_and_predictor_without_layer_decay():
    recipe = Recipe(layer_decay=1.0, patch_embed_lr=1.0)
    named = jepa_parameters()
    groups = parameter_groups(named.items(), 2, recipe)
    factors = {id(p): group["decay_factor"] for group in groups for p in group["params"]}
    assert {group["lr_factor"] for group in groups} == {1.0}
    for name, parameter in named.items():
        if not parameter.requires_grad:
            assert name == "backbone.vit.pos_embed"
            assert id(parameter) not in factors
        else:
            plain = parameter.ndim == 1 or name.endswith(".bias")
            assert factors[id(parameter)] == float(not plain), name
    assert factors[id(named["predictor.mask_token"])] == 1.0


def test_only_the_objectives_own_mask_token_counts_as_backbone():
    named = jepa_parameters()
    groups = parameter_groups(named.items(), 2, Recipe(layer_decay=0.5))
    by_id = {id(p): group for group in groups for p in group["params"]}
    own, predictors = (by_id[id(named[n])] for n in ("mask_token", "predictor.mask_token"))
    assert (own["backbone"], own["lr_factor"]) == (True, 0.125)  # layer 0 of 3
    assert (predictors["backbone"], predictors["lr_factor"]) == (False, 1.0)


def rates(recipe, progress, step, steps=100):
    module = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    module["head"].register_parameter("last_layer", nn.Parameter(torch.ones(1)))
    groups = parameter_groups(module.named_parameters(), 1, recipe)
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    set_rates(optimizer, recipe, recipe.lr, progress, step, steps)
    found = {}
    for group in optimizer.param_groups:
        place = "last" if group["last_layer"] else "backbone" if group["backbone"] else "head"
        found[place] = group["lr"]
    return found


def test_last_layer_and_backbone_wait():
    recipe = Recipe(
        lr=Schedule(0.1), layer_decay=1.0, freeze_last_layer=0.02, freeze_backbone_steps=5
    )
    assert rates(recipe, 0.01, 1) == {"backbone": 0.0, "head": 0.1, "last": 0.0}
    assert rates(recipe, 0.03, 3) == {"backbone": 0.0, "head": 0.1, "last": 0.1}
    assert rates(recipe, 0.05, 5) == {"backbone": 0.1, "head": 0.1, "last": 0.1}


def test_golden_rates_of_a_run():
    golden = load_golden("dinov2/schedules.npz")
    recipe = Recipe(
        lr=Schedule(0.004, final=1e-6, warmup=0.1), layer_decay=1.0, freeze_last_layer=2 / 200
    )
    for step in range(200):
        found = rates(recipe, step / 200, step, steps=200)
        assert found["head"] == pytest.approx(golden["lr"][step].item(), abs=1e-12)
        last = golden["last_layer_lr_freeze2"][step].item()
        assert found["last"] == pytest.approx(last, abs=1e-12)
