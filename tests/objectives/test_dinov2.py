import pytest
from torch.testing import assert_close

from cxrssl.backbones import ViT, load_backbone_weights
from cxrssl.heads import DINOHead
from cxrssl.objectives import DINOv2
from cxrssl.schedules import Schedule
from cxrssl.views import MultiCrop
from tests.backbones.official import save_official
from tests.golden import load_golden, subset


def small_head(dim):
    return DINOHead(dim, prototypes=48, hidden=40, bottleneck=16)


def make(**options):
    backbone = ViT(
        "vit_tiny",
        img_size=56,
        patch_size=14,
        in_chans=3,
        width=32,
        depth=2,
        heads=2,
        layer_scale=1e-5,
    )
    views = MultiCrop(global_size=56, local_size=28, n_local=3, patch_size=14, in_chans=3)
    return DINOv2(backbone, views=views, **({"dino_head": small_head} | options))


def load_part(backbone, head, weights, tmp_path):
    state = subset(weights, "backbone.")
    load_backbone_weights(backbone, save_official(state, tmp_path / "part.pth"))
    head.load_state_dict(subset(weights, "dino_head."))
    return state["mask_token"]


@pytest.fixture
def golden_step(tmp_path):
    golden = load_golden("dinov2/meta_step_softmax_shared.npz")
    data = load_golden("dinov2/meta_step_data.npz")
    objective = make(teacher_temperature=Schedule(0.06), momentum=Schedule(0.9))
    token = load_part(objective.backbone, objective.dino_head, subset(golden, "student/"), tmp_path)
    objective.mask_token.data.copy_(token)
    teacher = objective.teacher.module
    load_part(teacher["backbone"], teacher["dino_head"], subset(golden, "teacher/"), tmp_path)
    batch = {
        "global_crops": data["data/collated_global_crops"].unflatten(0, (2, 4)).transpose(0, 1),
        "local_crops": data["data/collated_local_crops"].unflatten(0, (3, 4)).transpose(0, 1),
        "masks": data["data/collated_masks"].unflatten(0, (2, 4)).transpose(0, 1),
    }
    return objective.train(), golden, batch


def official_name(name):
    """Return the official name of one of our student's parameters."""
    return name.replace("backbone.vit.", "backbone.").replace("mask_token", "backbone.mask_token")


def test_golden_whole_step(golden_step):
    objective, golden, batch = golden_step
    for step in ("step0", "step1"):
        objective.zero_grad()
        terms = objective.loss_terms(batch, progress=0.0)
        total = sum(objective.weight(name) * term for name, term in terms.items())
        total.backward()
        expected = subset(golden, f"{step}/")
        assert_close(terms["dino_local"], expected["dino_local_crops_loss"], atol=1e-5, rtol=1e-5)
        assert_close(terms["dino_global"], expected["dino_global_crops_loss"], atol=1e-5, rtol=1e-5)
        assert_close(terms["koleo"] * 0.1 / 2, expected["koleo_loss"], atol=1e-5, rtol=1e-5)
        assert_close(terms["ibot"] / 2, expected["ibot_loss"], atol=1e-5, rtol=1e-5)
        assert_close(total, expected["total_backprop_loss"], atol=1e-5, rtol=1e-5)
        if step == "step0":
            check_gradients(objective, expected)
        objective.dino_center.update()
        objective.ibot_center.update()
    objective.update_teacher(0.0)
    student, teacher = subset(golden, "student/"), subset(golden, "teacher/")
    state = {f"teacher.{k}": v for k, v in objective.teacher.module.state_dict().items()}
    for name, value in subset(golden, "teacher_after_ema_m0.9/").items():
        ours = state["teacher." + name.replace("backbone.", "backbone.vit.")]
        assert_close(ours, value, atol=1e-6, rtol=1e-5)
        assert_close(ours, 0.9 * teacher[name] + 0.1 * student[name], atol=1e-6, rtol=1e-5)


def check_gradients(objective, expected):
    norms, full = subset(expected, "gradnorm/"), subset(expected, "grad/")
    ours = {official_name(n): p.grad for n, p in objective.named_parameters() if p.grad is not None}
    assert set(ours) == set(norms)
    for name, grad in ours.items():
        assert_close(grad.norm(), norms[name], atol=1e-5, rtol=1e-4)
    for name, grad in full.items():
        assert_close(ours[name], grad, atol=1e-5, rtol=1e-4)
