import argparse
import json
import math
import pathlib

import pytest
import torch
from torch.testing import assert_close

from cxrssl.backbones import ViT, load_backbone_weights
from cxrssl.backbones.weights import load_state, read_weights
from cxrssl.errors import InputError
from tests.backbones.official import (
    chexworld_state,
    ijepa_state,
    jepa_shapes,
    micro_vit,
    save_chexworld,
    save_ijepa,
)
from tests.golden import SHARED, load_golden, subset

SAVE = {"chexworld": (chexworld_state, save_chexworld), "ijepa": (ijepa_state, save_ijepa)}


@pytest.fixture(params=SAVE)
def official(request, tmp_path):
    make, save = SAVE[request.param]
    state = make()
    return state, save(tmp_path / "official.pth.tar", state)


def holds(vit: ViT, expected: dict[str, torch.Tensor]) -> bool:
    own = vit.vit.state_dict()
    return own.keys() == expected.keys() and all(torch.equal(own[k], expected[k]) for k in own)


def test_names_and_shapes_of_the_published_checkpoint():
    path = SHARED / "golden" / "chexworld" / "official_keys_vitb.json"
    if not path.is_file():
        pytest.skip("golden file official_keys_vitb.json is not beside this checkout")
    published = json.loads(path.read_text())
    shapes = jepa_shapes(grid=14, width=768, depth=12, predictor_width=384, predictor_depth=6)
    assert {name: list(shape) for name, shape in shapes.items()} == published["keys"]
    assert sum(map(math.prod, shapes.values())) == published["counts"]["total"]


@pytest.mark.parametrize(("name", "actions"), [("model_micro", 5), ("ijepa_micro", 0)])
def test_names_and_shapes_of_the_golden_files(name, actions):
    state = subset(load_golden(f"chexworld/{name}.npz"), "sd/")
    assert {key: tuple(x.shape) for key, x in state.items()} == jepa_shapes(actions=actions)


def test_golden_tokens_of_chexworld(tmp_path):
    golden = load_golden("chexworld/finetune.npz")
    state = subset(load_golden("chexworld/model_micro.npz"), "sd/")
    vit = micro_vit()
    load_backbone_weights(vit, save_chexworld(tmp_path / "chexworld.tar", state))
    tokens = vit.eval()(golden["fc/x"]).patches
    assert_close(tokens, golden["fc/tokens"], atol=2e-5, rtol=0)


def test_golden_tokens_of_ijepa(tmp_path):
    golden = load_golden("chexworld/ijepa_micro.npz")
    vit = micro_vit()
    path = save_ijepa(tmp_path / "jepa.pth.tar", subset(golden, "sd/"))
    load_backbone_weights(vit, path, prefix="encoder.")
    tokens = vit.eval()(golden["in/img"], keep=golden["n1x4/masks_enc"][0]).patches
    assert_close(tokens, golden["n1x4/z_enc"], atol=2e-5, rtol=0)


def test_the_moving_average_is_loaded(official):
    state, path = official
    vit = micro_vit()
    report = load_backbone_weights(vit, path)
    assert holds(vit, subset(state, "target_encoder."))
    assert str(report) == f"{path} (CheXWorld or I-JEPA): 29 weights matched"


def test_another_module_by_its_prefix(official):
    state, path = official
    vit = micro_vit()
    report = load_backbone_weights(vit, path, prefix="encoder.")
    assert holds(vit, subset(state, "encoder."))
    assert report.format == "CheXWorld or I-JEPA"
    with pytest.raises(InputError, match=r"start with 'teacher\.'; it holds those of encoder, "):
        load_backbone_weights(vit, path, prefix="teacher.")
    with pytest.raises(InputError, match="holds no ViT that is known here"):
        load_backbone_weights(vit, path, prefix="predictor.")


def test_state_that_is_already_read(official):
    _, path = official
    by_path, by_state = micro_vit(), micro_vit()
    load_backbone_weights(by_path, path)
    state, description = read_weights(path)
    assert description is None
    report = load_state(by_state, state, "memory")
    assert holds(by_state, by_path.vit.state_dict())
    assert report.source == "memory"


def test_every_state_dict_of_ijepa_and_nothing_else_is_read(tmp_path):
    state = ijepa_state()
    read, _ = read_weights(save_ijepa(tmp_path / "jepa.pth.tar", state))
    assert {key.replace(".module.", ".", 1) for key in read} == state.keys()
    assert all(key.split(".")[1] == "module" for key in read)


def test_a_class_token_is_not_invented(official):
    _, path = official
    with pytest.raises(InputError, match=r"\(CheXWorld or I-JEPA\).* missing there: cls_token"):
        load_backbone_weights(micro_vit(class_token=True), path)


def test_positions_of_another_resolution_follow_the_mode(official):
    state, path = official
    vits = {mode: micro_vit(img_size=96, interpolation=mode) for mode in ("plain", "size")}
    for vit in vits.values():
        report = load_backbone_weights(vit, path)
        assert report.resized == ["pos_embed"]
    for mode, vit in vits.items():
        native = micro_vit(interpolation=mode)
        load_state(native, state, path)
        assert_close(vit.position_tokens((6, 6)), native.position_tokens((6, 6)))
    tables = [vit.vit.pos_embed for vit in vits.values()]
    assert not torch.allclose(*tables, atol=1e-3)


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('run')",))


class Misshapen:
    def __reduce__(self):
        return (argparse.Namespace, (), 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (argparse.Namespace(callback=Hostile()), "could run foreign code"),
        (argparse.Namespace(folder=pathlib.PurePosixPath("here")), "could run foreign code"),
        (argparse.ArgumentParser, "could run foreign code"),
        (Misshapen(), r"no readable weight file \(TypeError\)"),
    ],
)
def test_nothing_but_plain_arguments_is_unpickled(tmp_path, arguments, message):
    path = tmp_path / "file.tar"
    torch.save({"model": chexworld_state(), "args": arguments}, path)
    with pytest.raises(InputError, match=message):
        read_weights(path)


def test_reading_leaves_no_class_allowed(tmp_path):
    read_weights(save_chexworld(tmp_path / "chexworld.tar", chexworld_state()))
    assert argparse.Namespace not in torch.serialization.get_safe_globals()
