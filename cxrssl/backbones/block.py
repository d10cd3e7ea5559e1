"""A transformer block that takes crops of several sizes and skips work for dropped residuals."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from cxrssl.errors import InputError

__all__ = ["PackedBlock", "draw_subset", "pick_tokens"]

_MOST_VERSIONS = 64
"""Of one compiled method; torch's own limit of 8 is too low for a joint run with probes."""


def pick_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Return tokens (B, K, D) of tokens (B, N, D) at an index (B, K)."""
    # Whole rows are picked: a gather of single elements is several times slower, backwards too.
    first = torch.arange(0, tokens.shape[0] * tokens.shape[1], tokens.shape[1], device=index.device)
    rows = (index + first[:, None]).flatten()
    picked: Tensor = tokens.flatten(0, 1).index_select(0, rows).unflatten(0, index.shape)
    return picked


def draw_subset(n: int, rate: float, device: torch.device) -> Tensor:
    """Return which images (k,) of n keep their residual, with k = max(int(n (1 - rate)), 1)."""
    keep = max(int(n * (1 - rate)), 1)
    return torch.randperm(n, device=device)[:keep]


class PackedBlock(Block):  # type: ignore[misc]
    """timm's pre-norm block over a list of token groups, with batch-subset stochastic depth.

    Stochastic depth (DINOv2): each residual branch is computed for a random subset of the images
    only and scaled up by n / k, which saves its cost for the others. Every group draws its own
    subset, and so do the attention and the MLP. With one image nothing is dropped.

    Packing: norms and linear layers act on all tokens of all groups in one call; attention runs
    group by group. The result equals that of separate calls.

    A gate may follow the residuals: a module on maps (B, D, h, w) of the patches, which are the
    last h * w tokens of a group. The tokens before them pass by it.

    Attributes:
        drop_rate: Share of residuals dropped in training.
        packed: Whether groups share the calls of norms and linear layers.
        compiled: Whether the block runs as ``torch.compile`` makes it. Blocks of one shape share
            what is compiled, so that it is done once and not once a block.
        gate: The gate, None for none.
    """

    drop_rate: float = 0.0
    packed: bool = False
    compiled: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gate: nn.Module | None = None

    def forward(
        self,
        x: Tensor | list[Tensor],
        grids: Sequence[tuple[int, int]] | None = None,
        **attention: object,
    ) -> Tensor | list[Tensor]:
        """Apply the block to tokens (B, N, D) or to a list of groups of them.

        Args:
            x: The tokens.
            grids: Rows and columns (h, w) of each group's patches, which a gate needs.
            **attention: See timm's block; for a single group only.

        Raises:
            InputError: If there is a gate and no grid.
        """
        if attention.get("attn_mask") is not None or attention.get("is_causal"):
            return self._gated([super().forward(x, **attention)], grids)[0]
        outputs = self._run([x] if isinstance(x, Tensor) else x, grids)
        return outputs[0] if isinstance(x, Tensor) else outputs

    def select(
        self, x: Tensor, index: Tensor, grids: Sequence[tuple[int, int]] | None = None
    ) -> Tensor:
        """Return the block's output (B, K, D) at some tokens (B, K) of x (B, N, D).

        Equal to the whole output at these tokens. The other tokens are attended to, but need no
        query and no MLP, which a last block without a gate spares them where few are wanted.
        """
        if self.gate is not None or (self.training and self.drop_rate > 0):
            return pick_tokens(self._run([x], grids)[0], index)
        select = _compiled(PackedBlock._select) if self.compiled else PackedBlock._select
        output: Tensor = select(self, x, index)
        return output

    def _run(self, groups: list[Tensor], grids: Sequence[tuple[int, int]] | None) -> list[Tensor]:
        # Drawn here, compiled blocks drop the same residuals as others.
        subsets = [self._draw(groups), self._draw(groups)]
        residuals = _compiled(PackedBlock._residuals) if self.compiled else PackedBlock._residuals
        return self._gated(residuals(self, groups, *subsets), grids)

    def _draw(self, groups: list[Tensor]) -> list[Tensor] | None:
        """Return the images of each group that keep a residual, None for all."""
        if not (self.training and self.drop_rate > 0):
            return None
        return [draw_subset(len(x), self.drop_rate, x.device) for x in groups]

    def _select(self, x: Tensor, index: Tensor) -> Tensor:
        attn, chosen, normed = self.attn, pick_tokens(x, index), self.norm1(x)
        dim, heads = x.shape[-1], attn.num_heads
        weight, bias = attn.qkv.weight, attn.qkv.bias
        query = F.linear(
            pick_tokens(normed, index), weight[:dim], None if bias is None else bias[:dim]
        )
        rest = F.linear(normed, weight[dim:], None if bias is None else bias[dim:])
        q = query.unflatten(-1, (heads, -1)).transpose(1, 2)
        k, v = rest.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = self._attend(q, k, v).transpose(1, 2).flatten(2)
        chosen = chosen + self.ls1(attn.proj_drop(attn.proj(attn.norm(mixed))))
        output: Tensor = chosen + self.ls2(self.mlp(self.norm2(chosen)))
        return output

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        attn = self.attn
        return F.scaled_dot_product_attention(
            attn.q_norm(q), attn.k_norm(k), v, dropout_p=attn.attn_drop.p if self.training else 0.0
        )

    def _gated(self, groups: list[Tensor], grids: Sequence[tuple[int, int]] | None) -> list[Tensor]:
        if self.gate is None:
            return groups
        if grids is None:
            raise InputError("a block with a gate needs the grids of the patches")
        return [_gate_patches(self.gate, x, grid) for x, grid in zip(groups, grids, strict=True)]

    def _residuals(
        self, groups: list[Tensor], attended: list[Tensor] | None, changed: list[Tensor] | None
    ) -> list[Tensor]:
        """Add attention and MLP, each to some rows of the groups, or to all without any."""
        groups = _add(groups, self._attention, attended)
        return _add(groups, self._mlp, changed)

    def _attention(self, groups: list[Tensor]) -> list[Tensor]:
        if not self.packed or len(groups) == 1:
            return [self.ls1(self.attn(self.norm1(x))) for x in groups]
        attn = self.attn
        qkv = attn.qkv(self.norm1(_pack(groups)))
        mixed = []
        for group, x in zip(_unpack(qkv, groups), groups, strict=True):
            q, k, v = group.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
            out = self._attend(q, k, v)
            mixed.append(out.transpose(1, 2).reshape(*x.shape[:2], -1))
        out = attn.proj_drop(attn.proj(attn.norm(_pack(mixed))))
        return _unpack(self.ls1(out), groups)

    def _mlp(self, groups: list[Tensor]) -> list[Tensor]:
        if not self.packed or len(groups) == 1:
            return [self.ls2(self.mlp(self.norm2(x))) for x in groups]
        return _unpack(self.ls2(self.mlp(self.norm2(_pack(groups)))), groups)


@cache
def _compiled(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method compiled; its blocks are arguments, and so are their weights."""
    # One version for each kind of input: training, evaluation, precision, number of groups, width.
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, _MOST_VERSIONS)
    return torch.compile(method)


