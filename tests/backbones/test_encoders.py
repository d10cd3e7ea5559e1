"""Encoders of every format: built as their files say, with the outputs of the source library."""

import json
import math

import pytest
import safetensors.torch
import timm
import torch
from timm.models import save_for_hf
from torch.testing import assert_close

from cxrssl.backbones import ConvNet, ViT, encoder_from_timm, load_encoder
from cxrssl.backbones.published import IMAGENET
from cxrssl.backbones.vit_shape import vit_shape
from cxrssl.backbones.weight_formats import to_timm_names
from cxrssl.errors import InputError
from tests.backbones.hub_models import (
    RAD_DINO,
    cache_snapshot,
    hugging_face,
    save_hugging_face,
    shuffle,
)
from tests.backbones.official import (
    chexworld_state,
    ijepa_state,
    mlvicx_state,
    official_state,
    save_chexworld,
    save_ijepa,
    save_official,
    tiny_vit,
)
from tests.golden import SHARED, load_golden, subset

SIZES = [(56, 56), (84, 70), (42, 42)]
TIMM = {"img_size": 64, "embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 0}


def images(size, channels=3):
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def sequence(encoder, x):
    """Return class token, registers and patches as one sequence."""
    tokens = encoder(x)
    first = [] if tokens.cls is None else [tokens.cls[:, None]]
    return torch.cat([*first, tokens.registers, tokens.patches], dim=1)


def same(a, b):
    own, others = a.state_dict(), b.state_dict()
    assert own.keys() == others.keys()
    for name, value in own.items():
        assert torch.equal(value, others[name]), name


# Hugging Face


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("options", [{}, {"use_swiglu_ffn": True}, {"layer_norm_eps": 1e-3}])
def test_hugging_face_folder(tmp_path, registers, options):
    model = hugging_face(registers, **options)
    encoder = load_encoder(save_hugging_face(model, tmp_path, None))
    assert encoder.n_registers == registers
    assert encoder.interpolation == ("size" if registers else "plain")
    for size in SIZES:
        x = images(size)
        with torch.no_grad():
            expected = model(x).last_hidden_state
        assert_close(sequence(encoder, x), expected, atol=2e-5, rtol=1e-5)
    assert encoder.normalisation == IMAGENET
    assert any("normalisation as of Hugging Face" in text for text in encoder.load_report.assumed)


def test_rad_dino_brings_its_preprocessing(tmp_path):
    path = save_hugging_face(hugging_face(), tmp_path, RAD_DINO)
    encoder = load_encoder(path)
    assert encoder.normalisation == (0.5307, 0.2583)
    assert (encoder.image_size, encoder.resize, encoder.resampling) == (56, None, "pillow")
    assert (encoder.patch_size, encoder.n_registers, encoder.in_chans) == (14, 0, 3)
    assert encoder.trained_pooling == "class"
    assert encoder.load_report.assumed == []
    same(load_encoder(tmp_path / "model.safetensors"), encoder)


def test_rad_dino_without_its_preprocessing_is_known_by_its_name(tmp_path):
    path = tmp_path / "models--microsoft--rad-dino"
    encoder = load_encoder(save_hugging_face(hugging_face(), path, None))
    assert encoder.normalisation == (0.5307, 0.2583)
    assert encoder.load_report.assumed == ["normalisation as of RAD-DINO"]
    vit = tiny_vit()
    official = save_official(official_state(vit), path / "backbone_compatible.safetensors.pth")
    encoder = load_encoder(official, heads=2)
    assert (encoder.normalisation, encoder.interpolation) == ((0.5307, 0.2583), "offset")


def test_a_preprocessor_with_a_margin_and_other_scales(tmp_path):
    other = RAD_DINO | {
        "size": {"shortest_edge": 64},
        "do_rescale": False,
        "image_mean": [127.5, 0.0, 51.0],
        "image_std": [255.0, 255.0, 127.5],
        "resample": 2,
    }
    encoder = load_encoder(save_hugging_face(hugging_face(), tmp_path, other))
    assert (encoder.image_size, encoder.resize) == (56, 64)
    assert encoder.normalisation == ((0.5, 0.0, 0.2), (1.0, 1.0, 0.5))
    assert "resized bicubically" in str(encoder.load_report)
    other |= {"do_normalize": False, "do_rescale": True, "do_center_crop": False}
    encoder = load_encoder(save_hugging_face(hugging_face(), tmp_path, other))
    assert encoder.normalisation == (0.0, 1.0)
    assert (encoder.image_size, encoder.resize) == (64, None)


def test_shards_of_a_large_model(tmp_path):
    model = hugging_face()
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    whole = load_encoder(save_hugging_face(model, tmp_path / "whole", None))
    same(load_encoder(tmp_path), whole)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["lost.weight"] = content["weight_map"]["layernorm.weight"]
    index.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"lost\.weight, which is in none of its files"):
        load_encoder(tmp_path)
    content["weight_map"]["lost.weight"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(InputError, match="which is not beside it"):
        load_encoder(tmp_path)


def test_a_name_of_hugging_face_in_its_cache(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    save_hugging_face(hugging_face(), tmp_path / "files", RAD_DINO)
    cache_snapshot(tmp_path / "cache", "someone/encoder", tmp_path / "files")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    encoder = load_encoder("hf:someone/encoder")
    assert encoder.normalisation == (0.5307, 0.2583)
    same(encoder, load_encoder(tmp_path / "files"))
    with pytest.raises(InputError, match="hf:someone/other can be neither found in Hugging Face's"):
        load_encoder("hf:someone/other")


# timm


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_small_patch14_dinov2", {"img_size": 56}),
        ("vit_small_patch14_reg4_dinov2", {"img_size": 56}),
        ("vit_giant_patch14_dinov2", {"img_size": 56, "mlp_ratio": 4.0}),
        ("vit_tiny_patch16_224", {"reg_tokens": 3}),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg", "fc_norm": False}),
        ("vit_tiny_patch16_224", {"mlp_ratio": 3.0, "qkv_bias": False, "in_chans": 1}),
        ("vit_base_patch16_clip_quickgelu_224", {}),
    ],
)
def test_timm_folder_model_and_file(tmp_path, name, options):
    model = shuffle(timm.create_model(name, dynamic_img_size=True, **(TIMM | options)))
    save_for_hf(model, tmp_path, safe_serialization=True)
    same(load_encoder(tmp_path), encoder_from_timm(model))
    encoder = encoder_from_timm(model)
    assert encoder.interpolation == "size"
    patch = encoder.patch_size
    for size in [(encoder.img_size,) * 2, (6 * patch, 5 * patch)]:
        x = images(size, encoder.in_chans)
        with torch.no_grad():
            assert_close(sequence(encoder, x), model.forward_features(x), atol=2e-5, rtol=1e-5)
    assert encoder.image_size == encoder.img_size
    mean = torch.tensor(model.pretrained_cfg["mean"]).mean().item()
    assert torch.as_tensor(encoder.normalisation[0]).mean().item() == pytest.approx(mean)
    assert encoder.load_report.assumed == []


