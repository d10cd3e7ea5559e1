import pytest
import torch
from torch.testing import assert_close

from cxrssl.backbones import ContextBottleneck, ResidualGate
from cxrssl.errors import InputError
from tests.golden import load_golden


@pytest.fixture
def golden():
    numbers = load_golden("mlvicx/context_bottleneck.npz")
    gate = ContextBottleneck(16).double()
    names = {"down": "cam.fc.0", "up": "cam.fc.2", "spatial": "sam.conv1"}
    gate.load_state_dict({f"{k}.weight": numbers[f"w_{v}.weight"] for k, v in names.items()})
    return gate, numbers


def test_golden_gates_and_output(golden):
    gate, numbers = golden
    x, channel = numbers["x"], numbers["cam"]
    assert_close(gate.channel_gate(x), channel, rtol=1e-9, atol=0)
    assert_close(gate.spatial_gate(channel * x), numbers["sam"], rtol=1e-9, atol=0)
    assert_close(gate(x), numbers["out"], rtol=1e-9, atol=1e-15)


def test_the_output_is_the_input_times_the_gate():
    gate, x = ContextBottleneck(8, kernel=3).double(), torch.randn(2, 8, 5, 7).double()
    assert_close(gate(x), x * gate.gate(x), rtol=1e-12, atol=0)
    assert gate.gate(x).shape == x.shape


@pytest.mark.parametrize(
    ("dim", "published"), [(64, 4194), (128, 16482), (256, 65634), (512, 262242)]
)
def test_published_numbers_of_parameters(dim, published):
    assert sum(p.numel() for p in ContextBottleneck(dim).parameters()) == published


def test_a_residual_gate_starts_as_the_identity_and_learns():
    torch.manual_seed(0)
    gate, x = ResidualGate(8, kernel=3), torch.randn(2, 8, 4, 4)
    assert torch.equal(gate(x), x)
    gate(x).square().sum().backward()
    assert gate.scale.grad.abs() > 0
    # The others begin to learn as soon as the scale has left 0.
    assert all((p.grad == 0).all() for p in gate.bottleneck.parameters())


def test_a_residual_gate_at_1_is_the_bottleneck():
    gate, x = ResidualGate(8).double(), torch.randn(2, 8, 4, 4).double()
    with torch.no_grad():
        gate.scale.fill_(1)
    assert_close(gate(x), gate.bottleneck(x), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 4}, "kernel must be positive and odd, got 4"),
        ({"kernel": -1}, "kernel must be positive and odd, got -1"),
        ({"reduction": 0}, r"reduction must be in \[1, 4\], got 0"),
        ({"reduction": 5}, r"reduction must be in \[1, 4\], got 5"),
    ],
)
def test_bad_sizes(options, message):
    with pytest.raises(InputError, match=message):
        ContextBottleneck(4, **options)
