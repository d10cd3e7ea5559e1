import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from cxrssl.backbones import ConvNet, load_backbone_weights
from cxrssl.errors import InputError
from cxrssl.tasks.base import default_views
from cxrssl.tasks.encoder import fingerprint, prepare_encoder, view_options
from tests.backbones.hub_models import RAD_DINO, hugging_face, save_hugging_face
from tests.backbones.official import micro_vit, save_chexworld, tiny_vit
from tests.golden import load_golden, subset


def drop_rates(vit):
    return [block.drop_rate for block in vit.vit.blocks]


def test_golden_patches_of_half_the_side(tmp_path):
    golden = load_golden("chexworld/finetune.npz")
    state = subset(load_golden("chexworld/model_micro.npz"), "sd/")
    vit = micro_vit()
    load_backbone_weights(vit, save_chexworld(tmp_path / "chexworld.tar", state))
    vit.normalisation = (0.5, 0.25)
    prepared = prepare_encoder(vit, patch_size=8)
    assert prepared.patch_size == prepared.arguments["patch_size"] == 8
    assert prepared.normalisation == (0.5, 0.25)
    assert_close(prepared.vit.pos_embed.data, golden["p8/pos_embed"], atol=1e-6, rtol=0)
    assert_close(prepared.vit.patch_embed.proj.weight.data, golden["p8/patch_w"], atol=1e-6, rtol=0)
    tokens = prepared.eval()(golden["fc/x"][:1]).patches
    assert_close(tokens, golden["p8/tokens"], atol=2e-5, rtol=0)


def test_golden_stochastic_depth():
    rates = load_golden("chexworld/finetune.npz")["droppath_0.6_depth12"]
    vit = prepare_encoder(tiny_vit(depth=12), drop_path=0.6)
    assert_close(torch.tensor(drop_rates(vit), dtype=rates.dtype), rates)


def test_without_a_rate_the_encoder_keeps_its_own():
    assert drop_rates(prepare_encoder(tiny_vit(drop_path=0.3))) == [0.3, 0.3]
    assert drop_rates(prepare_encoder(tiny_vit(drop_path=0.3), patch_size=7)) == [0.3, 0.3]


def test_other_patches_keep_how_the_encoder_runs():
    vit = tiny_vit(packed=False, activation_checkpointing=True)
    prepared = prepare_encoder(vit, patch_size=7)
    assert prepared.packed is False
    assert prepared.activation_checkpointing is True
    assert prepare_encoder(vit, patch_size=14) is vit


@pytest.mark.parametrize("options", [{"drop_path": 0.1}, {"patch_size": 8}])
def test_a_convnet_has_neither_patches_nor_stochastic_depth(options):
    convnet = ConvNet("resnet18", in_chans=1)
    assert prepare_encoder(convnet) is convnet
    with pytest.raises(InputError, match="for a ViT, the encoder is a ConvNet: leave them out"):
        prepare_encoder(convnet, **options)


def test_fingerprint_knows_every_weight():
    vit = tiny_vit()
    known = fingerprint(vit)
    assert fingerprint(copy.deepcopy(vit)) == known
    for name, parameter in vit.named_parameters():
        value = parameter.data.flatten()[-1].clone()
        parameter.data.flatten()[-1] += 1
        assert fingerprint(vit) != known, name
        parameter.data.flatten()[-1] = value
    assert fingerprint(vit) == known


def test_fingerprint_knows_buffers_numbers_and_architecture():
    vit = tiny_vit()
    assert fingerprint(copy.deepcopy(vit).bfloat16()) != fingerprint(vit)
    heads = tiny_vit(heads=4)
    heads.load_state_dict(vit.state_dict())
    assert fingerprint(heads) != fingerprint(vit)
    convnet = ConvNet("resnet18", in_chans=1)
    known = fingerprint(convnet)
    next(m for m in convnet.modules() if isinstance(m, nn.BatchNorm2d)).running_mean += 1
    assert fingerprint(convnet) != known


def test_fingerprint_knows_gates():
    vit = tiny_vit()
    known = fingerprint(vit)
    vit.insert_gates([0], 3)
    gated = fingerprint(vit)
    assert gated != known
    prepared = prepare_encoder(vit, drop_gates=True)
    assert fingerprint(prepared) == known


def test_an_encoder_of_another_library_brings_its_views(tmp_path):
    path = save_hugging_face(hugging_face(), tmp_path / "rad-dino", RAD_DINO)
    encoder = prepare_encoder(path)
    assert encoder.load_report.format == "Hugging Face"
    views = default_views(encoder)
    assert (views.image_size, views.in_chans, views.mean, views.std) == (56, 3, 0.5307, 0.2583)
    assert views.eval_view().resampling == "pillow"
    encoder.resize = 64
    assert view_options(encoder, 112)["resize"] == 128
    smaller = prepare_encoder(encoder, patch_size=7)
    assert (smaller.resize, smaller.resampling, smaller.trained_pooling) == (64, "pillow", "class")
