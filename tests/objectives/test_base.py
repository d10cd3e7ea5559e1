import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.testing import assert_close

from cxrssl.backbones import ViT, load_encoder
from cxrssl.errors import InputError
from cxrssl.objectives import DINOv2, NonFiniteLossError, Recipe
from cxrssl.schedules import Schedule
from cxrssl.views import MultiCrop
from tests.objectives.training import crops, loader, quiet_trainer, small_head, small_objective


class Counter(Callback):
    """Counts teacher updates and notes the rates each step was taken with."""

    def __init__(self):
        self.updates, self.rates = [], []

    def on_fit_start(self, trainer, pl_module):
        original = pl_module.update_teacher

        def counted(progress):
            self.updates.append(progress)
            original(progress)

        pl_module.update_teacher = counted

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        self.rates.append(max(group["lr"] for group in optimizer.param_groups))


def state(objective):
    return {k: v.clone() for k, v in objective.state_dict().items()}


def test_every_trained_parameter_gets_a_gradient_and_no_other():
    objective = small_objective(ibot_head=small_head)
    terms = objective.loss_terms(crops(1)[0], 0.0)
    assert all(t.ndim == 0 and t.dtype == torch.float32 for t in terms.values())
    sum(terms.values()).backward()
    for name, parameter in objective.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad != name.startswith("teacher."), name


