import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.heads import Projector
from tests.golden import SHARED, load_golden, subset


def test_golden_of_mlvicx():
    golden = load_golden("mlvicx/heads.npz")
    projector = Projector(8, (16, 16, 12), final_bn=True).double()
    # The file holds the state after the step; that of a batch norm is new before it.
    layers = {"l1": 0, "l2": 3, "l3": 6}
    state = {}
    for name, value in subset(golden, "mlp_sd.").items():
        block, step, rest = name.split(".", 2)
        state[f"mlp.{layers[block] + int(step)}.{rest}"] = value
    running = {name: value for name, value in state.items() if "running" in name}
    projector.load_state_dict(state)
    for module in projector.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.reset_running_stats()
    assert_close(projector(golden["mlp_x"]), golden["mlp_train"], atol=1e-12, rtol=1e-9)
    for name, value in running.items():
        assert_close(projector.state_dict()[name], value, atol=1e-12, rtol=1e-9)
    assert_close(projector.eval()(golden["mlp_x"]), golden["mlp_eval"], atol=1e-12, rtol=1e-9)


def test_layers_are_those_of_vicreg():
    layers = [str(layer).split(", eps=")[0] for layer in Projector(6, (7, 9, 5)).mlp]
    assert layers == [
        "Linear(in_features=6, out_features=7, bias=True)",
        "BatchNorm1d(7",
        "ReLU(inplace=True)",
        "Linear(in_features=7, out_features=9, bias=True)",
        "BatchNorm1d(9",
        "ReLU(inplace=True)",
        "Linear(in_features=9, out_features=5, bias=False)",
    ]
    path = SHARED / "golden/vicreg/loss.npz"
    if not path.is_file():
        pytest.skip("golden file vicreg/loss.npz is not beside this checkout")
    with np.load(path, allow_pickle=False) as golden:  # other torch versions print other options
        expected = golden["projector_6_7-9-5_modules"].tolist()
    assert layers == [layer.split(", eps=")[0] for layer in expected]


@pytest.mark.parametrize("final_bn", [False, True])
def test_one_layer(final_bn):
    projector = Projector(3, [5], final_bn=final_bn)
    kinds = [nn.Linear, nn.BatchNorm1d] if final_bn else [nn.Linear]
    assert [type(layer) for layer in projector.mlp] == kinds
    assert projector(torch.randn(4, 3)).shape == (4, 5)


def test_final_batch_norm_sets_the_spread():
    torch.manual_seed(0)
    z = Projector(6, (16, 8), final_bn=True)(torch.randn(32, 6))
    assert_close(z.std(0, correction=0), torch.ones(8), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("in_dim", "widths"), [(4, ()), (0, (3,)), (4, (3, 0))])
def test_impossible_widths_are_refused(in_dim, widths):
    with pytest.raises(InputError, match="at least one positive width, got"):
        Projector(in_dim, widths)
