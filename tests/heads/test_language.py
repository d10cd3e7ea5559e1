import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.heads.language import VisionProjector


@pytest.mark.parametrize(("hidden", "width"), [(None, 7), (5, 5)])
def test_two_layers_with_a_gelu_between_them(hidden, width):
    torch.manual_seed(0)
    projector = VisionProjector(3, 7, hidden)
    first, _, second = projector.mlp
    assert [type(layer) for layer in projector.mlp] == [nn.Linear, nn.GELU, nn.Linear]
    assert first.weight.shape == (width, 3)
    patches = torch.randn(2, 4, 3)
    expected = F.gelu(patches @ first.weight.T + first.bias) @ second.weight.T + second.bias
    assert_close(projector(patches), expected)


def test_every_patch_stands_for_itself_in_its_place():
    torch.manual_seed(0)
    projector = VisionProjector(3, 7)
    patches = torch.randn(2, 4, 3)
    assert_close(projector(patches)[:, 2], projector(patches[:, 2:3])[:, 0])


@pytest.mark.parametrize("widths", [(0, 4), (4, 0), (4, 4, 0)])
def test_impossible_widths_are_refused(widths):
    with pytest.raises(InputError, match="must be positive, got"):
        VisionProjector(*widths)
