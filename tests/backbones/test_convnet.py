import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from cxrssl.backbones import ConvNet, ViT, load_backbone_weights
from cxrssl.errors import InputError


def small(**options):
    torch.manual_seed(0)
    return ConvNet("test_resnet", **({"img_size": 64} | options))


def test_levels_of_resnet18_are_the_published():
    net = ConvNet("resnet18", in_chans=3, gates=range(5)).eval()
    levels = net.levels(torch.randn(1, 3, 224, 224), range(5))
    assert [tuple(level.map.shape[1:]) for level in levels] == [
        (64, 112, 112),
        (64, 56, 56),
        (128, 28, 28),
        (256, 14, 14),
        (512, 7, 7),
    ]
    plain = sum(p.numel() for n, p in net.named_parameters() if not n.startswith("gates"))
    assert plain == 11_176_512  # torchvision's without its classifier
    gates = [sum(p.numel() for p in gate.parameters()) for gate in net.gates.values()]
    assert gates == [4194, 4194, 16482, 65634, 262242]


def test_tokens_are_the_pixels_of_the_last_map():
    net = small().eval()
    images = torch.randn(2, 1, 64, 96)
    tokens = net(images)
    assert tokens.cls is None
    assert tokens.registers.shape == (2, 0, 96)
    assert tokens.grid == (2, 3)
    assert_close(tokens.map, net.net(images)[-1])
    assert_close(tokens.image, net.net(images)[-1].mean((2, 3)))
    assert_close(net.levels(images, [1, -1])[0].map, net.net(images)[1])


def test_gates_stand_in_line():
    net = small(gates=[1, 4]).eval()
    x = torch.randn(2, 1, 64, 64)
    stem = net.net["act1"](net.net["bn1"](net.net["conv1"](x)))
    level = net.gates["1"](net.net["layer1"](net.net["maxpool"](stem)))
    last = net.gates["4"](net.net["layer4"](net.net["layer3"](net.net["layer2"](level))))
    assert_close(net(x).map, last)
    net.drop_gates()
    assert_close(net(x).map, net.net(x)[-1])
    assert net.arguments["gates"] == []


@pytest.mark.parametrize("zero", [True, False])
def test_residual_branches_start_at_zero_on_demand(zero):
    net = small(zero_init_residual=zero)
    norms = [m.bn2 if not hasattr(m, "bn3") else m.bn3 for m in net.net["layer4"]]
    assert all((norm.weight == 0).all() == zero for norm in norms)


def test_layers_are_the_levels():
    net = small(gates=[2])
    layers = {name: net.layer_of(name) for name, _ in net.named_parameters()}
    assert layers["net.conv1.0.weight"] == layers["net.bn1.weight"] == 0
    assert layers["net.layer1.0.conv1.weight"] == 1
    assert layers["gates.2.spatial.weight"] == 2
    assert max(layers.values()) == net.depth == 4
    assert ConvNet("convnext_atto", img_size=64).layer_of("net.stem_0.weight") == 0


@pytest.mark.parametrize("name", ["convnext_atto", "densenet121"])
def test_other_families_work(name):
    net = ConvNet(name, img_size=64).eval()
    levels = net.levels(torch.randn(1, 1, 64, 64), range(len(net.level_dims)))
    assert [level.patches.shape[2] for level in levels] == list(net.level_dims)


def test_one_pixel_in_bfloat16_on_a_cpu_is_refused():
    net, images = small(), torch.randn(2, 1, 32, 32)
    net(images)
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(InputError, match="maps of one pixel"),
    ):
        net(images)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"name": "resnot"}, "unknown backbone 'resnot'"),
        ({"name": "vit_tiny_patch16_224"}, "cannot be used"),
        ({"name": "efficientnet_b0"}, "its features come as a EfficientNetFeatures"),
        ({"name": "convnext_atto", "zero_init_residual": True}, "convnext_atto is none"),
        ({"in_chans": 0}, "must be positive"),
        ({"gates": [5]}, "numbers of levels from 0 to 4"),
    ],
)
def test_what_cannot_be_built_says_why(options, part):
    with pytest.raises(InputError, match=part):
        ConvNet(**options)