def test_a_file_of_timm_alone(tmp_path):
    model = shuffle(timm.create_model("vit_tiny_patch16_224", **TIMM))
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    encoder = load_encoder(path, heads=2)
    x = images((64, 64))
    with torch.no_grad():
        assert_close(sequence(encoder, x), model.forward_features(x), atol=2e-5, rtol=1e-5)
    assert encoder.normalisation is None
    assert encoder.load_report.assumed == ["normalisation is not known"]
    assert load_encoder(path).load_report.assumed[0] == "1 heads"


def test_a_name_of_timm_in_its_cache(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    model = shuffle(timm.create_model("test_vit", num_classes=1000))
    (tmp_path / "files").mkdir()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "files" / "model.safetensors")
    cache_snapshot(tmp_path / "cache", "timm/test_vit.r160_in1k", tmp_path / "files")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    encoder = load_encoder("timm:test_vit.r160_in1k")
    assert (encoder.image_size, encoder.resize) == (160, 168)
    assert encoder.normalisation == (0.5, 0.5)
    x = images((160, 160))
    with torch.no_grad():
        assert_close(sequence(encoder, x), model.forward_features(x), atol=2e-5, rtol=1e-5)
    with pytest.raises(InputError, match="can be neither found in timm's cache nor fetched"):
        load_encoder("timm:vit_tiny_patch16_224.augreg_in21k")
    with pytest.raises(InputError, match="timm has no model 'vit_nothing'"):
        load_encoder("timm:vit_nothing")


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_convnets_of_timm(tmp_path, name):
    model = timm.create_model(name, num_classes=3).eval()
    save_for_hf(model, tmp_path, safe_serialization=True)
    encoder = load_encoder(tmp_path)
    assert isinstance(encoder, ConvNet)
    x = images((64, 64))
    with torch.no_grad():
        features = model.forward_intermediates(x, intermediates_only=True)[-1]
        assert_close(encoder(x).map, features, atol=1e-4, rtol=1e-4)
    assert encoder.trained_pooling == "mean"
    assert encoder.normalisation == IMAGENET