@pytest.mark.parametrize(
    "weights", [{"ibot": 0.0}, {"koleo": 0.0}, {"dino_local": 0.0, "dino_global": 0.0}]
)
@pytest.mark.parametrize("separate", [False, True])
def test_a_term_of_weight_zero_leaves_no_idle_parameter(weights, separate):
    objective = small_objective(weights=weights, ibot_head=small_head if separate else None)
    terms = objective.loss_terms(crops(1)[0], 0.0)
    assert not set(weights) & set(terms)
    sum(terms.values()).backward()
    idle = [n for n, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


def test_without_local_crops():
    batch = crops(1)[0]
    del batch["local_crops"]
    assert set(small_objective().loss_terms(batch, 0.0)) == {"dino_global", "koleo", "ibot"}


def test_per_step_state_moves_once_per_optimiser_step():
    batches = crops(8)
    objective, counter = small_objective(), Counter()
    trainer = quiet_trainer(accumulate_grad_batches=4, callbacks=[counter])
    trainer.fit(objective, loader(batches))
    assert trainer.global_step == 2
    assert counter.updates == [0.0, 0.5]
    assert objective.dino_center.pending_weight.item() == 0


class Gradients(Callback):
    """Keeps the gradients each step is taken with."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        trained = [(n, p) for n, p in pl_module.named_parameters() if p.requires_grad]
        self.steps.append({name: parameter.grad.clone() for name, parameter in trained})


def test_accumulating_equals_the_average_of_the_micro_batches():
    """One step of 4 micro-batches against a loop written out, centre and teacher included."""
    batches, options = crops(4), {"momentum": Schedule(0.5), "drop_path": 0.0}
    trained, by_hand, gradients = (
        small_objective(**options),
        small_objective(**options),
        Gradients(),
    )
    start, by_hand.total_steps = state(by_hand), 1
    trainer = quiet_trainer(accumulate_grad_batches=4, callbacks=[gradients])
    trainer.fit(trained, loader(batches))

    seen = []
    by_hand.train().dino_center.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    for batch in batches:
        terms = by_hand.loss_terms(batch, 0.0)
        (sum(by_hand.weight(n) * t for n, t in terms.items()) / 4).backward()
    assert len(gradients.steps) == 1
    for name, gradient in gradients.steps[0].items():
        expected = by_hand.get_parameter(name).grad
        assert_close(gradient, expected, atol=1e-7, rtol=1e-4)
    assert_close(trained.dino_center.center, 0.1 * torch.cat(seen).mean(0), atol=1e-7, rtol=1e-5)
    for name, value in trained.backbone.state_dict().items():
        teacher = trained.state_dict()[f"teacher.module.backbone.{name}"]
        assert_close(teacher, 0.5 * start[f"backbone.{name}"] + 0.5 * value)


def test_backbone_waits_for_fresh_heads():
    objective = small_objective(recipe=Recipe(freeze_backbone_steps=2, freeze_last_layer=0.0))
    before = state(objective)
    quiet_trainer(max_steps=2).fit(objective, loader(crops(3)))
    after = state(objective)
    for name, value in after.items():
        if "center" in name or name.startswith("teacher."):
            continue
        frozen = name.startswith("backbone.") or name == "mask_token"
        if frozen:
            assert torch.equal(before[name], value), name
    assert not torch.equal(before["dino_head.mlp.0.weight"], after["dino_head.mlp.0.weight"])


def test_non_finite_batches_are_skipped_and_counted():
    batches = crops(5)
    batches[1]["global_crops"][0] = torch.nan
    batches[3]["global_crops"][0] = torch.inf
    objective, counter = small_objective(), Counter()
    trainer = quiet_trainer(callbacks=[counter])
    with pytest.warns(UserWarning, match="was skipped: its loss is not finite") as caught:
        trainer.fit(objective, loader(batches))
    messages = [str(w.message) for w in caught if "was skipped" in str(w.message)]
    assert [message.split("Images: ")[1][:4] for message in messages] == ["4, 5", "12, "]
    assert objective._nonfinite.total == 2
    assert len(counter.updates) == 3
    assert all(torch.isfinite(v).all() for v in objective.state_dict().values())


def test_too_many_non_finite_steps_stop_the_run():
    batches = crops(6)
    for batch in batches[1:]:
        batch["global_crops"][0] = torch.nan
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(NonFiniteLossError, match=r"makes 3 in a row, so the run stops.*Images: 12"),
    ):
        quiet_trainer().fit(small_objective(), loader(batches))


def test_non_finite_gradients_change_nothing():
    objective = small_objective()
    objective.backbone.vit.norm.weight.register_hook(lambda grad: grad * torch.nan)
    before = state(objective)
    with pytest.warns(UserWarning, match="its gradient is not finite"):
        quiet_trainer(max_steps=2).fit(objective, loader(crops(2)))
    for name, value in objective.state_dict().items():
        assert torch.equal(before[name], value), name


def test_terms_are_float32_and_finite_in_mixed_precision():
    objective, seen = small_objective(ibot_head=small_head, centering="sinkhorn"), []
    original = objective.loss_terms

    def noted(batch, progress):
        terms = original(batch, progress)
        seen.append(terms)
        return terms

    objective.loss_terms = noted
    quiet_trainer(precision="bf16-mixed", max_steps=2).fit(objective, loader(crops(2)))
    assert len(seen) == 2
    for terms in seen:
        assert all(t.dtype == torch.float32 and torch.isfinite(t) for t in terms.values())
    assert all(torch.isfinite(v).all() for v in objective.state_dict().values())


def test_weights_in_float16_are_refused():
    with pytest.raises(InputError, match="weights kept in 16-true cannot follow"):
        quiet_trainer(precision="16-true", max_steps=1).fit(small_objective(), loader(crops(1)))


def test_weights_in_bfloat16_are_warned_of():
    trainer = quiet_trainer(precision="bf16-true", max_steps=1)
    with pytest.warns(UserWarning, match="weights kept in bf16-true miss updates"):
        trainer.fit(small_objective(), loader(crops(1)))


def test_unknown_weight_names_the_terms():
    with pytest.raises(InputError, match="no loss term is called koleoo; DINOv2 has dino_local"):
        quiet_trainer().fit(small_objective(weights={"koleoo": 1.0}), loader(crops(1)))


def test_a_run_needs_an_end():
    with pytest.raises(InputError, match=r"set trainer\.max_steps or trainer\.max_epochs"):
        quiet_trainer(max_epochs=-1).fit(small_objective(), loader(crops(1)))


def test_views_and_backbone_agree_on_channels():
    backbone = ViT("vit_tiny", img_size=32, width=32, depth=1, heads=2, in_chans=3)
    with pytest.raises(InputError, match=r"images of 1 channel\(s\) but the backbone takes 3"):
        DINOv2(backbone, views=MultiCrop(global_size=32), dino_head=small_head)


def test_each_sub_module_is_clipped_by_itself():
    objective = small_objective(ibot_head=small_head, recipe=Recipe(clip=1e-3))
    groups = objective.clip_groups()
    assert set(groups) == {"backbone", "dino_head", "ibot_head"}
    assert any(p is objective.mask_token for p in groups["backbone"])
    sum(objective.loss_terms(crops(1)[0], 0.0).values()).backward()
    objective.configure_gradient_clipping(torch.optim.SGD(objective.parameters(), lr=1))
    for parameters in groups.values():
        norm = torch.stack([p.grad.norm() for p in parameters]).norm()
        assert_close(norm, torch.tensor(1e-3), atol=1e-6, rtol=1e-3)


def test_checkpoint_describes_itself_and_gives_back_the_encoder(tmp_path):
    objective = small_objective()
    trainer = quiet_trainer(max_steps=1)
    trainer.fit(objective, loader(crops(1)))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    content = torch.load(tmp_path / "run.ckpt", weights_only=True)
    assert content["cxrssl"]["objective"] == "DINOv2"
    encoder = load_encoder(tmp_path / "run.ckpt")
    for name, value in objective.encoder.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], value), name
    x = torch.randn(2, 1, 32, 32)
    assert_close(objective.embed(x), encoder(x).image)


class StudentIsEncoder(DINOv2):
    """An objective that has a teacher and yet ships its student."""

    @property
    def encoder(self):
        return self.backbone


def test_a_checkpoint_says_which_of_its_networks_is_the_encoder(tmp_path):
    backbone = ViT("vit_tiny", img_size=32, width=32, depth=1, heads=2)
    objective = StudentIsEncoder(backbone, dino_head=small_head)
    assert objective.describe()["encoder"] == "backbone"
    assert small_objective().describe()["encoder"] == "teacher.module.backbone"
    trainer = quiet_trainer(max_steps=1)
    trainer.fit(objective, loader(crops(1)))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    loaded = load_encoder(tmp_path / "run.ckpt").state_dict()
    teacher = objective.teacher.module["backbone"].state_dict()
    for name, value in backbone.state_dict().items():
        assert torch.equal(loaded[name], value), name
    assert any(not torch.equal(loaded[name], value) for name, value in teacher.items())


def test_a_stage_of_higher_resolution_keeps_teacher_heads_and_centres(tmp_path):
    first = small_objective()
    trainer = quiet_trainer()
    trainer.fit(first, loader(crops(3)))
    trainer.save_checkpoint(tmp_path / "low.ckpt")
    second = small_objective(img_size=64, init_from=str(tmp_path / "low.ckpt"))
    quiet_trainer(max_steps=0).fit(second, loader(crops(1, size=64)))
    low, high = state(first), state(second)
    for name, value in high.items():
        if name.endswith("pos_embed"):
            assert value.shape == (1, 17, 32)
        else:
            assert torch.equal(value, low[name]), name
    x = torch.randn(1, 1, 64, 64)
    assert_close(second.embed(x), first.embed(x), atol=1e-5, rtol=1e-4)
    other = small_objective(ibot_head=small_head, init_from=str(tmp_path / "low.ckpt"))
    with pytest.raises(InputError, match=r"low\.ckpt does not fit DINOv2"):
        quiet_trainer(max_steps=1).fit(other, loader(crops(1)))
