import pytest
import torch
from torch import nn
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.heads import Projector
from tests.golden import load_golden, subset


def test_layers_are_those_of_vicreg():
    layers = list(Projector(6, (7, 9, 5)))
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in layers] == kinds
    assert [layer.bias is not None for layer in layers if isinstance(layer, nn.Linear)] == [
        True,
        True,
        False,
    ]


def test_golden_of_mlvicx():
    golden = load_golden("mlvicx/heads.npz")
    head = Projector(8, (16, 16, 12), final_bn=True).double()
    state = subset(golden, "mlp_sd.")
    linears = {"l1": 0, "l2": 3, "l3": 6}
    renamed = {
        f"{linears[layer] + int(part)}.{rest}": value
        for name, value in state.items()
        for layer, part, rest in [name.split(".", 2)]
    }
    trained = Projector(8, (16, 16, 12), final_bn=True).double()
    trained.load_state_dict(renamed)
    fresh = {k: v for k, v in renamed.items() if "running" not in k and "tracked" not in k}
    head.load_state_dict(fresh, strict=False)
    assert_close(head(golden["mlp_x"]), golden["mlp_train"], rtol=1e-9, atol=1e-12)
    assert_close(head.eval()(golden["mlp_x"]), golden["mlp_eval"], rtol=1e-9, atol=1e-12)
    assert_close(head.state_dict(), trained.state_dict(), rtol=1e-9, atol=1e-12)


def test_one_layer_is_enough_and_none_too_few():
    assert Projector(3, (2,))(torch.randn(4, 3)).shape == (4, 2)
    for widths in ((), (4, 0)):
        with pytest.raises(InputError, match="widths must be positive and at least one"):
            Projector(3, widths)
