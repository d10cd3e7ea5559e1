import pickle

import pytest
import safetensors.torch
import timm
import torch
from torch.testing import assert_close

from cxrssl.backbones import ViT, load_backbone_weights
from cxrssl.errors import InputError
from tests.backbones.official import (
    micro_vit,
    official_state,
    save_chexworld,
    save_official,
    tiny_vit,
)
from tests.golden import load_golden, subset


def same(a: ViT, b: ViT) -> None:
    for (name, x), (_, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert torch.equal(x, y), name


@pytest.mark.parametrize("chunks", [0, 2])
@pytest.mark.parametrize("wrapped", [False, True])
def test_official_release_and_training_dump(tmp_path, chunks, wrapped):
    source, vit = tiny_vit(registers=4), tiny_vit(registers=4)
    state = official_state(source, chunks)
    if wrapped:
        heads = {"dino_head.mlp.0.weight": torch.zeros(3, 3)}
        state = {"teacher": {f"backbone.{k}": v for k, v in state.items()} | heads}
    report = load_backbone_weights(vit, save_official(state, tmp_path / "model.pth"))
    same(vit, source)
    assert report.left_over == ["mask_token"]
    assert report.missing == report.resized == []
    assert vit.pretrained_mask_token.shape == (1, 64)


def test_swiglu_names_of_the_official_code(tmp_path):
    source, vit = tiny_vit(ffn="swiglu"), tiny_vit(ffn="swiglu")
    state = {
        k.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): v
        for k, v in official_state(source).items()
    }
    load_backbone_weights(vit, save_official(state, tmp_path / "model.pth"))
    same(vit, source)


@pytest.mark.parametrize("spelling", ["4", "5"])
def test_golden_hugging_face(tmp_path, spelling):
    golden = load_golden("hf_dinov2/tiny.npz")
    state = subset(golden, "sd.")
    if spelling == "5":
        for old, new in {
            "attention.attention.query": "attention.q_proj",
            "attention.attention.key": "attention.k_proj",
            "attention.attention.value": "attention.v_proj",
            "attention.output.dense": "attention.o_proj",
        }.items():
            state = {k.replace(old, new): v for k, v in state.items()}
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, path)
    vit = tiny_vit(img_size=56, width=48, heads=3)
    report = load_backbone_weights(vit, path)
    assert report.format == "Hugging Face"
    tokens = vit.eval()(golden["x"])
    result = torch.cat([tokens.cls[:, None], tokens.patches], dim=1)
    assert_close(result, golden["last_hidden_state"], atol=1e-5, rtol=1e-5)


def test_timm_model_with_folded_class_position(tmp_path):
    torch.manual_seed(0)
    theirs = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, num_classes=7, no_embed_class=True, embed_dim=48
    )
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    vit = ViT("vit_tiny", img_size=64, in_chans=3, width=48, class_position=True)
    report = load_backbone_weights(vit, tmp_path / "timm.pth")
    assert report.left_over == ["head.weight", "head.bias"]
    x = torch.randn(2, 3, 64, 64)
    expected = theirs.eval().forward_features(x)
    tokens = vit.eval()(x)
    assert_close(tokens.cls, expected[:, 0], atol=1e-5, rtol=1e-5)
    assert_close(tokens.patches, expected[:, 1:], atol=1e-5, rtol=1e-5)


