import pytest
import torch
from torch.testing import assert_close

from cxrssl.heads import DINOHead
from tests.golden import load_golden, subset


@pytest.mark.parametrize("case", ["l3", "l2", "l1", "l3_nobias"])
def test_golden(case):
    golden = subset(load_golden("dinov2/dino_head.npz"), f"{case}/")
    layers = int(case[1])
    head = DINOHead(
        48, prototypes=40, hidden=56, bottleneck=24, layers=layers, bias="nobias" not in case
    )
    head.load_state_dict(subset(golden, "sd/"))
    x = golden["x"].clone().requires_grad_()
    y = head(x)
    assert_close(y, golden["y"], atol=1e-5, rtol=1e-5)
    y.square().sum().backward()
    assert_close(x.grad, golden["grad_x"], atol=1e-5, rtol=1e-5)
    expected = subset(golden, "grad/")
    assert set(expected) == {name for name, _ in head.named_parameters()}
    for name, parameter in head.named_parameters():
        assert_close(parameter.grad, expected[name], atol=1e-5, rtol=1e-4)


def test_initial_statistics():
    golden = load_golden("dinov2/dino_head.npz")
    torch.manual_seed(0)
    head = DINOHead(48, prototypes=4000, hidden=512, bottleneck=24)
    assert_close(head.last_layer.weight_g, torch.ones(4000, 1))
    assert head.last_layer.weight_v.std().item() == pytest.approx(
        golden["init_last_layer_weight_v_std"].item(), rel=0.02
    )
    assert head.mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert head.mlp[0].bias.abs().max() == 0


def test_logits_are_bounded_by_the_length_of_the_prototype():
    head = DINOHead(8, prototypes=5, hidden=16, bottleneck=4)
    assert head(torch.randn(100, 8) * 50).abs().max() <= 1 + 1e-5


def test_needs_a_layer():
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        DINOHead(8, layers=0)
