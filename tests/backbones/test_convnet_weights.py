import json

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch.testing import assert_close

from cxrssl.backbones import ConvNet, load_backbone_weights, load_encoder
from cxrssl.backbones.weights import load_state
from cxrssl.errors import InputError
from tests.backbones.official import mlvicx_state, official_state, save_official, tiny_vit
from tests.backbones.test_vit_gates import described

HEADS = ["projetion.l1.0.weight", "resize_project.conv_head.projection.2.weight"]


def resnet(**options):
    return ConvNet("resnet18", **({"img_size": 64, "in_chans": 3} | options))


@pytest.fixture(scope="module")
def source():
    """Return a gated ResNet-18 whose every tensor differs from its start."""
    torch.manual_seed(0)
    convnet = resnet(gates=True).eval()
    for value in convnet.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand_like(value) / 10)
        else:
            value.fill_(7)
    return convnet


def small(**options):
    return ConvNet("test_resnet", **({"img_size": 64, "in_chans": 3} | options))


def timm_state(name="test_resnet"):
    return timm.create_model(name, pretrained=False).state_dict()


def same(ours, state):
    for name, value in ours.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("kind", ["full", "encoder", "flat", "wrapped"])
def test_official_mlvicx_files(tmp_path, source, kind):
    state = mlvicx_state(source)
    content = {
        # What the published code writes: the whole model, and the encoder with its heads.
        "full": {"model": {f"encoder.{k}": v for k, v in state.items()}, "epoch": 10},
        "encoder": {"online": state},
        "flat": {f"online.{k}": v for k, v in state.items()},
        "wrapped": {"state_dict": {f"module.encoder.{k}": v for k, v in state.items()}},
    }[kind]
    convnet = resnet(gates=True)
    report = load_backbone_weights(convnet, save_official(content, tmp_path / "mlvicx.pth"))
    same(convnet, source.state_dict())
    assert report.format == "official MLVICX"
    assert report.left_over == HEADS
    assert report.missing == report.resized == []
    assert len(report.matched) == 120 + 15


def test_mlvicx_gates_inside_the_sequence(tmp_path, source):
    state = {
        f"encoder.{k}" if k.startswith("cbt") else k: v for k, v in mlvicx_state(source).items()
    }
    convnet = resnet(gates=True)
    load_backbone_weights(convnet, save_official(state, tmp_path / "m.pth"))
    same(convnet, source.state_dict())


def test_gates_of_mlvicx_are_not_lost_in_silence(tmp_path, source):
    path = save_official({"online": mlvicx_state(source)}, tmp_path / "mlvicx.pth")
    convnet = resnet()
    before = {k: v.clone() for k, v in convnet.state_dict().items()}
    with pytest.raises(InputError, match=r"holds gates \(gates\.0\.down\.weight.*drop_gates\(\)"):
        load_backbone_weights(convnet, path)
    same(convnet, before)
    gated = resnet(gates=True, weights=path)
    gated.drop_gates()
    same(gated, source.state_dict())


