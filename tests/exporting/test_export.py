"""What is exported: equal outputs in other libraries, and equal weights when it comes back."""

import json
import logging
import subprocess
import sys
import warnings

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from cxrssl.backbones import ConvNet, encoder_from_timm, load_encoder
from cxrssl.errors import InputError
from cxrssl.exporting import export_encoder
from cxrssl.tasks.encoder import view_options
from cxrssl.views import EvalView
from tests.exporting.encoders import KINDS, exported_vit, images, sequence

HUGGING_FACE = ["plain", "registers", "swiglu", "sincos"]


def without_description(folder):
    """Forget what the file says of itself, so that the configuration beside it is read."""
    path = next(folder.glob("*.safetensors"))
    save_file(load_file(path), path, metadata={"format": "pt"})


def same(a, b):
    own, others = a.state_dict(), b.state_dict()
    assert own.keys() == others.keys()
    for name, value in own.items():
        assert torch.equal(value, others[name]), name


def same_view(a, b):
    assert (a.image_size, a.resize, a.resampling) == (b.image_size, b.resize, b.resampling)
    assert a.normalisation == b.normalisation
    assert a.trained_pooling == b.trained_pooling


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        *(("timm", kind) for kind in KINDS),
        *(("huggingface", kind) for kind in HUGGING_FACE),
        *(("cxrssl", kind) for kind in KINDS),
    ],
)
def test_round_trips_are_exact(tmp_path, layout, kind):
    vit = exported_vit(kind)
    back = load_encoder(export_encoder(vit, tmp_path / "out", layout))
    same(back, vit)
    assert back.arguments == vit.arguments
    same_view(back, vit)
    again = load_encoder(export_encoder(back, tmp_path / "again", layout))
    same(again, vit)


@pytest.mark.parametrize("kind", KINDS)
def test_timm_computes_the_same(tmp_path, kind):
    vit = exported_vit(kind, interpolation="size")
    out = export_encoder(vit, tmp_path / "out", "timm")
    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    arguments = json.loads((out / "config.json").read_text())
    named = timm.create_model(
        arguments["architecture"],
        num_classes=0,
        checkpoint_path=str(out / "model.safetensors"),
        **arguments["model_args"],
    ).eval()
    for size in [(32, 32), (48, 40), (16, 16)]:
        x = images(vit, *size)
        with torch.no_grad():
            assert_close(model.forward_features(x), sequence(vit, x), atol=1e-5, rtol=1e-5)
            pooled = vit(x).pool(vit.trained_pooling)
            for each in (model, named):
                assert_close(each(x), pooled, atol=1e-5, rtol=1e-5)
    cfg = timm.data.resolve_data_config({}, model=model)
    assert cfg["input_size"] == (vit.in_chans, 24, 24)
    assert cfg["crop_pct"] == pytest.approx(24 / 28)
    # Without our description too, and through timm's own model.
    without_description(out)
    for back in (load_encoder(out), encoder_from_timm(named)):
        assert_close(sequence(back, x), sequence(vit, x), atol=1e-5, rtol=1e-5)
    same_view(load_encoder(out), vit)


