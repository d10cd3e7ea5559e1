import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from cxrssl.backbones import Backbone, ConvNet, pooled_dim
from cxrssl.errors import InputError


def small_convnet(**options):
    return ConvNet("test_resnet", **({"img_size": 64} | options))


def test_levels_of_a_resnet18_are_the_published_stages():
    convnet = ConvNet("resnet18", gates=True)
    assert convnet.level_dims == (64, 64, 128, 256, 512)
    assert convnet.grid == (7, 7)
    assert convnet.depth == 4
    levels = (
        convnet(torch.randn(1, 1, 96, 96)),
        *convnet.levels(torch.randn(2, 1, 96, 96), range(5)),
    )
    assert [level.grid[0] for level in levels] == [3, 48, 24, 12, 6, 3]
    gates = sum(p.numel() for p in convnet.gates.parameters())
    assert gates == 4194 + 4194 + 16482 + 65634 + 262242
    assert len(convnet.net.state_dict()) == 120


def test_tokens_are_the_pixels_of_the_last_map():
    convnet = small_convnet().eval()
    x = torch.randn(2, 1, 64, 96)
    tokens = convnet(x)
    expected = convnet.net(x)
    assert tokens.cls is None
    assert tokens.registers.shape == (2, 0, 96)
    assert tokens.grid == (2, 3)
    assert torch.equal(tokens.map, expected[-1])
    for level, wanted in zip(convnet.levels(x, (0, 2, -1)), (0, 2, 4), strict=True):
        assert torch.equal(level.map, expected[wanted])
    assert pooled_dim(convnet, "both") == tokens.pool("both").shape[1] == 96


@pytest.mark.parametrize(
    "name",
    ["test_convnext", "test_efficientnet", "densenet121", "mobilenetv3_small_100", "regnety_002"],
)
def test_other_models_give_what_timm_gives(name):
    convnet = ConvNet(name, img_size=64, in_chans=3).eval()
    theirs = timm.create_model(name, features_only=True, pretrained=False).eval()
    ours = convnet.net.state_dict()
    state = {k: ours[k if k in ours else k.replace(".", "_", 1)] for k in theirs.state_dict()}
    theirs.load_state_dict(state)
    x = torch.randn(1, 3, 64, 64)
    levels = convnet.levels(x, range(len(convnet.level_dims)))
    for level, expected in zip(levels, theirs(x), strict=True):
        assert torch.equal(level.map, expected)


def test_odd_sizes_and_sizes_that_are_too_small():
    convnet = small_convnet()
    assert convnet(torch.randn(2, 1, 75, 33)).grid == (3, 2)
    with pytest.raises(InputError, match="images of 15 x 64 px are too small for test_resnet"):
        convnet(torch.randn(2, 1, 15, 64))
    with pytest.raises(InputError, match="images of 20 x 20 px are too small for test_convnext"):
        ConvNet("test_convnext", img_size=64)(torch.randn(2, 1, 20, 20))


def test_gates_are_in_line():
    convnet = small_convnet(gates=[0, 3], gate_kernel=3).eval()
    x = torch.randn(2, 1, 64, 64)
    net, gates = convnet.net, convnet.gates
    first = gates["0"](net.act1(net.bn1(net.conv1(x))))
    second = net.layer1(net.maxpool(first))
    fourth = gates["3"](net.layer3(net.layer2(second)))
    levels = [level.map for level in convnet.levels(x, range(5))]
    assert_close(levels[0], first)
    assert_close(levels[1], second)
    assert_close(levels[3], fourth)
    assert_close(levels[4], net.layer4(fourth))
    assert_close(convnet(x).map, levels[4])


def test_gates_can_be_put_in_and_taken_out_again():
    convnet, x = small_convnet().eval(), torch.randn(2, 1, 64, 64)
    plain = convnet(x).patches
    convnet.insert_gates()
    assert (convnet.arguments["gates"], convnet.arguments["gate_kernel"]) == ([0, 1, 2, 3, 4], 7)
    before = convnet.state_dict()
    convnet.insert_gates(range(5), 7)  # they are there
    assert all(torch.equal(v, before[k]) for k, v in convnet.state_dict().items())
    assert not torch.allclose(convnet(x).patches, plain)
    with pytest.raises(InputError, match=r"has gates of kernel 7 after levels \[0, 1, 2, 3, 4\]"):
        convnet.insert_gates([-1], 3)
    convnet.drop_gates()
    assert torch.equal(convnet(x).patches, plain)
    assert convnet.arguments["gates"] == []
    with pytest.raises(InputError, match=r"levels -5 to 4, got \[5\]"):
        convnet.insert_gates([0, 5])


