import pytest
import torch
from torch.testing import assert_close

from cxrssl.backbones import ViT, pick_tokens
from cxrssl.errors import InputError
from cxrssl.heads import Predictor
from cxrssl.objectives import IJEPA
from cxrssl.views import MaskedView
from tests.backbones.official import save_ijepa
from tests.golden import load_golden, subset
from tests.objectives.jepa_training import ijepa_batches, small_ijepa
from tests.objectives.test_world_model import TOLERANCE, load_exactly, official_name


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
    views = MaskedView(image_size=64, in_chans=3, min_keep=1)
    return IJEPA(
        backbone,
        views=views,
        predictor=lambda dim, actions: Predictor(dim, actions, width=24, depth=2, heads=4),
        **options,
    )


@pytest.fixture
def golden():
    return load_golden("chexworld/ijepa_micro.npz")


@pytest.mark.parametrize("case", ["n1x4", "n2x3"])
def test_golden_forward_and_loss(golden, case):
    objective = micro()
    load_exactly(objective, subset(golden, "sd/"))
    expected = subset(golden, f"{case}/")
    batch = {
        "image": golden["in/img"],
        "context_index": expected["masks_enc"].transpose(0, 1),
        "target_index": expected["masks_pred"].transpose(0, 1),
    }
    terms = objective.loss_terms(batch, 0.0)
    assert list(terms) == ["prediction"]
    assert_close(terms["prediction"], expected["loss"], **TOLERANCE)
    # The reference stacks target blocks, then contexts, then images.
    n_contexts, n_blocks = len(expected["masks_enc"]), len(expected["masks_pred"])
    wanted = expected["h"].unflatten(0, (n_blocks, n_contexts, -1))
    targets = objective.targets(batch["image"])
    for block in range(n_blocks):
        h = pick_tokens(targets, batch["target_index"][:, block])
        assert_close(h, wanted[block, 0], **TOLERANCE)


def test_golden_gradients(golden):
    objective = micro()
    load_exactly(objective, subset(golden, "sd/"))
    batch = {
        "image": golden["in/img"],
        "context_index": golden["n1x4/masks_enc"].transpose(0, 1),
        "target_index": golden["n1x4/masks_pred"].transpose(0, 1),
    }
    objective.loss_terms(batch, 0.0)["prediction"].backward()
    ours = {
        official_name(name): p.grad for name, p in objective.named_parameters() if p.requires_grad
    }
    expected = subset(golden, "n1x4/grad/")
    assert set(ours) == set(expected)
    for name, gradient in ours.items():
        assert_close(gradient, expected[name], **TOLERANCE)


def test_each_block_is_predicted_alone():
    """The prediction of a block does not depend on which other blocks there are."""
    objective = small_ijepa()
    [batch] = ijepa_batches(1)
    alone = [
        objective.loss_terms(batch | {"target_index": batch["target_index"][:, block, None]}, 0.0)
        for block in range(3)
    ]
    together = objective.loss_terms(batch, 0.0)["prediction"]
    mean = torch.stack([terms["prediction"] for terms in alone]).mean()
    assert_close(together, mean, atol=1e-6, rtol=1e-5)


def test_released_file_with_wrapped_names_is_taken_over(golden, tmp_path):
    path = save_ijepa(tmp_path / "ijepa.pth.tar", subset(golden, "sd/"))
    objective = micro()
    assert "Context encoder, target encoder" in objective.take_over(path)
    state = subset(golden, "sd/")
    ours = objective.encoder.vit.blocks[1].attn.qkv.weight
    assert torch.equal(ours, state["target_encoder.blocks.1.attn.qkv.weight"])
    ours = objective.backbone.vit.blocks[1].attn.qkv.weight
    assert torch.equal(ours, state["encoder.blocks.1.attn.qkv.weight"])
    ours = objective.predictor.blocks[0].mlp.fc1.bias
    assert torch.equal(ours, state["predictor.predictor_blocks.0.mlp.fc1.bias"])


def test_misspelt_weights_are_refused():
    with pytest.raises(InputError, match="no loss term is called predictions"):
        small_ijepa(weights={"predictions": 1.0})