def _add(
    groups: list[Tensor],
    branch: Callable[[list[Tensor]], list[Tensor]],
    subsets: list[Tensor] | None,
) -> list[Tensor]:
    if subsets is None:
        return [x + y for x, y in zip(groups, branch(groups), strict=True)]
    kept = branch([x.index_select(0, rows) for x, rows in zip(groups, subsets, strict=True)])
    return [
        torch.index_add(x, 0, rows, y.to(x.dtype), alpha=len(x) / len(rows))
        for x, rows, y in zip(groups, subsets, kept, strict=True)
    ]


def _gate_patches(gate: nn.Module, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    n_patches = grid[0] * grid[1]
    prefix, patches = tokens.split([tokens.shape[1] - n_patches, n_patches], dim=1)
    gated = gate(patches.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)
    return torch.cat([prefix.to(gated.dtype), gated], dim=1)


def _pack(groups: list[Tensor]) -> Tensor:
    return torch.cat([x.flatten(0, 1) for x in groups])


def _unpack(tokens: Tensor, like: list[Tensor]) -> list[Tensor]:
    sizes = [x.shape[0] * x.shape[1] for x in like]
    parts = tokens.split(sizes)
    return [part.unflatten(0, x.shape[:2]) for part, x in zip(parts, like, strict=True)]