# Official files


@pytest.mark.parametrize(("name", "mode"), [("noreg", "offset"), ("reg4", "size")])
def test_golden_dinov2_at_all_sizes(tmp_path, name, mode):
    golden = load_golden(f"dinov2/vit_tiny_{name}.npz")
    path = save_official(subset(golden, "sd/"), tmp_path / "dinov2.pth")
    encoder = load_encoder(path, heads=2)
    assert (encoder.interpolation, encoder.img_size) == (mode, 70)
    assert encoder.normalisation == IMAGENET
    assert encoder.load_report.left_over == ["mask_token"]
    for size in ("native", "big", "rect", "small"):
        tokens = encoder(golden[f"{size}/x"])
        close = {"atol": 1e-4, "rtol": 1e-4}
        assert_close(tokens.cls, golden[f"{size}/x_norm_clstoken"], **close)
        assert_close(tokens.registers, golden[f"{size}/x_norm_regtokens"], **close)
        assert_close(tokens.patches, golden[f"{size}/x_norm_patchtokens"], **close)


@pytest.mark.parametrize("chunks", [0, 2])
def test_training_dump_as_of_chexfound(tmp_path, chunks):
    source = tiny_vit(registers=4, ffn="swiglu", interpolation="offset", width=128)
    state = {
        key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): value
        for key, value in official_state(source, chunks).items()
    }
    heads = {"dino_head.last_layer.weight_v": torch.zeros(3, 3)}
    state = {"teacher": {f"backbone.{key}": value for key, value in state.items()} | heads}
    encoder = load_encoder(save_official(state, tmp_path / "teacher_checkpoint.pth"))
    same(encoder, source)
    assert (encoder.interpolation, encoder.n_registers) == ("offset", 4)
    assert encoder.trained_pooling == "class"
    assert encoder.load_report.assumed == [
        "2 heads",
        "normalisation as of DINOv2 training, as of CheXFound",
    ]


@pytest.mark.parametrize(
    ("make", "save", "name"),
    [(chexworld_state, save_chexworld, "CheXWorld"), (ijepa_state, save_ijepa, "I-JEPA")],
)
def test_jepa_checkpoints(tmp_path, make, save, name):
    state = make(width=64)
    encoder = load_encoder(save(tmp_path / "epoch_299.pth.tar", state), heads=4)
    expected = subset(state, "target_encoder.")
    assert torch.equal(encoder.vit.blocks[1].mlp.fc1.weight, expected["blocks.1.mlp.fc1.weight"])
    assert (encoder.has_class_token, encoder.trained_pooling) == (False, "mean")
    assert (encoder.interpolation, encoder.img_size) == ("plain", 64)
    assert encoder.load_report.assumed == [f"normalisation as of {name}"]