def test_class_position_folds_into_the_token(tmp_path):
    source = tiny_vit()
    vit = tiny_vit(class_position=False)
    load_backbone_weights(vit, save_official(official_state(source), tmp_path / "m.pth"))
    x = torch.randn(1, 3, 70, 70)
    assert_close(vit.eval()(x).cls, source.eval()(x).cls, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mode", ["offset", "size"])
def test_positions_of_another_resolution(tmp_path, mode):
    source = tiny_vit(interpolation=mode)
    vit = tiny_vit(interpolation=mode, img_size=98)
    report = load_backbone_weights(vit, save_official(official_state(source), tmp_path / "m.pth"))
    assert report.resized == ["pos_embed"]
    x = torch.randn(1, 3, 98, 98)
    assert_close(vit.eval()(x).patches, source.eval()(x).patches, atol=1e-5, rtol=1e-5)


def test_grey_kernel_equals_a_grey_image_in_three_channels(tmp_path):
    source, vit = tiny_vit(), tiny_vit(in_chans=1)
    load_backbone_weights(vit, save_official(official_state(source), tmp_path / "m.pth"))
    x = torch.randn(2, 1, 70, 70)
    rgb = x.expand(-1, 3, -1, -1)
    assert_close(vit.eval()(x).cls, source.eval()(rgb).cls, atol=1e-5, rtol=1e-5)


def test_normalisation_folds_into_the_kernel(tmp_path):
    source, vit = tiny_vit(), tiny_vit(in_chans=1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    load_backbone_weights(
        vit,
        save_official(official_state(source), tmp_path / "m.pth"),
        normalisation=((tuple(mean.tolist()), tuple(std.tolist())), (0.53, 0.26)),
    )
    grey = torch.rand(2, 1, 70, 70)
    rgb = (grey - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    ours = vit.eval()((grey - 0.53) / 0.26)
    assert_close(ours.cls, source.eval()(rgb).cls, atol=1e-5, rtol=1e-5)


def test_golden_patches_of_half_the_side(tmp_path):
    golden = load_golden("chexworld/finetune.npz")
    state = subset(load_golden("chexworld/model_micro.npz"), "sd/")
    vit = micro_vit(patch_size=8)
    path = save_chexworld(tmp_path / "chexworld.tar", state)
    report = load_backbone_weights(vit, path, resize_patch=True)
    assert report.resized == ["patch_embed.proj.weight", "pos_embed"]
    assert_close(vit.vit.pos_embed.data, golden["p8/pos_embed"], atol=1e-6, rtol=0)
    assert_close(vit.vit.patch_embed.proj.weight.data, golden["p8/patch_w"], atol=1e-6, rtol=0)
    tokens = vit.eval()(golden["fc/x"][:1]).patches
    assert_close(tokens, golden["p8/tokens"], atol=2e-5, rtol=0)


def test_resized_grey_patches_fold_the_normalisation_exactly(tmp_path):
    path = save_official(official_state(tiny_vit()), tmp_path / "m.pth")
    colour, grey = tiny_vit(patch_size=7), tiny_vit(patch_size=7, in_chans=1)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    load_backbone_weights(colour, path, resize_patch=True)
    load_backbone_weights(grey, path, resize_patch=True, normalisation=((mean, std), (0.53, 0.26)))
    x = torch.rand(2, 1, 70, 70)
    rgb = (x - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    ours = grey.eval()((x - 0.53) / 0.26)
    assert_close(ours.cls, colour.eval()(rgb).cls, atol=1e-5, rtol=1e-5)


def test_patches_of_another_size_are_refused_unless_asked_for(tmp_path):
    path = save_official(official_state(tiny_vit()), tmp_path / "m.pth")
    vit = tiny_vit(patch_size=7)
    before = vit.vit.patch_embed.proj.weight.clone()
    message = (
        r"patches of another size need resize_patch=True; "
        r"patch_embed\.proj\.weight is \(64, 3, 14, 14\) there and \(64, 3, 7, 7\) here"
    )
    with pytest.raises(InputError, match=message):
        load_backbone_weights(vit, path)
    assert torch.equal(vit.vit.patch_embed.proj.weight, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"registers": 4}, "missing there: reg_token"),
        ({"width": 32}, r"cls_token is \(1, 1, 64\) there and \(1, 1, 32\) here"),
        ({"depth": 1}, "unknown here: blocks.1.norm1.weight"),
        ({"depth": 3}, "missing there: blocks.2.norm1.weight"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_changed(tmp_path, options, message):
    path = save_official(official_state(tiny_vit()), tmp_path / "m.pth")
    vit = tiny_vit(**options)
    before = {k: v.clone() for k, v in vit.state_dict().items()}
    with pytest.raises(InputError, match=message):
        load_backbone_weights(vit, path)
    assert all(torch.equal(v, before[k]) for k, v in vit.state_dict().items())


def test_fresh_registers_may_be_asked_for(tmp_path):
    path = save_official(official_state(tiny_vit()), tmp_path / "m.pth")
    report = load_backbone_weights(tiny_vit(registers=4), path, allow_missing={"reg_token"})
    assert report.missing == ["reg_token"]


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('run')",))


def test_files_that_are_refused(tmp_path):
    vit = tiny_vit()
    with pytest.raises(InputError, match=r"there is no weight file .*nowhere\.pth"):
        load_backbone_weights(vit, tmp_path / "nowhere.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"state_dict": Hostile()}))
    with pytest.raises(InputError, match=r"pickle\.pth"):
        load_backbone_weights(vit, tmp_path / "pickle.pth")
    torch.save({"state_dict": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(InputError, match="could run foreign code"):
        load_backbone_weights(vit, tmp_path / "hostile.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"12345678")
    with pytest.raises(InputError, match="no readable safetensors file"):
        load_backbone_weights(vit, tmp_path / "cut.safetensors")
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="holds no ViT that is known here"):
        load_backbone_weights(vit, tmp_path / "other.pth")
