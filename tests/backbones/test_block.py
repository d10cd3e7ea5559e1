import pytest
import torch
from timm.models.vision_transformer import Block
from torch import nn
from torch.testing import assert_close

from cxrssl.backbones import block as block_module
from cxrssl.backbones.block import PackedBlock, draw_subset, pick_tokens
from tests.golden import load_golden, subset


def golden_block():
    golden = load_golden("dinov2/stochastic_depth.npz")
    block = PackedBlock(32, 2, qkv_bias=True, init_values=0.5, norm_layer=nn.LayerNorm)
    block.load_state_dict(subset(golden, "sd/"))
    return block, golden


def replay(monkeypatch, permutations):
    """Make the block draw recorded permutations instead of new ones."""
    queue = list(permutations)

    def draw(n, rate, device):
        assert len(queue[0]) == n
        return queue.pop(0)[: max(int(n * (1 - rate)), 1)]

    monkeypatch.setattr(block_module, "draw_subset", draw)


def test_golden_single_group(monkeypatch):
    block, golden = golden_block()
    block.train().drop_rate = golden["drop_ratio"].item()
    replay(monkeypatch, [golden["tensor_perm_attn"], golden["tensor_perm_mlp"]])
    assert_close(block(golden["x"]), golden["tensor_out"], atol=1e-5, rtol=1e-5)


def test_golden_list_of_groups(monkeypatch):
    block, golden = golden_block()
    block.train().drop_rate = golden["drop_ratio"].item()
    for packed in (False, True):
        block.packed = packed
        names = ["list_perm_attn_x", "list_perm_attn_y", "list_perm_mlp_x", "list_perm_mlp_y"]
        replay(monkeypatch, [golden[name] for name in names])
        x, y = block([golden["x"], golden["y"]])
        assert_close(x, golden["list_out_x"], atol=1e-5, rtol=1e-5)
        assert_close(y, golden["list_out_y"], atol=1e-5, rtol=1e-5)
    assert_close(block.eval()(golden["x"]), golden["eval_out_x"], atol=1e-5, rtol=1e-5)


def test_equals_timm_without_stochastic_depth():
    torch.manual_seed(0)
    ours, theirs = PackedBlock(16, 2, qkv_bias=True), Block(16, 2, qkv_bias=True)
    theirs.load_state_dict(ours.state_dict())
    x, causal = torch.randn(3, 5, 16), torch.ones(5, 5, dtype=torch.bool).tril()
    assert_close(ours(x), theirs(x))
    assert_close(ours(x, attn_mask=causal), theirs(x, attn_mask=causal))


def test_expectation_of_the_residual_is_kept():
    torch.manual_seed(0)
    block = PackedBlock(8, 2)
    block.mlp = nn.Identity()
    block.norm2 = nn.Identity()
    block.attn = nn.Identity()
    block.norm1 = nn.Identity()
    block.train().drop_rate = 0.5
    x = torch.ones(4, 1, 8)
    # Attention and MLP both double what they keep on average, so the expectation is 4.
    mean = torch.stack([block(x) for _ in range(3000)]).mean()
    assert_close(mean, torch.tensor(4.0), atol=0.05, rtol=0)


def test_size_of_the_subset():
    sizes = [len(draw_subset(n, 0.4, torch.device("cpu"))) for n in (1, 2, 5, 7, 10)]
    assert sizes == [1, 1, 3, 4, 6]


@pytest.mark.parametrize(
    "options", [{}, {"init_values": 0.5, "qk_norm": True}, {"qkv_bias": False}]
)
def test_selected_tokens_and_their_gradients_are_those_of_the_whole_block(options):
    torch.manual_seed(0)
    block = PackedBlock(32, 2, **({"qkv_bias": True} | options))
    x = torch.randn(3, 9, 32, requires_grad=True)
    index = torch.rand(3, 9).argsort(1)[:, :4]
    whole = pick_tokens(block(x), index)
    parts = [x, *block.parameters()]
    expected = torch.autograd.grad(whole.square().sum(), parts)
    selected = block.select(x, index)
    assert_close(selected, whole, atol=1e-6, rtol=1e-5)
    found = torch.autograd.grad(selected.square().sum(), parts)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_selected_tokens_with_dropped_residuals(monkeypatch):
    torch.manual_seed(0)
    block = PackedBlock(32, 2).train()
    block.drop_rate = 0.5
    x, index = torch.randn(4, 6, 32), torch.tensor([[0, 5]] * 4)
    orders = [torch.tensor([1, 0, 3, 2]), torch.tensor([2, 3, 0, 1])]
    replay(monkeypatch, orders * 2)
    assert_close(block.select(x, index), pick_tokens(block(x), index))


def test_picked_tokens_are_those_of_the_index():
    tokens = torch.arange(24.0).view(2, 4, 3)
    picked = pick_tokens(tokens, torch.tensor([[3, 0], [1, 1]]))
    assert picked.tolist() == [[[9, 10, 11], [0, 1, 2]], [[15, 16, 17], [15, 16, 17]]]