def test_torchvision_resnet18(tmp_path):
    theirs = torchvision.models.resnet18().eval()
    # Files of old versions have no counters of batch norms.
    state = {k: v for k, v in theirs.state_dict().items() if "num_batches" not in k}
    convnet = resnet(weights=save_official(state, tmp_path / "resnet18.pth")).eval()
    report = convnet.load_report
    assert (report.missing, report.left_over) == ([], ["fc.weight", "fc.bias"])
    assert len(report.matched) == 100
    theirs.fc = torch.nn.Identity()
    x = torch.randn(1, 3, 64, 64)
    assert_close(convnet(x).image, theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prefix", ["", "module.", "encoder.", "backbone.", "module.encoder_q."])
def test_timm_names_below_any_prefix(tmp_path, prefix):
    theirs = timm_state()
    state = {f"{prefix}{name}": value for name, value in theirs.items()}
    convnet = small()
    path = save_official({"state_dict": state}, tmp_path / "resnet.pth")
    report = load_backbone_weights(convnet, path)
    assert report.left_over == ["fc.weight", "fc.bias"]
    assert report.format == "timm or torchvision"
    same(convnet, {f"net.{name}": value for name, value in theirs.items()})


@pytest.mark.parametrize(
    ("name", "left_over"),
    [
        ("test_convnext", {"head"}),
        ("densenet121", {"classifier"}),
        ("mobilenetv3_small_100", {"conv_head", "classifier"}),
        ("test_efficientnet", {"conv_head", "bn2", "classifier"}),
    ],
)
def test_timm_models_that_are_flattened(tmp_path, name, left_over):
    theirs = timm.create_model(name, pretrained=False).eval()
    path = tmp_path / "model.safetensors"
    save_file(theirs.state_dict(), path)
    convnet = ConvNet(name, img_size=64, in_chans=3).eval()
    report = load_backbone_weights(convnet, path)
    assert {key.split(".")[0] for key in report.left_over} == left_over
    assert len(report.matched) == len(convnet.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert_close(convnet(x).map, theirs.forward_intermediates(x, intermediates_only=True)[-1])


def test_grey_kernel_equals_a_grey_image_in_three_channels(tmp_path):
    path = save_official(timm_state(), tmp_path / "m.pth")
    colour, grey = small(weights=path).eval(), small(in_chans=1, weights=path).eval()
    assert grey.load_report.resized == ["net.conv1.0.weight"]
    x = torch.randn(1, 1, 64, 64)
    assert_close(grey(x).map, colour(x.expand(-1, 3, -1, -1)).map, atol=1e-5, rtol=1e-4)


def test_fresh_gates_keep_their_start_and_are_reported(tmp_path):
    convnet = small(gates=[0, 4])
    start = {k: v.clone() for k, v in convnet.state_dict().items() if k.startswith("gates.")}
    report = load_backbone_weights(convnet, save_official(timm_state(), tmp_path / "m.pth"))
    assert report.missing == list(start)
    assert all(torch.equal(v, convnet.state_dict()[k]) for k, v in start.items())


@pytest.mark.parametrize("place", ["", "backbone", "objectives.mlvicx.backbone"])
def test_our_own_checkpoints(tmp_path, place):
    source = small(gates=[0, 4])
    path = described(source, tmp_path / "run.ckpt", place)
    encoder = load_encoder(path)
    assert type(encoder) is ConvNet
    assert not encoder.training
    same(encoder, source.state_dict())
    assert encoder.arguments == source.arguments
    plain = load_encoder(path, drop_gates=True)
    assert plain.arguments["gates"] == []
    assert not any("gate" in name for name in plain.state_dict())
    convnet = small(gates=[0, 4])
    assert load_backbone_weights(convnet, path).format == "cxrssl"
    same(convnet, source.state_dict())


def test_our_own_encoder_file(tmp_path):
    torch.manual_seed(0)
    source = small(gates=[1])
    about = {"backbone": {"class": "ConvNet", "arguments": source.arguments}, "encoder": "backbone"}
    path = tmp_path / "encoder.safetensors"
    save_file(source.state_dict(), path, metadata={"cxrssl": json.dumps(about)})
    same(load_encoder(path), source.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer1.0.bn1.weight"), r"missing there: net\.layer1\.0\.bn1\.weight"),
        (lambda s: s.update({"layer5.0": torch.zeros(1)}), r"unknown here: layer5\.0"),
        (lambda s: s.update({"bn1.bias": torch.zeros(3)}), r"net\.bn1\.bias is \(3,\) there"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_changed(tmp_path, change, message):
    state = timm_state()
    change(state)
    convnet = small()
    before = {k: v.clone() for k, v in convnet.state_dict().items()}
    with pytest.raises(InputError, match=message):
        load_backbone_weights(convnet, save_official(state, tmp_path / "m.pth"))
    same(convnet, before)


def test_files_of_other_architectures_are_refused(tmp_path):
    vit = save_official(official_state(tiny_vit()), tmp_path / "vit.pth")
    message = r"holds no ConvNet of this architecture .* no conv1\.0\.weight"
    with pytest.raises(InputError, match=message):
        load_backbone_weights(small(), vit)
    with pytest.raises(InputError, match=r"no weights that start with 'encoder\.'"):
        load_backbone_weights(small(), vit, prefix="encoder.")
    deeper = save_official(timm_state("resnet26d"), tmp_path / "resnet26d.pth")
    with pytest.raises(InputError, match=r"net\.conv1\.0\.weight is \(32, .* unknown here: net\.l"):
        load_backbone_weights(small(), deeper)


def test_options_of_a_vit_are_refused(tmp_path):
    convnet, path = small(), save_official(timm_state(), tmp_path / "m.pth")
    for options in ({"normalisation": ((0.4, 0.2), (0.5, 0.3))}, {"resize_patch": True}):
        with pytest.raises(InputError, match="a ConvNet takes neither"):
            load_backbone_weights(convnet, path, **options)


def test_another_encoder_by_its_prefix(tmp_path):
    first, second = timm_state(), timm_state()
    state = {f"encoder_q.{k}": v for k, v in first.items()}
    state |= {f"encoder_momentum.{k}": v for k, v in second.items()}
    path = save_official(state, tmp_path / "m.pth")
    convnet = small()
    load_backbone_weights(convnet, path, prefix="encoder_momentum.")
    same(convnet, {f"net.{name}": value for name, value in second.items()})


def test_encoders_of_unknown_classes_are_refused(tmp_path):
    source = small()
    about = {"backbone": {"class": "Mine", "arguments": {}}, "encoder": ""}
    torch.save({"state_dict": source.state_dict(), "cxrssl": about}, tmp_path / "m.ckpt")
    with pytest.raises(InputError, match=r"holds a Mine, which is no backbone of cxrssl"):
        load_encoder(tmp_path / "m.ckpt")


def test_states_of_convnets_are_no_vit():
    with pytest.raises(InputError, match="holds no ViT"):
        load_state(tiny_vit(), timm_state(), "memory")
