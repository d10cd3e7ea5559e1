import pytest
import torch
from torch.testing import assert_close

from cxrssl.backbones import ViT, pick_tokens
from cxrssl.heads import Predictor
from cxrssl.losses import token_spread
from cxrssl.objectives import WorldModel
from cxrssl.objectives.jepa_weights import load_jepa
from cxrssl.views import WorldViews
from tests.golden import load_golden, subset

TOLERANCE = {"atol": 2e-5, "rtol": 1e-5}


def micro_predictor(dim, actions):
    return Predictor(dim, actions, width=24, depth=2, heads=4)


def micro(**options):
    torch.manual_seed(0)
    backbone = ViT(
        "vit_tiny",
        img_size=64,
        in_chans=3,
        class_token=False,
        position="sincos",
        init="jepa",
        width=32,
        depth=2,
        heads=4,
    )
    # These mean and standard deviation make the released kernels fit without a change.
    views = WorldViews(image_size=64, in_chans=3, min_keep=1)
    return WorldModel(backbone, views=views, predictor=micro_predictor, **options)


def load_exactly(objective, state):
    """Load a released state as it is: the golden images are normalised as it wants them."""
    load_jepa(objective, state, "golden")
    for vit, name in ((objective.backbone, "encoder"), (objective.encoder, "target_encoder")):
        own = vit.vit.patch_embed.proj
        with torch.no_grad():
            own.weight.copy_(state[f"{name}.patch_embed.proj.weight"])
            own.bias.copy_(state[f"{name}.patch_embed.proj.bias"])


@pytest.fixture
def golden():
    return load_golden("chexworld/model_micro.npz")


def batch_of(golden):
    order = golden["out/shuffle"]
    pair = {
        "context": ("image_aug1", "image_aug2"),
        "target": ("image1", "image2"),
        "action": ("aug_params1", "aug_params2"),
        "offset": ("rel_pos_12", "rel_pos_21"),
    }
    batch = {
        name: torch.stack([golden[f"in/{first}"], golden[f"in/{second}"]], 1)
        for name, (first, second) in pair.items()
    }
    for name, key in (("context_index", "masks_enc"), ("target_index", "masks_pred")):
        batch[name] = torch.stack([golden[f"in/{key}"], golden[f"in/{key}"][order]], 1)
    return batch


def total(objective, batch):
    terms = objective.loss_terms(batch, 0.0)
    return sum(objective.weight(name) * term for name, term in terms.items())


def test_golden_forward(golden):
    objective = micro()
    load_exactly(objective, subset(golden, "sd/"))
    batch = batch_of(golden)
    index = batch["target_index"]
    for view in (0, 1):
        h = pick_tokens(objective.targets(batch["target"][:, view]), index[:, view])
        assert_close(h, golden[f"out/h{view + 1}"], **TOLERANCE)
        seen = {
            "action": batch["action"][:, view],
            "context_index": batch["context_index"][:, view],
        }
        own = objective.predict(batch["context"][:, view], target_index=index[:, view], **seen)
        assert_close(own, golden[f"out/z{view + 1}{view + 1}"], **TOLERANCE)
        other = objective.predict(
            batch["context"][:, view],
            target_index=index[:, 1 - view],
            offset=batch["offset"][:, 1 - view],
            **seen,
        )
        assert_close(other, golden[f"out/z{2 - view}{view + 1}"], **TOLERANCE)


def official_name(name):
    """Return the released name of one of our trained parameters."""
    for ours, theirs in (
        ("backbone.vit.", "encoder."),
        ("predictor.embed.", "predictor.predictor_embed."),
        ("predictor.blocks.", "predictor.predictor_blocks."),
        ("predictor.norm.", "predictor.predictor_norm."),
        ("predictor.proj.", "predictor.predictor_proj."),
        ("predictor.policy.mlp.", "predictor.policy_net."),
    ):
        name = name.replace(ours, theirs)
    return name


def test_golden_loss_and_gradients(golden):
    objective = micro().train()
    load_exactly(objective, subset(golden, "sd/"))
    batch = batch_of(golden)
    terms = objective.loss_terms(batch, 0.0)
    assert_close(terms["local"], golden["out/loss_intra"], **TOLERANCE)
    assert_close(terms["global"], golden["out/loss_extra"], **TOLERANCE)
    loss = total(objective, batch)
    assert_close(loss, golden["out/loss"], **TOLERANCE)
    loss.backward()
    expected = subset(golden, "grad/")
    ours = {
        official_name(name): p.grad for name, p in objective.named_parameters() if p.requires_grad
    }
    assert set(ours) == set(expected)
    for name, gradient in ours.items():
        assert_close(gradient, expected[name], **TOLERANCE)
    norm = torch.nn.utils.clip_grad_norm_(objective.clip_groups()["all"], 1e9)
    assert_close(norm, golden["out/grad_norm"], atol=1e-4, rtol=1e-5)
    assert all(p.grad is None for p in objective.teacher.parameters())


@pytest.mark.parametrize(
    ("key", "options", "zero_action"),
    [
        ("loss_smooth_l1", {"distance": "smooth_l1"}, False),
        ("loss_zero_action", {}, True),
        ("loss_no_relpos", {"offset": False}, False),
        ("loss_intra_only", {"weights": {"local": 1.0, "global": 0.0}}, False),
        ("loss_no_extra_mean", {"weights": {"local": 1.0, "global": 1.0}}, False),
        ("loss_target_last2", {"target_blocks": 2}, False),
    ],
)
def test_golden_switches(golden, key, options, zero_action):
    objective = micro(**options)
    load_exactly(objective, subset(golden, "sd/"))
    batch = batch_of(golden)
    if zero_action:
        batch["action"] = torch.zeros_like(batch["action"])
    assert_close(total(objective, batch), golden[f"out/{key}"], **TOLERANCE)


def test_golden_spread_of_predictions(golden):
    spreads = [token_spread(golden[f"out/z{name}"]).mean() for name in ("11", "22", "21", "12")]
    assert_close(torch.stack(spreads).mean(), golden["out/pred_std"], **TOLERANCE)
