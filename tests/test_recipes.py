"""The published recipes say what the objectives' published defaults are."""

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cxrssl.backbones import ViT
from cxrssl.heads import Predictor
from cxrssl.objectives import IJEPA, MLVICX, Recipe, WorldModel
from cxrssl.schedules import Schedule
from cxrssl.views import Distortion, MaskedView, WorldViews
from tests.golden import load_golden

RECIPES = Path(__file__).resolve().parents[1] / "examples" / "recipes"


def read(name):
    """Return what a recipe gives to model, data and trainer."""
    content = tuples(yaml.safe_load((RECIPES / f"{name}.yaml").read_text()))
    return content["model"]["init_args"], content["data"]["init_args"], content["trainer"]


def tuples(value):
    """Return plain data with tuples for lists, as the parser makes them."""
    if isinstance(value, dict):
        return {key: tuples(each) for key, each in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def schedules(values):
    """Return a mapping with every mapping that is a schedule as one."""
    return {
        key: Schedule(**value) if isinstance(value, dict) and "value" in value else value
        for key, value in values.items()
    }


@pytest.mark.parametrize(
    ("name", "objective", "images"),
    [("chexworld_vitb16_224", WorldModel, 8 * 128), ("ijepa_vith14_224", IJEPA, 16 * 128)],
)
def test_optimisation_is_the_published_default(name, objective, images):
    model, data, trainer = read(name)
    small = ViT("vit_tiny", img_size=224, width=32, depth=1, heads=1, class_token=False)
    default = objective(small)
    assert Recipe(**schedules(model["recipe"])) == default.recipe
    assert schedules(model)["momentum"] == default.teacher.momentum
    for option in ("distance", "target_blocks", "domain", "elsewhere"):
        if option in model:
            assert model[option] == getattr(default, option)
    processes = images // data["batch_size"]
    accumulated = trainer.get("accumulate_grad_batches", 1)
    assert processes * data["batch_size"] * accumulated == default.recipe.reference_batch == 2048
    assert trainer["max_epochs"] == 300


@pytest.mark.parametrize(("objective", "prefix"), [(WorldModel, "cw"), (IJEPA, "ijepa")])
def test_golden_schedules_are_those_of_the_defaults(objective, prefix):
    golden = load_golden("chexworld/schedules.npz")
    default = objective(ViT("vit_tiny", width=32, depth=1, heads=1, class_token=False))
    for name, schedule in (
        ("lr", default.recipe.lr),
        ("wd", default.recipe.weight_decay),
        ("mom", default.teacher.momentum),
    ):
        expected = golden[f"{prefix}_{name}"].tolist()
        steps = len(expected)
        found = [schedule(step / steps, steps) for step in range(steps)]
        assert found == pytest.approx(expected, rel=1e-9)


def test_views_and_predictor_of_chexworld_are_the_published_defaults():
    model, _, _ = read("chexworld_vitb16_224")
    views = model["views"]["init_args"]
    given = dict(views, distortion=Distortion(**views["distortion"]))
    for name in ("image_size", "patch_size", "in_chans", "mean", "std"):
        del given[name]
    default = WorldViews()
    assert given.pop("n_targets") == default.masking.n_targets
    assert given.pop("min_keep") == default.masking.min_keep
    assert given.pop("context_scale") == default.masking._context_law.scale
    assert given.pop("target_scale") == default.masking._target_law.scale
    assert given.pop("target_ratio") == default.masking._target_law.ratio
    for name, value in given.items():
        assert value == getattr(default, name), name
    assert model["predictor"]["init_args"].pop("conditioning") == "concat"
    predictor = Predictor(32, 5, **model["predictor"]["init_args"])
    assert predictor.width == 384
    assert (len(predictor.blocks), predictor.blocks[0].attn.num_heads) == (6, 12)


def test_views_and_predictor_of_ijepa_are_the_published_defaults():
    model, _, _ = read("ijepa_vith14_224")
    views = dict(model["views"]["init_args"])
    masking, default = (
        MaskedView(**views).masking,
        MaskedView(image_size=224, patch_size=14).masking,
    )
    assert vars(masking) == vars(default)
    with_default = IJEPA(ViT("vit_tiny", width=32, depth=1, heads=1, class_token=False)).predictor
    given = Predictor(32, 0, **model["predictor"]["init_args"])
    for ours, theirs in zip(given.parameters(), with_default.parameters(), strict=True):
        assert ours.shape == theirs.shape
    assert given.blocks[0].attn.num_heads == with_default.blocks[0].attn.num_heads == 16


def test_mlvicx_is_optimised_as_published():
    model, data, trainer = read("mlvicx_resnet18_224")
    default = inspect.signature(MLVICX).parameters["recipe"].default
    recipe = Recipe(**schedules(model["recipe"]))
    assert recipe == default
    golden = load_golden("mlvicx/lr_schedule.npz")
    steps = len(golden["vicreg"])
    rate = replace(recipe.scaled_lr(int(golden["batch"])), warmup=10 / 300)
    assert data["batch_size"] == recipe.reference_batch == 256
    assert trainer["max_epochs"] == int(golden["epochs"]) == 300
    assert recipe.lr.warmup * 300 == int(golden["warmup_mlvicx"]) == 2
    rates = [rate(step / steps, steps) for step in range(steps)]
    assert rates == pytest.approx(golden["vicreg"].tolist(), rel=1e-9)