# Weights.


def mlvicx_checkpoint(net, head=True):
    """Return a gated ResNet's weights under the names of the official code."""
    numbers = {"conv1": "0", "bn1": "1", **{f"layer{n}": str(n + 3) for n in range(1, 5)}}
    state = {}
    for key, value in net.state_dict().items():
        room, module, rest = key.split(".", 2)
        if room == "net":
            state[f"online.encoder.{numbers[module]}.{rest}"] = value
        else:
            old = rest.replace("channel.", "cam.fc.").replace("spatial.", "sam.conv1.")
            state[f"online.encoder.cbt{int(module) + 1}.{old}"] = value
    if head:
        state["online.projector.l1.0.weight"] = torch.zeros(3, 3)
        state["online.resize_project.convs.0.weight"] = torch.zeros(3, 3)
    return state


def test_official_mlvicx_weights_are_recognised_by_name(tmp_path):
    options = {"name": "resnet18", "gates": range(5), "in_chans": 3}
    trained = ConvNet(**options)
    state = mlvicx_checkpoint(trained)
    # Order must not matter.
    torch.save({"state_dict": dict(reversed(state.items()))}, tmp_path / "m.pth")
    net = ConvNet(**options)
    for parameter in net.parameters():
        parameter.data.zero_()
    report = load_backbone_weights(net, tmp_path / "m.pth")
    assert report.format == "MLVICX"
    assert len(report.left_over) == 2
    assert_close(net.state_dict(), trained.state_dict())
    plain = ConvNet(in_chans=3)
    with pytest.raises(InputError, match="holds in-line gates and the backbone has none"):
        load_backbone_weights(plain, tmp_path / "m.pth")
    load_backbone_weights(plain, tmp_path / "m.pth", drop_gates=True)
    assert_close(plain.net.state_dict(), trained.net.state_dict())


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_timm_and_torchvision_names_with_any_prefix(tmp_path, prefix):
    full = timm.create_model("test_resnet", pretrained=False, in_chans=3)
    state = {prefix + key: value for key, value in full.state_dict().items()}
    save_file(state, tmp_path / "m.safetensors")
    net = small(gates=[4])
    report = load_backbone_weights(net, tmp_path / "m.safetensors")
    assert {key.rpartition(".")[0].removeprefix(prefix) for key in report.left_over} == {"fc"}
    assert report.resized == ["net.conv1.0.weight"]
    assert all(key.startswith("gates.4") for key in report.missing)
    grey = torch.randn(2, 1, 64, 64)
    net.drop_gates()
    wanted = full.eval().forward_features(grey.expand(-1, 3, -1, -1))
    assert_close(net.eval()(grey).map, wanted, atol=1e-5, rtol=1e-5)


def test_flattened_module_names(tmp_path):
    full = timm.create_model("convnext_atto", pretrained=False, num_classes=3)
    torch.save(full.state_dict(), tmp_path / "m.pth")
    net = ConvNet("convnext_atto", img_size=64, in_chans=3, weights=str(tmp_path / "m.pth"))
    images = torch.randn(1, 3, 64, 64)
    assert_close(net.eval()(images).map, full.eval().forward_features(images))
    assert net.load_report.format == "timm or torchvision"


def test_what_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "m.pth"
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    torch.save(state | {"layer4.0.conv1.weight": torch.zeros(2, 2, 1, 1)}, path)
    net = small()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(InputError, match="does not fit the backbone"):
        load_backbone_weights(net, path)
    assert_close(net.state_dict(), before)
    with pytest.raises(InputError, match="normalisation and resize_patch are for a ViT"):
        load_backbone_weights(net, path, resize_patch=True)
    vit = ViT("vit_tiny", img_size=32, width=32, depth=1, heads=1)
    torch.save(vit.state_dict(), path)
    with pytest.raises(InputError, match=r"holds no conv1\.0\.weight and so no such ConvNet"):
        load_backbone_weights(net, path)
