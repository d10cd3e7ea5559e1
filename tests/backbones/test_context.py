import pytest
import torch
from torch.testing import assert_close

from cxrssl.backbones import ContextBottleneck, ResidualGate, ViT
from cxrssl.errors import InputError
from tests.golden import load_golden

EXACT = {"atol": 1e-12, "rtol": 1e-9}


def test_golden():
    golden = load_golden("mlvicx/context_bottleneck.npz")
    gate = ContextBottleneck(16).double()
    gate.load_state_dict(
        {
            "channel.0.weight": golden["w_cam.fc.0.weight"],
            "channel.2.weight": golden["w_cam.fc.2.weight"],
            "spatial.weight": golden["w_sam.conv1.weight"],
        }
    )
    x = golden["x"]
    assert_close(gate.channel_gate(x), golden["cam"], **EXACT)
    assert_close(gate.spatial_gate(golden["cam"] * x), golden["sam"], **EXACT)
    assert_close(gate(x), golden["out"], **EXACT)


@pytest.mark.parametrize(("dim", "parameters"), [(64, 4194), (128, 16482), (512, 262242)])
def test_number_of_parameters_is_the_published(dim, parameters):
    assert sum(p.numel() for p in ContextBottleneck(dim).parameters()) == parameters


def test_a_fresh_gate_leaves_about_a_quarter():
    torch.manual_seed(0)
    x = torch.rand(4, 64, 14, 14)
    assert 0.15 < (ContextBottleneck(64)(x) / x).mean() < 0.35


def test_options_out_of_range_are_refused():
    with pytest.raises(InputError, match=r"reduction must be in \[1, 4\], got 5"):
        ContextBottleneck(4, reduction=5)
    with pytest.raises(InputError, match="kernel must be odd and positive, got 4"):
        ContextBottleneck(4, kernel=4)


def test_a_residual_gate_starts_as_the_identity_and_leaves_the_prefix_alone():
    torch.manual_seed(0)
    gate, tokens = ResidualGate(8, kernel=3), torch.randn(2, 3 + 12, 8)
    assert torch.equal(gate(tokens, (3, 4), 3), tokens)
    gate.scale.data.fill_(1.0)
    gated = gate(tokens, (3, 4), 3)
    assert torch.equal(gated[:, :3], tokens[:, :3])
    level = tokens[:, 3:].transpose(1, 2).unflatten(2, (3, 4))
    assert_close(gated[:, 3:], gate.bottleneck(level).flatten(2).transpose(1, 2))


def gated_vit(**options):
    torch.manual_seed(0)
    defaults = {"img_size": 32, "patch_size": 8, "width": 32, "depth": 3, "heads": 2}
    vit = ViT("vit_tiny", **(defaults | options), registers=1, gates=(0, 2), gate_kernel=3)
    for gate in vit.gates.values():
        gate.scale.data.fill_(0.5)
    return vit


def test_gates_of_a_vit_act_behind_their_blocks_on_every_size_of_crop():
    vit = gated_vit().eval()
    large, small = torch.randn(2, 1, 32, 32), torch.randn(2, 1, 16, 16)
    together = vit.forward_many([large, small])
    for crop, tokens, side in ((large, together[0], 4), (small, together[1], 2)):
        x, grid = vit._embed(crop, None, None, None)
        assert grid == (side, side)
        x = vit.gates["0"](vit.vit.blocks[0](x), grid, 2)
        x = vit.gates["2"](vit.vit.blocks[2](vit.vit.blocks[1](x)), grid, 2)
        assert_close(tokens.patches, vit.vit.norm(x)[:, 2:])
        assert_close(vit.levels(crop, [2])[0].patches, tokens.patches)
    wanted = torch.tensor([[1, 5], [0, 3]])
    some = vit(large, wanted=wanted).patches
    assert_close(some, torch.stack([together[0].patches[i, wanted[i]] for i in range(2)]))


def test_gates_are_recomputed_with_checkpointing():
    images = torch.randn(2, 1, 32, 32)
    plain, saving = gated_vit(), gated_vit(activation_checkpointing=True)
    for vit in (plain, saving):
        vit(images).patches.square().sum().backward()
    for ours, theirs in zip(plain.parameters(), saving.parameters(), strict=True):
        assert_close(ours.grad, theirs.grad)


def test_gates_need_whole_maps():
    with pytest.raises(InputError, match="gates need whole maps"):
        gated_vit()(torch.randn(2, 1, 32, 32), keep=torch.tensor([[0, 1], [2, 3]]))


def test_gates_are_part_of_the_description_of_a_backbone():
    vit = gated_vit()
    assert vit.arguments["gates"] == [0, 2]
    again = ViT(**vit.arguments)
    again.load_state_dict(vit.state_dict())
    with pytest.raises(InputError, match=r"the backbone has gates already, at \[0, 2\]"):
        vit.insert_gates([1])
    with pytest.raises(InputError, match=r"numbers of levels from 0 to 2, got \[3\]"):
        ViT(**(vit.arguments | {"gates": [3]}))
    vit.drop_gates()
    assert not any("gates" in name for name in vit.state_dict())
    assert vit.layer_of("gates.1.scale") == 2
