import json

import pytest
import torch
from torch import nn

from cxrssl.backbones import ViT
from cxrssl.errors import InputError
from cxrssl.heads import Predictor
from cxrssl.objectives import DINOv2, Recipe
from cxrssl.objectives.recipe import build_optimizer, parameter_groups, set_rates
from cxrssl.schedules import Schedule
from tests.golden import SHARED, load_golden
from tests.objectives.test_dinov2 import official_name, small_head


class Stages:
    """What groups ask of a backbone of two stages, with the names they asked for."""

    depth = 2

    def __init__(self):
        self.asked = []

    def layer_of(self, name):
        self.asked.append(name)
        return {"stem": 0, "stage0": 1, "stage1": 2}.get(name.split(".")[0], 3)


@pytest.fixture
def objective():
    backbone = ViT("vit_tiny", img_size=32, width=32, depth=2, heads=2, layer_scale=1e-5)
    return DINOv2(backbone, dino_head=small_head, ibot_head=small_head)


def test_golden_groups(objective):
    path = SHARED / "golden" / "dinov2" / "param_groups.json"
    if not path.is_file():
        pytest.skip("golden file param_groups.json is not beside this checkout")
    groups = parameter_groups(
        objective.named_parameters(), objective.backbone, Recipe(layer_decay=0.9)
    )
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
    groups = parameter_groups(objective.named_parameters(), objective.backbone, Recipe())
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


def test_scaling_of_start_and_final_too():
    schedule = Schedule(0.2, final=2e-4, start=0.1, warmup=0.1, warmup_end=False)
    recipe = Recipe(lr=schedule, lr_scaling="linear", reference_batch=256, scale_final=True)
    expected = Schedule(0.4, final=4e-4, start=0.2, warmup=0.1, warmup_end=False)
    assert recipe.scaled_lr(512) == expected
    constant = Recipe(lr=Schedule(0.2), lr_scaling="linear", scale_final=True)
    assert constant.scaled_lr(512) == Schedule(0.1)


def test_golden_rates_of_vicreg():
    # The published base rate is that of a batch of 256; the run has a batch of 2048.
    expected = load_golden("vicreg/lr_schedule.npz")["lr"].tolist()
    schedule = Schedule(0.2, final=2e-4, warmup=0.1, warmup_end=False)
    recipe = Recipe(lr=schedule, lr_scaling="linear", reference_batch=256, scale_final=True)
    lr = recipe.scaled_lr(2048)
    assert [lr(step / 1000, 1000) for step in range(1000)] == pytest.approx(expected, rel=1e-12)


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
    return dict(module.named_parameters()), backbone


def test_decay_of_encoder_and_predictor_without_layer_decay():
    recipe = Recipe(layer_decay=1.0, patch_embed_lr=1.0)
    named, backbone = jepa_parameters()
    groups = parameter_groups(named.items(), backbone, recipe)
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
    named, backbone = jepa_parameters()
    groups = parameter_groups(named.items(), backbone, Recipe(layer_decay=0.5))
    by_id = {id(p): group for group in groups for p in group["params"]}
    own, predictors = (by_id[id(named[n])] for n in ("mask_token", "predictor.mask_token"))
    assert (own["backbone"], own["lr_factor"]) == (True, 0.125)  # layer 0 of 3
    assert (predictors["backbone"], predictors["lr_factor"]) == (False, 1.0)


def group_of(names, recipe, shape=(2, 2)):
    """Return the group of every name, for parameters of one shape, and the names asked for."""
    named = {name: nn.Parameter(torch.zeros(shape)) for name in names}
    stages = Stages()
    groups = parameter_groups(named.items(), stages, recipe)
    by_id = {id(p): group for group in groups for p in group["params"]}
    return {name: by_id[id(p)] for name, p in named.items()}, stages.asked


def test_the_backbone_is_asked_by_its_own_names():
    names = [
        "backbone.stem.conv.weight",
        "backbone.stage1.0.weight",
        "objectives.mlvicx.backbone.stage0.weight",
        "backbone.gate.weight",
        "head.stage0.weight",
        "backbone_head.stage0.weight",
    ]
    groups, asked = group_of(names, Recipe(layer_decay=0.5))
    assert asked == ["stem.conv.weight", "stage1.0.weight", "stage0.weight", "gate.weight"]
    assert [groups[name]["lr_factor"] for name in names] == [0.125, 0.5, 0.25, 1.0, 1.0, 1.0]
    assert [groups[name]["backbone"] for name in names] == [True] * 4 + [False] * 2


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("mask_token", True),
        ("objectives.dino.mask_token", True),
        ("predictor.mask_token", False),
        ("objectives.dino.predictor.mask_token", False),
        ("objectives.mask_token", False),
        ("teacher.dino.mask_token", False),
    ],
)
def test_mask_tokens_of_objectives_belong_to_the_first_layer(name, own):
    groups, asked = group_of([name], Recipe(layer_decay=0.5), shape=(1, 1, 4))
    assert asked == []
    group = groups[name]
    assert (group["backbone"], group["lr_factor"]) == (own, 0.125 if own else 1.0)
    assert group["decay_factor"] == 1.0


@pytest.mark.parametrize(
    ("name", "shape", "decay", "adapted"),
    [
        ("backbone.stage0.weight", (2, 2, 3, 3), 1.0, True),
        ("backbone.cls_token", (1, 1, 4), 1.0, True),
        ("expander.1.weight", (4,), 0.0, False),  # a batch norm, which its name does not tell
        ("backbone.gate.scale", (), 0.0, False),
        ("head.bias", (4,), 0.0, False),
        ("head.bias", (1, 4), 0.0, True),
        ("backbone.norm.weight", (4,), 0.0, False),
        ("backbone.ls1.gamma", (4,), 0.0, False),
    ],
)
def test_decay_and_adaptation(name, shape, decay, adapted):
    groups, _ = group_of([name], Recipe(), shape)
    assert (groups[name]["decay_factor"], groups[name]["always_adapt"]) == (decay, adapted)


def test_adamw_is_built_as_the_recipe_says():
    module = nn.ModuleDict({"head": nn.Linear(2, 2)})
    recipe = Recipe(betas=(0.8, 0.95), eps=1e-6)
    for fused in (False, True):
        optimizer = build_optimizer(module.named_parameters(), Stages(), recipe, 0.3, fused)
        assert type(optimizer) is torch.optim.AdamW
        assert len(optimizer.param_groups) == 2
        for group in optimizer.param_groups:
            found = tuple(group[key] for key in ("lr", "betas", "eps", "fused"))
            assert found == (0.3, (0.8, 0.95), 1e-6, fused)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer must be 'adamw' or 'lars', got 'sgd'"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"trust": 0.0}, "trust must be positive and finite, got 0.0"),
        ({"trust": float("nan")}, "trust must be positive and finite, got nan"),
        ({"schedule_unit": "epoch"}, "schedule_unit must be 'step' or 'micro_batch', got 'epoch'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        Recipe(**options)


def rates(recipe, progress, step, steps=100):
    module = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    module["head"].register_parameter("last_layer", nn.Parameter(torch.ones(1)))
    groups = parameter_groups(module.named_parameters(), Stages(), recipe)
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