@pytest.mark.parametrize("kind", HUGGING_FACE)
def test_hugging_face_computes_the_same(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    mode = "size" if kind == "registers" else "plain"
    vit = exported_vit(kind, interpolation=mode, ffn_width=None)
    vit.pretrained_mask_token = torch.randn(1, 32)
    out = export_encoder(vit, tmp_path / "out", "huggingface")
    model, info = transformers.AutoModel.from_pretrained(out, output_loading_info=True)
    assert not any(info.values()), info
    assert type(model).__name__ == f"Dinov2{'WithRegisters' * (kind == 'registers')}Model"
    for size in [(32, 32), (48, 40), (16, 16)]:
        x = images(vit, *size)
        with torch.no_grad():
            outputs = model.eval()(x)
        assert_close(outputs.last_hidden_state, sequence(vit, x), atol=1e-5, rtol=1e-5)
        assert_close(outputs.pooler_output, vit(x).cls, atol=1e-5, rtol=1e-5)
    without_description(out)
    back = load_encoder(out)
    assert_close(sequence(back, x), sequence(vit, x), atol=1e-5, rtol=1e-5)
    assert torch.equal(back.pretrained_mask_token, vit.pretrained_mask_token)
    same_view(back, vit)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_image_processor_shows_what_the_view_shows(tmp_path, channels):
    transformers = pytest.importorskip("transformers")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    vit = exported_vit("plain", in_chans=channels)
    out = export_encoder(vit, tmp_path / "out", "huggingface")
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    grey = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    image = Image.fromarray(grey)
    theirs = processor(image, return_tensors="pt")["pixel_values"][0]
    ours = EvalView(**view_options(vit))(grey)["image"]
    assert theirs.shape == ours.shape == (channels, 24, 24)
    # Their resampling is torchvision's, which rounds differently from Pillow's.
    assert (theirs - ours).abs().max() < 3 / 255 / 0.2


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "cxrssl":
            raise ImportError("blocked")
sys.meta_path.insert(0, Blocked())
import torch, timm
model = timm.create_model("local-dir:" + sys.argv[1], pretrained=True).eval()
x = torch.ones(1, 1, 32, 32)
with torch.no_grad():
    theirs = [model.forward_features(x)]
if sys.argv[2]:
    from transformers import AutoModel
    theirs.append(AutoModel.from_pretrained(sys.argv[2]).eval()(x).last_hidden_state.detach())
assert "cxrssl" not in sys.modules
torch.save(theirs, sys.argv[3])
"""


def test_loads_where_cxrssl_is_not_installed(tmp_path):
    vit = exported_vit("plain")
    folders = [str(export_encoder(vit, tmp_path / name, name)) for name in ("timm", "huggingface")]
    result = str(tmp_path / "tokens.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("transformers")
    subprocess.run([sys.executable, "-c", BLOCKED, *folders, result], check=True, cwd=tmp_path)
    for theirs in torch.load(result, weights_only=True):
        assert_close(theirs, sequence(vit, torch.ones(1, 1, 32, 32)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_convnets_go_to_timm_or_are_refused(tmp_path, name):
    convnet = ConvNet(name, img_size=64).eval()
    if name == "convnext_atto":  # whose norm comes after the pooling
        with pytest.raises(InputError, match=r"differs from the encoder in head\.norm.*cxrssl"):
            export_encoder(convnet, tmp_path / "out", "timm")
        same(load_encoder(export_encoder(convnet, tmp_path / "own", "cxrssl")), convnet)
        return
    out = export_encoder(convnet, tmp_path / "out", "timm")
    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        assert_close(model.forward_features(x), convnet(x).map, atol=1e-5, rtol=1e-5)
    same(load_encoder(out), convnet)
    without_description(out)
    same(load_encoder(out), convnet)


@pytest.mark.parametrize(
    ("encoder", "layout", "message"),
    [
        (lambda: exported_vit("patches"), "huggingface", "has none: export to format timm"),
        (lambda: ConvNet("resnet18"), "huggingface", "is a ConvNet: export to format timm"),
        (lambda: exported_vit("folded"), "huggingface", "feed-forward layers of 40 at a width of"),
        (lambda: exported_vit("plain", gates=[1]), "timm", r"gates after levels \[1\].*drop_gates"),
        (lambda: exported_vit("plain", gates=[0]), "huggingface", "which Hugging Face cannot say"),
        (lambda: exported_vit("plain", norm_eps=1e-3), "timm", r"has eps 1e-06 in norm.* 0\.001"),
        (lambda: exported_vit("plain"), "onnx", "format must be timm, huggingface, cxrssl"),
    ],
)
def test_what_a_layout_cannot_say_is_refused(tmp_path, encoder, layout, message):
    with pytest.raises(InputError, match=message):
        export_encoder(encoder(), tmp_path / "out", layout)
    assert list(tmp_path.iterdir()) == []


def test_parts_that_hugging_face_has_no_name_for(tmp_path):
    vit = exported_vit("plain", name="vit_base_patch16_clip_224")
    with pytest.raises(InputError, match=r"have nothing like norm_pre\.weight"):
        export_encoder(vit, tmp_path / "out", "huggingface")
    quick = exported_vit("plain", name="vit_base_patch16_clip_quickgelu_224")
    with pytest.raises(InputError, match="feed-forward layers with QuickGELU"):
        export_encoder(quick, tmp_path / "out", "huggingface")
    same(load_encoder(export_encoder(quick, tmp_path / "timm", "timm")), quick)


def test_one_folder_is_one_export(tmp_path):
    vit = exported_vit("plain")
    out = export_encoder(vit, tmp_path / "out", "huggingface")
    with pytest.raises(InputError, match="is not empty: give a new folder, or --overwrite"):
        export_encoder(vit, out)
    export_encoder(vit, out, "timm", overwrite=True)
    names = {path.name for path in out.iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors"}
    (out / "notes.txt").write_text("keep me")
    with pytest.raises(InputError, match="holds other files than those of an export"):
        export_encoder(vit, out, overwrite=True)
    with pytest.raises(InputError, match="is a file: give a folder"):
        export_encoder(vit, out / "notes.txt")
    assert (out / "notes.txt").read_text() == "keep me"


@pytest.mark.parametrize("kind", ["plain", "registers", "patches"])
def test_torch_export_of_any_batch(kind):
    vit = exported_vit(kind, packed=False)
    x = images(vit, 32, 32)
    program = torch.export.export(vit, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    more = torch.cat([x, x + 1, x - 1])
    exported = program.module()(more)
    with torch.no_grad():
        tokens = vit(more)
    assert_close(exported.patches, tokens.patches)
    assert_close(exported.image, tokens.image)


def test_torch_export_of_a_convnet():
    convnet = ConvNet("resnet18", img_size=64).eval()
    x = torch.randn(2, 1, 64, 64)
    program = torch.export.export(convnet, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    more = torch.randn(3, 1, 64, 64)
    with torch.no_grad():
        assert_close(program.module()(more).patches, convnet(more).patches, atol=1e-4, rtol=1e-4)
