import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from cxrssl.backbones import Tokens
from cxrssl.errors import InputError
from cxrssl.heads.classification import LinearProbe
from tests.golden import load_golden
from tests.heads.classification.tokens import golden_levels, random_levels


@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize(("pooling", "name"), [("class", "False"), ("both", "True")])
def test_golden_input(blocks, pooling, name):
    golden = load_golden("glori/linear_probe_input.npz")
    probe = LinearProbe([12] * 6, 5, blocks=blocks, pooling=pooling)
    pooled = probe.pool(golden_levels(golden)[-blocks:])
    assert_close(pooled, golden[f"input_n{blocks}_avg{name}"], atol=1e-6, rtol=1e-6)


def test_golden_logits():
    golden = load_golden("glori/linear_probe_input.npz")
    probe = LinearProbe([12] * 4, 5, blocks=4, pooling="both")
    probe.classifier.load_state_dict({"weight": golden["w"], "bias": golden["b"]})
    logits = probe(golden_levels(golden))
    assert_close(logits, golden["logits_n4_avgTrue"], atol=1e-6, rtol=1e-5)


def test_golden_of_chexworld():
    golden = load_golden("chexworld/finetune.npz")
    patches = golden["fc/tokens"]
    probe = LinearProbe([32, 32], 5, pooling="mean", init="torch")
    probe.classifier.load_state_dict(
        {"weight": golden["fc/head.weight"], "bias": golden["fc/head.bias"]}
    )
    logits = probe([Tokens(None, patches[:, :0], patches, (4, 4))])
    assert_close(logits, golden["fc/logits"], atol=2e-5, rtol=1e-5)
    loss = F.binary_cross_entropy_with_logits(logits, golden["fc/y"].float())
    loss.backward()
    assert_close(probe.classifier.weight.grad, golden["fc/grad_head_w"], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["class", "mean", "both"])
@pytest.mark.parametrize("with_class", [True, False])
def test_the_mean_patch_as_the_only_one_gives_the_same(pooling, with_class):
    levels = random_levels(2, with_class=with_class)
    probe = LinearProbe([12] * 3, 5, blocks=2, pooling=pooling)
    assert not probe.needs_patches
    cached = [level._replace(patches=level.patches.mean(1, keepdim=True)) for level in levels]
    assert_close(probe(cached), probe(levels))


def test_without_a_class_token_the_mean_takes_its_place():
    levels = random_levels(2, with_class=False)
    probe = LinearProbe([12] * 2, 5, blocks=2, pooling="both")
    means = [level.patches.mean(1) for level in levels]
    assert_close(probe.pool(levels), torch.cat([*means, means[-1]], 1))


def test_levels_of_other_widths_and_grids():
    coarse, fine = random_levels(1, dim=16, grid=(2, 2)), random_levels(1, dim=8, grid=(4, 4))
    probe = LinearProbe([4, 8, 16], 3, blocks=2, pooling="mean")
    assert probe.dims == (8, 16)
    assert probe([*fine, *coarse]).shape == (3, 3)


def test_weights_start_as_published():
    torch.manual_seed(0)
    published = LinearProbe([1024] * 24, 40, blocks=4, pooling="both").classifier
    assert published.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert published.bias.abs().max() == 0
    plain = LinearProbe([1024], 40, init="torch").classifier
    # Uniform up to 1 / sqrt(1024).
    assert plain.weight.abs().max().item() == pytest.approx(1 / 32, rel=0.01)
    assert plain.bias.abs().max() > 0


def test_other_number_of_levels_is_refused():
    probe = LinearProbe([12] * 4, 5, blocks=2)
    with pytest.raises(InputError, match="reads the last 2 levels, got 4"):
        probe(random_levels(4))


@pytest.mark.parametrize(
    ("findings", "options", "match"),
    [
        (0, {}, "at least one finding, got 0"),
        (5, {"blocks": 3}, "has 2 levels, so that blocks must be from 1 to 2, got 3"),
        (5, {"blocks": 0}, "got 0"),
        (5, {"pooling": "max"}, "pooling must be .* got 'max'"),
        (5, {"init": "zeros"}, "init must be .* got 'zeros'"),
    ],
)
def test_impossible_options_are_refused(findings, options, match):
    with pytest.raises(InputError, match=match):
        LinearProbe([4, 4], findings, **options)