def test_gates_get_the_backbones_precision():
    convnet = small_convnet().double()
    convnet.insert_gates([1], 3)
    assert {p.dtype for p in convnet.parameters()} == {torch.float64}


@pytest.mark.parametrize("gates", [False, True, [0, 2]])
def test_arguments_build_it_again(gates):
    convnet = small_convnet(gates=gates, gate_kernel=3 if gates else None, in_chans=3)
    again = type(convnet)(**convnet.arguments)
    again.load_state_dict(convnet.state_dict())
    assert again.arguments == convnet.arguments


def test_every_parameter_gets_a_gradient():
    convnet = small_convnet(gates=True)
    convnet(torch.randn(4, 1, 64, 64)).patches.square().sum().backward()
    assert [n for n, p in convnet.named_parameters() if p.grad is None] == []


def test_residual_branches_start_at_0_on_demand():
    zero, usual = (
        ConvNet("resnet18", img_size=32, zero_init_residual=z).net.layer1[0].bn2.weight
        for z in (True, False)
    )
    assert torch.equal(zero, torch.zeros(64))
    assert torch.equal(usual, torch.ones(64))


def layers(convnet):
    return {name: convnet.layer_of(name) for name, _ in convnet.named_parameters()}


def test_layers_of_a_resnet():
    convnet = small_convnet(gates=True)
    found = layers(convnet)
    for name, layer in found.items():
        room, child, *_ = name.split(".")
        stage = int(child) if room == "gates" else {"conv1": 0, "bn1": 0}.get(child)
        assert layer == (int(child[-1]) if stage is None else stage), name
    assert convnet.layer_of("head.weight") == convnet.depth + 1 == 5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_convnext", {"stem_0": 0, "stem_1": 0, "stages_0": 1, "stages_3": 4}),
        (
            "densenet121",
            {"features_conv0": 0, "features_denseblock1": 1, "features_transition1": 2},
        ),
        ("test_efficientnet", {"conv_stem": 0, "bn1": 0, "blocks_0": 0, "blocks_1": 1}),
    ],
)
def test_layers_of_other_models(name, expected):
    found = layers(ConvNet(name, img_size=64))
    for child, layer in expected.items():
        assert {v for k, v in found.items() if k.startswith(f"net.{child}.")} == {layer}
    assert max(found.values()) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet0"}, "unknown backbone 'resnet0'"),
        ({"name": "vit_tiny_patch16_224"}, "takes its features with a FeatureGetterNet"),
        ({"name": "hrnet_w18_small"}, "takes its features with a HighResolutionNetFeatures"),
        ({"name": "swin_tiny_patch4_window7_224"}, "its features are no maps"),
        ({"name": "test_convnext", "zero_init_residual": True}, "not for test_convnext"),
        ({"img_size": 31}, "img_size must be at least the stride 32 of test_resnet, got 31"),
        ({"in_chans": 0}, "in_chans must be positive, got 0"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InputError, match=message):
        ConvNet(**({"name": "test_resnet", "img_size": 224} | options))


def test_a_convnet_has_no_stem_beside_its_levels():
    with pytest.raises(InputError, match="ask for level 0"):
        small_convnet().levels(torch.randn(1, 1, 64, 64), [1], stem=True)


class Pixels(Backbone):
    """What a user's own backbone must define, and no more."""

    def __init__(self):
        super().__init__()
        self.arguments = {}
        self.embed_dim, self.level_dims, self.depth = 1, (1,), 1
        self.layer = nn.Identity()

    def forward(self, x):
        return self.levels(x, [0])[0]

    def levels(self, x, levels, norm=True, stem=False):
        raise NotImplementedError

    def layer_of(self, name):
        return 1


def test_a_backbone_of_a_user_has_no_gates_unless_it_says_how():
    backbone = Pixels()
    assert backbone.load_report is None
    backbone.drop_gates()
    backbone.register_parameter("weight", nn.Parameter(torch.zeros(1)))
    with pytest.raises(InputError, match="Pixels has no gates"):
        backbone.insert_gates()