def test_golden_tokens_of_chexworld(tmp_path):
    golden = load_golden("chexworld/finetune.npz")
    state = subset(load_golden("chexworld/model_micro.npz"), "sd/")
    encoder = load_encoder(save_chexworld(tmp_path / "chexworld.tar", state), heads=4)
    assert encoder.arguments["position"] == "sincos"
    assert not encoder.vit.pos_embed.requires_grad
    assert_close(encoder(golden["fc/x"]).patches, golden["fc/tokens"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("gates", [True, False])
def test_mlvicx(tmp_path, gates):
    source = ConvNet("resnet18", in_chans=3, gates=gates).eval()
    path = tmp_path / "encoder.pth"
    torch.save({"online": mlvicx_state(source)}, path)
    encoder = load_encoder(path)
    same(encoder, source)
    assert encoder.normalisation == IMAGENET
    assert encoder.trained_pooling == "mean"
    assert load_encoder(path, drop_gates=True).arguments["gates"] == []


def _weightless(published):
    """Return tensors of published shapes that take no memory."""
    shapes = {key: tuple(shape) for key, shape in published["top"].items()}
    for block in range(1, published["depth"]):
        for key, shape in published["top"].items():
            if key.startswith("blocks.0."):
                shapes[key.replace("blocks.0.", f"blocks.{block}.")] = tuple(shape)
    return {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}


@pytest.mark.parametrize("size", ["vits14", "vitb14", "vitl14", "vitg14"])
@pytest.mark.parametrize("registers", ["", "_reg4"])
def test_key_lists_of_the_released_backbones(size, registers):
    path = SHARED / "golden" / "dinov2" / "official_keys.json"
    if not path.is_file():
        pytest.skip("golden file official_keys.json is not beside this checkout")
    published = json.loads(path.read_text())[size + registers]
    state = _weightless(published)
    assert sum(math.prod(x.shape) for x in state.values()) == published["n_params"]
    _, renamed = to_timm_names(state, "release")
    shape = vit_shape(renamed, "release")
    with torch.device("meta"):
        vit = ViT(**shape, heads=shape["width"] // 64)
    own = {key: value.shape for key, value in vit.vit.state_dict().items()}
    assert own == {key: value.shape for key, value in renamed.items() if key != "mask_token"}
    assert (vit.img_size, vit.patch_size, vit.n_registers) == (518, 14, 4 if registers else 0)


# Channels and sizes that are asked for


def test_one_channel_of_a_model_trained_on_normalised_colours(tmp_path):
    path = save_official(official_state(tiny_vit(width=64)), tmp_path / "model.pth")
    colours = load_encoder(path, heads=2)
    grey = load_encoder(path, heads=2, in_chans=1)
    unit = torch.rand(2, 1, 70, 70)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    expected = sequence(colours, (unit - mean) / std)
    assert isinstance(grey.normalisation[0], float)
    result = sequence(grey, (unit - grey.normalisation[0]) / grey.normalisation[1])
    assert_close(result, expected, atol=2e-4, rtol=1e-4)


def test_a_resnet_of_colours_takes_no_single_channel(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.pth")
    assert load_encoder(tmp_path / "resnet18.pth").arguments["name"] == "resnet18"
    with pytest.raises(InputError, match=r"colours are normalised differently.*leave in_chans out"):
        load_encoder(tmp_path / "resnet18.pth", in_chans=1)
    with pytest.raises(InputError, match="heads is for a ViT"):
        load_encoder(tmp_path / "resnet18.pth", heads=2)


def test_another_size_resamples_positions_in_the_file_s_own_way(tmp_path):
    path = save_official(official_state(tiny_vit()), tmp_path / "model.pth")
    encoder = load_encoder(path, heads=2, img_size=98)
    assert (encoder.img_size, encoder.image_size) == (98, 98)
    native = load_encoder(path, heads=2)
    assert_close(encoder.position_tokens((7, 7)), native.position_tokens((7, 7)))
    plain = load_encoder(path, heads=2, interpolation="plain")
    assert not torch.allclose(plain.position_tokens((7, 7)), native.position_tokens((7, 7)))


# What is refused


def refused(tmp_path, state, message, **options):
    with pytest.raises(InputError, match=message):
        load_encoder(save_official(state, tmp_path / "model.pth"), **options)


def test_weights_that_are_not_whole_or_not_known(tmp_path):
    state = official_state(tiny_vit(width=64))
    without = {key: value for key, value in state.items() if key != "blocks.0.attn.proj.bias"}
    refused(tmp_path, without, r"missing there: blocks\.0\.attn\.proj\.bias", heads=2)
    gap = {key: value for key, value in state.items() if not key.startswith("blocks.0.")}
    refused(tmp_path, gap, "lacks blocks.0.mlp.fc1.weight", heads=2)
    refused(tmp_path, state | {"extra.weight": torch.zeros(2)}, r"unknown here: extra\.weight")
    refused(tmp_path, state | {"pos_embed": torch.zeros(1, 24, 64)}, "no square grid")
    no_table = {key: value for key, value in state.items() if key != "pos_embed"}
    refused(tmp_path, no_table, "no position table")
    refused(tmp_path, {"fc.weight": torch.zeros(2, 2)}, "holds no ViT that is known here")
    refused(tmp_path, {"x.decoder.layers.0.multihead_attn.in_proj_bias": torch.zeros(2)}, "GLoRI")
    odd = official_state(tiny_vit(width=48, heads=3))
    refused(tmp_path, odd, "how many attention heads its blocks of width 48 have")
    wrong = state | {"blocks.1.mlp.fc1.weight": torch.zeros(8, 64)}
    refused(tmp_path, wrong, r"blocks\.1\.mlp\.fc1\.weight is \(8, 64\) there and \(256, 64\) here")


def test_configurations_that_do_not_fit(tmp_path):
    path = save_hugging_face(hugging_face(), tmp_path, None)
    config = json.loads((tmp_path / "config.json").read_text())

    def with_config(message, **changes):
        (tmp_path / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(InputError, match=message):
            load_encoder(path)

    with_config("config.json says depth 3, and the weights have 2", num_hidden_layers=3)
    with_config("is of a model 'vit', and of Hugging Face's models only dinov2", model_type="vit")
    with_config("hidden_act is 'relu'", hidden_act="relu")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json is no readable JSON"):
        load_encoder(path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="expected an object"):
        load_encoder(path)


def test_pooling_before_the_last_norm_is_refused():
    model = timm.create_model("vit_tiny_patch16_224", **TIMM, global_pool="avg")
    with pytest.raises(InputError, match="pools its patches before the last norm"):
        encoder_from_timm(model)


def test_layers_that_leave_no_trace_in_the_weights(tmp_path):
    options = TIMM | {"act_layer": "relu"}
    model = timm.create_model("vit_tiny_patch16_224", **options)
    save_for_hf(model, tmp_path, safe_serialization=True)
    with pytest.raises(InputError, match=r"config\.json sets act_layer to 'relu'"):
        load_encoder(tmp_path)
    model = timm.create_model("vit_base_patch16_clip_quickgelu_224", **TIMM, mlp_ratio=2.0)
    with pytest.raises(InputError, match="has an activation of its own"):
        encoder_from_timm(model)


def test_folders_without_weights(tmp_path):
    with pytest.raises(InputError, match=r"holds no weights: expected one of model\.safetensors"):
        load_encoder(tmp_path)
    with pytest.raises(InputError, match="there is no weight file"):
        load_encoder(tmp_path / "nothing.pth")
