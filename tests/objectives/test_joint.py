import pytest
import torch
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.objectives import Recipe
from cxrssl.schedules import Schedule
from cxrssl.views import PairViews
from tests.objectives.siamese_training import (
    batches,
    small_dinov2,
    small_joint,
    small_lejepa,
    small_mlvicx,
    small_vicreg,
    small_vit,
    small_world,
)
from tests.objectives.training import loader, quiet_trainer

MAKERS = {
    "dinov2": small_dinov2,
    "world": small_world,
    "mlvicx": small_mlvicx,
    "vicreg": small_vicreg,
    "lejepa": small_lejepa,
}
STEPS = 3


def numbered(batches):
    return [{**batch, "image_number": torch.arange(4) + 4 * n} for n, batch in enumerate(batches)]


def train(objective, batches, **options):
    trainer = quiet_trainer(**options)
    losses = []
    step = objective.training_step
    objective.training_step = lambda *given: losses.append(step(*given)) or losses[-1]
    trainer.fit(objective, loader(numbered(batches)))
    return torch.stack(losses).detach()


@pytest.mark.parametrize("name", MAKERS)
def test_an_objective_alone_equals_itself_as_the_only_child(name):
    alone = MAKERS[name](small_vit(drop_path=0.2))
    joint = small_joint(children={name: MAKERS[name]}, backbone=small_vit(drop_path=0.2))
    joint.load_state_dict(
        {
            key: alone.state_dict()[key.removeprefix(f"objectives.{name}.")]
            for key in joint.state_dict()
        }
    )
    losses = train(alone, batches(alone.views, STEPS))
    # The views of an only child draw as those of the child alone do.
    assert torch.equal(train(joint, batches(joint.views, STEPS)), losses)
    for key, value in joint.state_dict().items():
        assert torch.equal(value, alone.state_dict()[key.removeprefix(f"objectives.{name}.")]), key


def test_the_loss_is_the_sum_of_the_shares():
    joint = small_joint("dinov2", "mlvicx", shares={"mlvicx": 0.1})
    [batch] = batches(joint.views, 1)
    terms = joint.weighted_terms(batch, 0.0)
    for name, child in joint.children_by_name.items():
        share = 0.1 if name == "mlvicx" else 1.0
        for term, value in child.loss_terms(batch[name], 0.0).items():
            weight, joined = terms[f"{name}/{term}"]
            assert weight == pytest.approx(share * child.weight(term))
            assert_close(joined, value)


def test_children_share_the_backbone_and_nothing_else():
    joint = small_joint("dinov2", "mlvicx", "world")
    children = list(joint.children_by_name.values())
    assert all(child.backbone is joint.backbone for child in children)
    own = [
        {id(p) for n, p in child.named_parameters() if not n.startswith("backbone.")}
        for child in children
    ]
    assert sum(map(len, own)) == len(set().union(*own))
    assert joint.encoder is children[0].encoder
    assert small_joint("dinov2", "mlvicx", encoder="mlvicx").encoder is not children[0].encoder


def test_logs_every_term_and_share_by_name():
    joint = small_joint("dinov2", "mlvicx", shares={"mlvicx": Schedule(0.1, final=0.0)})
    trainer = quiet_trainer()
    trainer.fit(joint, loader(numbered(batches(joint.views, STEPS))))
    logged = set(trainer.callback_metrics)
    assert {"loss", "loss/dinov2/ibot", "loss/mlvicx/local_variance", "share/mlvicx"} <= logged
    assert "grad_norm_dinov2/backbone" in joint.monitored
    assert "mlvicx/global_std" in joint.monitored
    assert joint.prototypes == {"dinov2/": 24}


def test_a_share_of_0_costs_nothing_and_trains_nothing_but_leaves_all_parameters_in_the_loss():
    joint = small_joint("dinov2", "mlvicx", shares={"mlvicx": 0.0})
    [batch] = batches(joint.views, 1)
    result = joint._terms_and_loss(batch, 0.5)
    assert not any(name.startswith("mlvicx") for name in result)
    result["loss"].backward()
    child = joint.children_by_name["mlvicx"]
    assert all((p.grad == 0).all() for p in child.global_head.parameters())


@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
def test_what_an_idle_objective_has_for_itself_stands_still(optimizer):
    share = Schedule(1.0, final=0.0, shape="linear")
    recipe = Recipe(lr=Schedule(0.1), optimizer=optimizer, lr_scaling="none")
    joint = small_joint("dinov2", "mlvicx", shares={"mlvicx": 0.0, "dinov2": share}, recipe=recipe)
    before = {name: value.clone() for name, value in joint.state_dict().items()}
    train(joint, batches(joint.views, STEPS))
    for name, value in joint.state_dict().items():
        if name.startswith(("objectives.mlvicx.global_head", "objectives.mlvicx.local_head")):
            assert torch.equal(value, before[name]), name
    moved = "objectives.dinov2.dino_head.mlp.0.weight"
    assert not torch.equal(before[moved], joint.state_dict()[moved])


def test_a_run_with_a_step_that_trains_nothing_is_refused_at_its_start():
    late = Schedule(1.0, warmup=0.5)
    joint = small_joint("dinov2", "mlvicx", shares={"mlvicx": late, "dinov2": late})
    with pytest.raises(InputError, match="all shares are 0 at step 0 of 3"):
        train(joint, batches(joint.views, STEPS))


