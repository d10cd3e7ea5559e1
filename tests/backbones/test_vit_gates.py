import pytest
import torch
from torch.testing import assert_close

from cxrssl.backbones import ViT, load_backbone_weights, load_encoder, pooled_dim
from cxrssl.errors import InputError
from tests.backbones.official import official_state, save_official, tiny_vit
from tests.backbones.test_weights import same


def gated_vit(scale=0.5, **options):
    """Return a small ViT of 5 x 5 patches with gates that are no identity."""
    torch.manual_seed(0)
    vit = tiny_vit(**({"gates": (0, 1), "layer_scale": 1.0} | options)).eval()
    with torch.no_grad():
        for number in vit.arguments["gates"]:
            vit.vit.blocks[number].gate.scale.fill_(scale)
    return vit


def reference(vit, x):
    """Return all tokens after every block, gated one image after the other."""
    tokens, grid = vit._embed(x, None, None, None)
    first, levels = vit.n_registers + vit.has_class_token, []
    for block in vit.vit.blocks:
        gate, block.gate = block.gate, None
        tokens = block(tokens).clone()
        block.gate = gate
        for row in tokens if gate is not None else ():
            level = row[first:].T.view(1, -1, *grid)
            whole = gate.bottleneck(level)
            row[first:] = (level + gate.scale * (whole - level)).flatten(2)[0].T
        levels.append(tokens)
    return levels


@pytest.mark.parametrize("options", [{}, {"registers": 3}, {"class_token": False}])
@pytest.mark.parametrize("gates", [(0,), (1,), (0, 1)])
def test_patches_are_gated_in_line_and_other_tokens_pass_by(gates, options):
    vit = gated_vit(gates=gates, **options)
    x = torch.randn(2, 3, 70, 56)
    with torch.no_grad():
        levels = reference(vit, x)
        tokens = vit(x)
        expected = vit._split(vit.vit.norm(levels[-1]), (5, 4))
        for number, level in enumerate(vit.levels(x, (0, 1), norm=False)):
            assert_close(level.patches, vit._split(levels[number], (5, 4)).patches)
    assert_close(tokens.patches, expected.patches)
    assert_close(tokens.registers, expected.registers)
    assert_close(tokens.cls, expected.cls)


def test_gates_start_as_the_identity_and_change_no_bit():
    vit, plain = gated_vit(scale=0.0), tiny_vit(layer_scale=1.0).eval()
    x = torch.randn(1, 3, 70, 70)
    plain.load_state_dict({k: v for k, v in vit.state_dict().items() if ".gate." not in k})
    assert torch.equal(vit(x).patches, plain(x).patches)
    assert torch.equal(vit(x).cls, plain(x).cls)


@pytest.mark.parametrize("packed", [False, True])
def test_several_sizes_in_one_pass_are_gated_each_on_its_grid(packed):
    vit = gated_vit(packed=packed)
    big, small = torch.randn(2, 3, 70, 70), torch.randn(3, 3, 28, 42)
    for tokens, alone in zip(vit.forward_many([big, small]), (vit(big), vit(small)), strict=True):
        assert_close(tokens.patches, alone.patches, atol=1e-5, rtol=1e-5)


def test_activation_checkpointing_with_gates_changes_no_gradient():
    vit = gated_vit(drop_path=0.4).train()
    crops = [torch.randn(4, 3, 70, 70), torch.randn(4, 3, 28, 28)]
    grads = []
    for flag in (False, True):
        vit.activation_checkpointing = flag
        torch.manual_seed(1)
        loss = sum(tokens.patches.square().sum() for tokens in vit.forward_many(crops))
        grads.append(torch.autograd.grad(loss, list(vit.parameters())))
    for a, b in zip(*grads, strict=True):
        assert_close(a, b)


