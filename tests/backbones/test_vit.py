import pytest
import torch
from torch.testing import assert_close

from cxrssl.backbones import ViT, load_backbone_weights
from tests.backbones.official import save_official, tiny_vit
from tests.golden import load_golden, subset

SIZES = ["native", "big", "rect", "small"]


@pytest.fixture(params=["noreg", "reg4"])
def golden_vit(request, tmp_path):
    golden = load_golden(f"dinov2/vit_tiny_{request.param}.npz")
    with_registers = request.param == "reg4"
    vit = tiny_vit(
        registers=4 if with_registers else 0,
        interpolation="size" if with_registers else "offset",
    )
    load_backbone_weights(vit, save_official(subset(golden, "sd/"), tmp_path / "vit.pth"))
    return vit.eval(), golden


@pytest.mark.parametrize("size", SIZES)
def test_golden_tokens(golden_vit, size):
    vit, golden = golden_vit
    x, mask = golden[f"{size}/x"], golden[f"{size}/mask"]
    for prefix, tokens in {
        f"{size}/": vit(x),
        f"{size}/masked/": vit(x, mask=mask, mask_token=vit.pretrained_mask_token),
    }.items():
        assert_close(tokens.cls, golden[f"{prefix}x_norm_clstoken"], atol=1e-4, rtol=1e-4)
        assert_close(tokens.registers, golden[f"{prefix}x_norm_regtokens"], atol=1e-4, rtol=1e-4)
        assert_close(tokens.patches, golden[f"{prefix}x_norm_patchtokens"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", SIZES[1:])
def test_golden_levels(golden_vit, size):
    vit, golden = golden_vit
    for number, tokens in enumerate(vit.levels(golden[f"{size}/x"], levels=(0, -1))):
        image = tokens.patches.transpose(1, 2).unflatten(2, tokens.grid)
        assert_close(image, golden[f"{size}/inter{number}_patch_nchw"], atol=1e-4, rtol=1e-4)
        assert_close(tokens.cls, golden[f"{size}/inter{number}_cls"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", [{}, {"registers": 3}, {"class_token": False}])
def test_several_sizes_in_one_pass_equal_separate_passes(packed, options):
    torch.manual_seed(0)
    vit = tiny_vit(packed=packed, layer_scale=1.0, **options)
    token = torch.randn(1, 64, requires_grad=True)
    big, small = torch.randn(3, 3, 70, 70), torch.randn(5, 3, 28, 42)
    mask = torch.rand(3, 25) < 0.4
    together = vit.forward_many([big, small], masks=[mask, None], mask_token=token)
    apart = [vit(big, mask=mask, mask_token=token), vit(small)]
    for a, b in zip(together, apart, strict=True):
        assert_close(a.patches, b.patches, atol=1e-5, rtol=1e-5)
        assert_close(a.image, b.image, atol=1e-5, rtol=1e-5)
    grads = [
        torch.autograd.grad(
            sum(t.patches.square().sum() for t in tokens), list(vit.parameters()), allow_unused=True
        )
        for tokens in (together, apart)
    ]
    for a, b in zip(*grads, strict=True):
        assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_masked_patches_do_not_depend_on_their_pixels():
    vit = tiny_vit().eval()
    x, token = torch.randn(2, 3, 70, 70), torch.randn(64)
    mask = torch.zeros(2, 25, dtype=torch.bool)
    mask[:, 7] = True
    changed = x.clone()
    changed[:, :, 14:28, 28:42] += 5  # patch 7 is row 1, column 2
    before = vit(x, mask=mask, mask_token=token)
    after = vit(changed, mask=mask, mask_token=token)
    assert_close(before.patches, after.patches)
    with pytest.raises(ValueError, match="needs a mask_token"):
        vit(x, mask=mask)


def test_dropped_patches_have_no_influence_and_kept_ones_their_position():
    vit = tiny_vit(layer_scale=1.0).eval()
    x = torch.randn(2, 3, 70, 70)
    everything = torch.arange(25).expand(2, -1)
    assert_close(vit(x, keep=everything).patches, vit(x).patches, atol=1e-5, rtol=1e-5)
    keep = torch.tensor([[0, 3, 24], [5, 6, 7]])
    tokens = vit(x, keep=keep)
    assert tokens.patches.shape == (2, 3, 64)
    assert tokens.grid == (5, 5)
    changed = x.clone()
    changed[0, :, :14, 14:28] += 5  # patch 1 is dropped in image 0
    assert_close(vit(changed, keep=keep).patches, tokens.patches)


@pytest.mark.parametrize("packed", [False, True])
def test_every_parameter_gets_a_gradient(packed):
    vit = tiny_vit(registers=2, drop_path=0.3, layer_scale=1.0, packed=packed).train()
    tokens = vit.forward_many([torch.randn(4, 3, 70, 70), torch.randn(4, 3, 28, 28)])
    sum(t.patches.sum() + t.cls.square().sum() for t in tokens).backward()
    assert [n for n, p in vit.named_parameters() if p.grad is None] == []


def test_activation_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    vit = tiny_vit(drop_path=0.4, layer_scale=1.0).train()
    x = torch.randn(4, 3, 70, 70)
    grads = []
    for flag in (False, True):
        vit.activation_checkpointing = flag
        torch.manual_seed(1)
        grads.append(torch.autograd.grad(vit(x).patches.square().sum(), list(vit.parameters())))
    for a, b in zip(*grads, strict=True):
        assert_close(a, b)


def test_sincos_positions_are_fixed():
    vit = tiny_vit(position="sincos")
    assert not vit.vit.pos_embed.requires_grad
    table = vit.position_tokens((5, 5))[0]
    # Patch (row 0, column 1): sine of the column's first frequency, then the row's sines are 0.
    assert table[1, 0].item() == pytest.approx(0.8414710)
    assert table[1, 32].item() == 0
    assert table[5, 32].item() == pytest.approx(0.8414710)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vit_enormous"}, "unknown backbone 'vit_enormous'"),
        ({"name": "resnet18"}, "only timm's VisionTransformer"),
        ({"heads": 5}, "width must be a multiple of heads, got width 192 and heads 5"),
        ({"drop_path": 1.0}, r"drop_path must be in \[0, 1\), got 1.0"),
        ({"init": "mae"}, "init must be 'timm' or 'jepa', got 'mae'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ViT(**({"name": "vit_tiny", "img_size": 32} | options))


def test_image_sides_must_be_multiples_of_the_patch():
    with pytest.raises(ValueError, match="multiples of the patch size 14, got 70 x 71"):
        tiny_vit()(torch.zeros(1, 3, 70, 71))


@pytest.mark.parametrize(("name", "parameters"), [("vits14", 22056576), ("vitb14", 86580480)])
def test_parameter_counts_of_released_models(name, parameters):
    size = {"vits14": "vit_small", "vitb14": "vit_base"}[name]
    vit = ViT(size, img_size=518, patch_size=14, in_chans=3, layer_scale=1.0)
    count = sum(p.numel() for p in vit.parameters())
    assert count + vit.embed_dim == parameters  # the mask token belongs to the objective


def test_parameter_count_of_chexworld():
    vit = ViT("vit_base", in_chans=3, class_token=False, position="sincos")
    assert sum(p.numel() for p in vit.parameters()) == 85797120


def test_start_of_jepa():
    torch.manual_seed(0)
    vit = ViT("vit_small", in_chans=3, class_token=False, position="sincos", init="jepa", depth=2)
    assert "init" not in vit.arguments
    for name, parameter in vit.vit.named_parameters():
        if name.endswith("bias"):
            assert torch.equal(parameter, torch.zeros_like(parameter)), name
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        elif name != "pos_embed":
            # At least 147,456 draws: the deviation is known to 0.2 % and 5 sigma are rare.
            assert parameter.std().item() == pytest.approx(0.02, rel=0.01), name
            assert 3.5 * 0.02 < parameter.abs().max().item() < 6 * 0.02, name


def test_start_of_timm_is_left_alone():
    starts = []
    for init in ("timm", "jepa"):
        torch.manual_seed(0)
        starts.append(tiny_vit(init=init).vit.state_dict())
    differing = {name for name in starts[0] if not torch.equal(starts[0][name], starts[1][name])}
    assert differing == {"patch_embed.proj.weight", "patch_embed.proj.bias"}


def test_swiglu_has_the_official_hidden_width():
    vit = tiny_vit(ffn="swiglu")
    assert vit.vit.blocks[0].mlp.fc1.out_features == 2 * 176


@pytest.mark.parametrize("options", [{"class_token": False}, {"registers": 2}])
def test_wanted_tokens_are_those_of_a_whole_pass(options):
    torch.manual_seed(0)
    vit = ViT("vit_tiny", img_size=64, width=32, depth=3, heads=2, **options).eval()
    images = torch.randn(2, 1, 64, 64)
    keep = torch.tensor([[0, 3, 5, 9, 15], [1, 2, 4, 8, 14]])
    wanted = torch.tensor([[4, 0], [2, 2]])
    whole = vit(images, keep=keep).patches
    tokens = vit(images, keep=keep, wanted=wanted)
    assert tokens.cls is None
    assert tokens.registers.shape == (2, 0, 32)
    for row in range(2):
        assert_close(tokens.patches[row], whole[row, wanted[row]], atol=1e-5, rtol=1e-5)