def test_held_out_losses_are_logged_while_anything_has_a_share():
    fading = Schedule(1.0, final=0.0, shape="linear")
    joint = small_joint("dinov2", "mlvicx", shares={"dinov2": fading, "mlvicx": fading})
    made = numbered(batches(joint.views, 2))
    trainer = quiet_trainer(max_epochs=2)
    logged = []
    joint.on_validation_epoch_end = lambda: logged.append("val/loss" in trainer.callback_metrics)
    trainer.fit(joint, loader(made), loader(made[:1]))
    assert logged[0]  # halfway; at the very end all shares are 0
    assert torch.isfinite(trainer.callback_metrics["val/loss"])


def test_size_and_deterministic_view_are_those_of_the_encoder():
    small = PairViews(image_size=16)
    children = {
        "mlvicx": lambda backbone: small_mlvicx(backbone, views=small),
        "dinov2": small_dinov2,
    }
    assert small_joint(children=children).views.image_size == 16
    assert small_joint(children=children, encoder="dinov2").views.eval_view().image_size == 32


def test_a_joint_in_a_joint_is_refused():
    def inner(backbone):
        return small_joint("mlvicx", backbone=backbone)

    with pytest.raises(InputError, match="inner is a Joint"):
        small_joint(children={"inner": inner})


def test_every_teacher_moves_once_a_step():
    joint = small_joint("dinov2", "world")
    before = {n: b.clone() for n, b in joint.state_dict().items() if "teacher" in n}
    train(joint, batches(joint.views, STEPS))
    for name, child in joint.children_by_name.items():
        moved = [
            not torch.equal(before[key], value)
            for key, value in joint.state_dict().items()
            if key.startswith(f"objectives.{name}.teacher") and "norm.weight" in key
        ]
        assert any(moved), name
        assert child.total_steps == joint.total_steps == STEPS


def test_one_recipe_optimises_all():
    assert small_joint("mlvicx", "dinov2").recipe == small_mlvicx().recipe
    recipe = Recipe(lr=Schedule(1e-3))
    assert small_joint("mlvicx", "dinov2", recipe=recipe).recipe == recipe


def test_a_parameter_is_clipped_once():
    groups = small_joint("world", "dinov2", "mlvicx").clip_groups()
    clipped = [p for parameters in groups.values() for p in parameters]
    assert len(clipped) == len(set(clipped))
    joint = small_joint("world", "dinov2", "mlvicx")
    trained = [p for p in joint.parameters() if p.requires_grad]
    assert len(clipped) == len(trained)


def test_goes_on_from_a_stage_of_one_objective(tmp_path):
    first = small_dinov2()
    trainer = quiet_trainer()
    trainer.fit(first, loader(numbered(batches(first.views, STEPS))))
    path = tmp_path / "first.ckpt"
    trainer.save_checkpoint(path)

    def continued(backbone):
        return small_dinov2(backbone, init_from=str(path))

    joint = small_joint(children={"world": small_world, "dinov2": continued})
    assert joint.pretrained
    [sentence] = joint.take_over_earlier()
    assert sentence.startswith("dinov2: ")
    for key, value in first.state_dict().items():
        assert torch.equal(value, joint.state_dict()[f"objectives.dinov2.{key}"])
    world = joint.children_by_name["world"]
    assert_close(dict(world.encoder.named_parameters()), dict(first.backbone.named_parameters()))
    with pytest.raises(InputError, match="from one stage only"):
        small_joint(children={"a": continued, "b": continued})


def test_goes_on_from_a_stage_of_its_own_at_another_size(tmp_path):
    joint = small_joint("dinov2", "mlvicx")
    trainer = quiet_trainer()
    trainer.fit(joint, loader(numbered(batches(joint.views, STEPS))))
    path = tmp_path / "joint.ckpt"
    trainer.save_checkpoint(path)
    from cxrssl.backbones import ViT

    larger = ViT("vit_tiny", img_size=64, patch_size=8, width=32, depth=2, heads=2)
    again = small_joint("dinov2", "mlvicx", backbone=larger, init_from=str(path))
    assert "4 position table(s) resampled" in " ".join(again.take_over_earlier())


def test_gates_put_in_line_after_a_teacher_was_copied_are_refused():
    def inline(backbone):
        return small_mlvicx(backbone, gating="inline")

    with pytest.raises(InputError, match="changes the backbone"):
        small_joint(children={"dinov2": small_dinov2, "mlvicx": inline})
    small_joint(children={"mlvicx": inline, "dinov2": small_dinov2})


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"shares": {"mlvix": 1.0}}, "shares names mlvix"),
        ({"shares": {"mlvicx": -1.0}}, "must be finite and not negative"),
        ({"encoder": "dino"}, "encoder must be one of dinov2, mlvicx"),
    ],
)
def test_mistakes_are_named(options, part):
    with pytest.raises(InputError, match=part):
        small_joint("dinov2", "mlvicx", **options)


@pytest.mark.parametrize("name", ["keys", "pop", "a.b"])
def test_names_that_modules_cannot_have_are_refused(name):
    with pytest.raises(InputError):
        small_joint(children={name: small_mlvicx})


def test_an_empty_joint_is_refused():
    with pytest.raises(InputError, match="objectives is empty"):
        small_joint()