def test_levels_of_a_checkpointed_vit_have_the_same_gradients():
    vit, x = gated_vit().train(), torch.randn(2, 3, 70, 70)
    grads = []
    for flag in (False, True):
        vit.activation_checkpointing = flag
        loss = sum(level.patches.square().sum() for level in vit.levels(x, (0, 1)))
        grads.append(torch.autograd.grad(loss, list(vit.parameters())))
    for a, b in zip(*grads, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("gates", [(0,), (1,)])
def test_wanted_tokens_are_those_of_a_whole_pass(gates):
    vit, x = gated_vit(gates=gates), torch.randn(2, 3, 70, 70)
    wanted = torch.tensor([[24, 0], [7, 7]])
    tokens = vit(x, wanted=wanted).patches
    assert_close(tokens[0], vit(x).patches[0, wanted[0]], atol=1e-5, rtol=1e-5)
    assert_close(tokens[1], vit(x).patches[1, wanted[1]], atol=1e-5, rtol=1e-5)


def test_patches_cannot_be_dropped_before_gates():
    with pytest.raises(
        InputError, match=r"keep drops patches, and the gates after blocks \[0, 1\]"
    ):
        gated_vit()(torch.zeros(1, 3, 70, 70), keep=torch.tensor([[0, 1]]))


def test_a_gated_block_needs_grids():
    with pytest.raises(InputError, match="needs the grids"):
        gated_vit().vit.blocks[0](torch.zeros(1, 26, 64))


def test_kernel_follows_the_grid():
    assert tiny_vit(gates=[-1]).arguments["gate_kernel"] == 3
    vit = tiny_vit(img_size=112, gates=[-1])
    assert (vit.arguments["gates"], vit.arguments["gate_kernel"]) == ([1], 7)
    assert vit.vit.blocks[1].gate.bottleneck.spatial.kernel_size == (7, 7)
    assert tiny_vit(img_size=112, gates=[0], gate_kernel=5).arguments["gate_kernel"] == 5


def test_gates_are_put_in_once_recorded_and_taken_out():
    vit = tiny_vit()
    plain = set(vit.state_dict())
    vit.insert_gates([1], 5)
    vit.insert_gates([1], 5)
    again = ViT(**vit.arguments)
    again.load_state_dict(vit.state_dict())
    with pytest.raises(InputError, match=r"so that none of kernel 3 can be put after \[1\]"):
        vit.insert_gates([1])
    vit.drop_gates()
    assert set(vit.state_dict()) == plain
    assert vit.arguments["gates"] == []


def test_layers_of_parameters():
    vit = tiny_vit(gates=[1], registers=2)
    layers = {name: vit.layer_of(name) for name, _ in vit.named_parameters()}
    first = ("pos_embed", "patch_embed.proj.weight", "cls_token", "reg_token")
    assert {layers[f"vit.{name}"] for name in first} == {0}
    assert layers["vit.blocks.0.attn.qkv.weight"] == 1
    assert layers["vit.blocks.1.gate.scale"] == layers["vit.blocks.1.mlp.fc1.bias"] == 2
    assert layers["vit.norm.weight"] == vit.depth + 1 == 3


def test_widths():
    vit = tiny_vit(in_chans=1)
    assert (vit.depth, vit.level_dims, vit.in_chans, vit.img_size) == (2, (64, 64), 1, 70)
    assert [pooled_dim(vit, pooling) for pooling in ("class", "mean", "both")] == [64, 64, 128]
    assert pooled_dim(tiny_vit(class_token=False), "both") == 64


def test_final_norm_of_all_levels_of_none_or_of_the_last_block_alone():
    vit, x = tiny_vit().eval(), torch.randn(1, 3, 70, 70)
    raw, normed = (vit.levels(x, (0, 1), norm=norm) for norm in (False, True))
    stem, first, last = vit.levels(x, (0, -1), norm="last", stem=True)
    assert torch.equal(first.patches, raw[0].patches)
    assert torch.equal(last.patches, normed[1].patches)
    assert not torch.allclose(last.patches, raw[1].patches)
    embedded = vit.vit.patch_embed(x).flatten(1, 2) + vit.position_tokens((5, 5))
    assert_close(stem.patches, embedded)
    with pytest.raises(InputError, match=r"levels -2 to 1, got \[2\]"):
        vit.levels(x, (0, 2))


def test_pretrained_weights_leave_gates_at_their_start_and_say_so(tmp_path):
    source, vit = tiny_vit(), tiny_vit(gates=[1])
    start = {k: v.clone() for k, v in vit.state_dict().items() if ".gate." in k}
    report = load_backbone_weights(vit, save_official(official_state(source), tmp_path / "m.pth"))
    assert report.missing == [name.removeprefix("vit.") for name in start]
    assert "missing: blocks.1.gate.scale" in str(report)
    assert all(torch.equal(v, vit.state_dict()[k]) for k, v in start.items())
    x = torch.randn(1, 3, 70, 70)
    assert torch.equal(vit.eval()(x).patches, source.eval()(x).patches)


def described(backbone, path, place=""):
    about = {"class": type(backbone).__name__, "arguments": backbone.arguments}
    prefix = f"{place}." if place else ""
    state = {f"{prefix}{key}": value for key, value in backbone.state_dict().items()}
    about = {"backbone": about, "encoder": place}
    torch.save({"state_dict": state, "cxrssl": about}, path)
    return path


def test_a_gated_encoder_comes_back_with_or_without_its_gates(tmp_path):
    vit, x = gated_vit(gates=[1]), torch.randn(1, 3, 70, 70)
    path = described(vit, tmp_path / "run.ckpt", "teacher.module")
    same(load_encoder(path), vit)
    assert torch.equal(load_encoder(path)(x).patches, vit(x).patches)
    plain = load_encoder(path, drop_gates=True)
    vit.drop_gates()
    same(plain, vit)


def test_gates_of_a_file_are_not_lost_in_silence(tmp_path):
    path = described(gated_vit(gates=[1]), tmp_path / "run.ckpt")
    with pytest.raises(
        InputError, match=r"holds gates \(blocks\.1\.gate\.scale.* build the backbone"
    ):
        load_backbone_weights(tiny_vit(), path)
    with pytest.raises(
        InputError, match=r"missing there: blocks\.0\.gate.*unknown here: blocks\.1"
    ):
        load_backbone_weights(tiny_vit(gates=[0]), path)


def test_an_encoder_that_lacks_its_gates_is_refused(tmp_path):
    vit = gated_vit(gates=[1])
    about = {"backbone": {"class": "ViT", "arguments": vit.arguments}, "encoder": ""}
    state = {k: v for k, v in vit.state_dict().items() if ".gate." not in k}
    torch.save({"state_dict": state, "cxrssl": about}, tmp_path / "run.ckpt")
    with pytest.raises(InputError, match="lacks gates that it describes"):
        load_encoder(tmp_path / "run.ckpt")
