"""The vision transformer of every objective: timm's, with tokens masked, kept or packed."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cxrssl.backbones.base import Backbone
from cxrssl.backbones.block import pick_tokens
from cxrssl.backbones.context import ResidualGate
from cxrssl.backbones.positions import Interpolation, resample_positions, sincos_positions
from cxrssl.backbones.tokens import Tokens
from cxrssl.backbones.vit_model import build_vit
from cxrssl.errors import InputError

__all__ = ["ViT"]

_FIRST_LAYER = ("pos_embed", "patch_embed", "mask_token", "cls_token", "reg_token")


class ViT(Backbone):
    """A timm ``VisionTransformer`` without its classifier, with our own way through it.

    Positions are added to masked patches and to the class token, never to registers (DINOv2). The
    table is resampled when an image has another size, so any multiple of the patch size will do.

    Args:
        name: ``vit_tiny``, ``vit_small``, ``vit_base``, ``vit_large``, ``vit_huge``, ``vit_giant``,
            or the name of any timm model of class ``VisionTransformer``.
        img_size: Side in pixels of the square images that the position table is made for.
        patch_size: Side of a patch in pixels; the named model's own if left out.
        in_chans: Channels of the images.
        registers: Number of register tokens (Darcet et al., 2023).
        class_token: Whether there is a class token.
        class_position: Whether the class token has a position of its own, as in DINOv2.
        position: ``learned``, or ``sincos`` for the fixed table.
        interpolation: How the table is resampled; see :func:`resample_positions`.
        width: Width D instead of the named model's.
        depth: Number of blocks instead of the named model's.
        heads: Number of attention heads instead of the named model's.
        ffn: ``mlp`` or ``swiglu`` with DINOv2's hidden width; the named model's own if left out.
        ffn_width: Hidden width of the feed-forward layers; what goes with ``ffn``, or the named
            model's own, if left out.
        qkv_bias: Whether queries, keys and values have a bias; the named model's own if left out.
        norm_eps: Epsilon of the norms; the named model's own, which is 1e-6, if left out.
        layer_scale: Initial value of the residual scales, 0 for none; the named model's own if left
            out.
        drop_path: Rate of batch-subset stochastic depth.
        drop_path_shape: ``uniform`` over the blocks as in DINOv2, or ``linear`` from 0.
        packed: Whether crops of several sizes share one call of norms and linear layers. By default
            they do on a GPU and not on a CPU, where it gains nothing.
        init: How weights start: as in ``timm``, or with the patch embedding too drawn from a normal
            of standard deviation 0.02 and without bias, as in ``jepa`` (I-JEPA, CheXWorld).
        activation_checkpointing: Whether blocks are recomputed in the backward pass to save memory.
        gates: Numbers of the blocks whose patch tokens a :class:`ResidualGate` gates in line; see
            :meth:`insert_gates`. They begin as the identity, and patches cannot be dropped then.
        gate_kernel: Side of the gates' spatial convolution; 7, or 3 for a grid of at most 7 rows or
            columns, if left out.
        weights: File with pretrained weights; see :func:`load_backbone_weights`.

    Raises:
        InputError: If the model is not a VisionTransformer, or the sizes or the weights do not fit.
    """

    def __init__(
        self,
        name: str = "vit_base",
        *,
        img_size: int = 224,
        patch_size: int | None = None,
        in_chans: int = 1,
        registers: int = 0,
        class_token: bool = True,
        class_position: bool = True,
        position: Literal["learned", "sincos"] = "learned",
        interpolation: Interpolation = "offset",
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        ffn: Literal["mlp", "swiglu"] | None = None,
        ffn_width: int | None = None,
        qkv_bias: bool | None = None,
        norm_eps: float | None = None,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        drop_path_shape: Literal["uniform", "linear"] = "uniform",
        packed: bool | None = None,
        init: Literal["timm", "jepa"] = "timm",
        activation_checkpointing: bool = False,
        gates: Sequence[int] = (),
        gate_kernel: int | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "name": name,
            "img_size": img_size,
            "patch_size": patch_size,
            "in_chans": in_chans,
            "registers": registers,
            "class_token": class_token,
            "class_position": class_position,
            "position": position,
            "interpolation": interpolation,
            "width": width,
            "depth": depth,
            "heads": heads,
            "ffn": ffn,
            "ffn_width": ffn_width,
            "qkv_bias": qkv_bias,
            "norm_eps": norm_eps,
            "layer_scale": layer_scale,
            "gates": [],
            "gate_kernel": None,
        }
        self.interpolation: Interpolation = interpolation
        self.packed = packed
        self.activation_checkpointing = activation_checkpointing
        self.vit = build_vit(self.arguments)
        self.embed_dim = self.vit.embed_dim
        self.depth = len(self.vit.blocks)
        self.level_dims = (self.embed_dim,) * self.depth
        self.in_chans = in_chans
        self.img_size = img_size
        self.patch_size: int = self.vit.patch_embed.patch_size[0]
        self.grid = tuple(self.vit.patch_embed.grid_size)
        self.n_registers = registers
        self.has_class_token = class_token
        self.class_position = class_token and class_position
        self.vit.pos_embed = self._position_table(position)
        self.set_drop_path(drop_path, drop_path_shape)
        self._init_patches(init)
        if gates:
            self.insert_gates(gates, gate_kernel)
        if weights is not None:
            from cxrssl.backbones.weights import load_backbone_weights

            self.load_report = load_backbone_weights(self, weights)

    def _position_table(self, position: str) -> nn.Parameter:
        rows = self.grid[0] * self.grid[1]
        learned = torch.empty(1, rows + int(self.class_position), self.embed_dim)
        nn.init.trunc_normal_(learned, std=0.02)
        if position == "learned":
            return nn.Parameter(learned)
        if position != "sincos":
            raise InputError(f"position must be 'learned' or 'sincos', got {position!r}")
        table = sincos_positions(self.embed_dim, self.grid)
        if self.class_position:
            table = torch.cat([torch.zeros(1, 1, self.embed_dim), table], dim=1)
        return nn.Parameter(table, requires_grad=False)

    def _init_patches(self, init: str) -> None:
        if init not in ("timm", "jepa"):
            raise InputError(f"init must be 'timm' or 'jepa', got {init!r}")
        if init == "jepa":
            # timm starts linear layers this way, but leaves the convolution at torch's default.
            nn.init.trunc_normal_(self.vit.patch_embed.proj.weight, std=0.02)
            if self.vit.patch_embed.proj.bias is not None:
                nn.init.zeros_(self.vit.patch_embed.proj.bias)

    def set_drop_path(self, rate: float, shape: Literal["uniform", "linear"] = "uniform") -> None:
        """Set the rate of stochastic depth in training.

        Args:
            rate: In [0, 1).
            shape: ``uniform`` over the blocks, or ``linear`` from 0 to the rate.

        Raises:
            InputError: If the rate is out of range.
        """
        if not 0 <= rate < 1:
            raise InputError(f"drop_path must be in [0, 1), got {rate}")
        last = max(len(self.vit.blocks) - 1, 1)
        for number, block in enumerate(self.vit.blocks):
            block.drop_rate = rate if shape == "uniform" else rate * number / last

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
        keep: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tokens:
        """Encode images.

        Args:
            x: (B, C, H, W), sides multiples of the patch size.
            mask: (B, N) bool; True where the mask token takes the patch's place.
            mask_token: (D,) or (1, D), needed with ``mask``.
            keep: (B, K) long; only these patches are encoded, the others cost nothing.
            wanted: (B, K) long; only the tokens of these patches (counted among those kept) are
                returned, without class token and registers, and the last block is spared the rest
                unless it has a gate.

        Raises:
            InputError: If the images do not fit the patches, ``mask`` has no ``mask_token``, or
                there are gates and ``keep`` drops patches.
        """
        if wanted is None:
            return self.forward_many([x], masks=[mask], mask_token=mask_token, keeps=[keep])[0]
        tokens, grid = self._embed(x, mask, mask_token, keep)
        *blocks, last = self.vit.blocks
        [tokens] = self._run_blocks([tokens], blocks, [grid])
        patches = self.vit.norm(last.select(tokens, wanted + self._n_prefix, [grid]))
        return Tokens(cls=None, registers=patches[:, :0], patches=patches, grid=grid)

    def forward_many(
        self,
        inputs: Sequence[Tensor],
        masks: Sequence[Tensor | None] | None = None,
        mask_token: Tensor | None = None,
        keeps: Sequence[Tensor | None] | None = None,
    ) -> list[Tokens]:
        """Encode several batches of images, which may differ in size, in one pass over the blocks.

        Args:
            inputs: Batches (B_i, C, H_i, W_i).
            masks: One mask (B_i, N_i) or None for each batch.
            mask_token: See :meth:`forward`.
            keeps: One tensor (B_i, K_i) or None for each batch.
        """
        masks = masks or [None] * len(inputs)
        keeps = keeps or [None] * len(inputs)
        embedded = [
            self._embed(x, mask, mask_token, keep)
            for x, mask, keep in zip(inputs, masks, keeps, strict=True)
        ]
        grids = [grid for _, grid in embedded]
        groups = self._run_blocks([tokens for tokens, _ in embedded], self.vit.blocks, grids)
        return [self._split(self.vit.norm(x), grid) for x, grid in zip(groups, grids, strict=True)]

    def levels(
        self,
        x: Tensor,
        levels: Sequence[int],
        norm: bool | Literal["last"] = True,
        stem: bool = False,
    ) -> list[Tokens]:
        """Return the tokens after the given blocks; see :meth:`Backbone.levels`.

        Args:
            x: Images (B, C, H, W).
            levels: Numbers of blocks; negative ones count from the end.
            norm: Whether levels pass through the final norm: all, none, or the ``last`` block's.
            stem: Whether the embedded patches, with their positions, come first.
        """
        wanted = self._numbers(levels)
        order = [-1, *wanted] if stem else wanted
        tokens, grid = self._embed(x, None, None, None)
        found: dict[int, Tokens] = {}
        for number in range(-1, max(order, default=-1) + 1):
            if number >= 0:
                [tokens] = self._run_blocks([tokens], [self.vit.blocks[number]], [grid])
            if number in order:
                normed = number == self.depth - 1 if norm == "last" else norm
                found[number] = self._split(self.vit.norm(tokens) if normed else tokens, grid)
        return [found[number] for number in order]

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter; see :meth:`Backbone.layer_of`."""
        parts = name.split(".")
        if any(part in _FIRST_LAYER for part in parts):
            return 0
        if "blocks" in parts:
            return int(parts[parts.index("blocks") + 1]) + 1
        return self.depth + 1

    def position_tokens(self, grid: tuple[int, int]) -> Tensor:
        """Return the positions (1, h * w, D) of the patches of a grid."""
        first = int(self.class_position)
        return resample_positions(
            self.vit.pos_embed[:, first:], self.grid, grid, self.interpolation
        )

    def _embed(
        self, x: Tensor, mask: Tensor | None, mask_token: Tensor | None, keep: Tensor | None
    ) -> tuple[Tensor, tuple[int, int]]:
        height, width = x.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise InputError(
                f"image sides must be multiples of the patch size {self.patch_size}, "
                f"got {height} x {width}"
            )
        grid = height // self.patch_size, width // self.patch_size
        vit = self.vit
        patches = vit.patch_embed(x).flatten(1, 2)  # (B, N, D)
        if mask is not None:
            if mask_token is None:
                raise InputError("a mask needs a mask_token")
            patches = torch.where(mask[..., None], mask_token.to(patches.dtype), patches)
        patches = patches + self.position_tokens(grid)
        if keep is not None:
            if self.arguments["gates"]:
                raise InputError(
                    f"keep drops patches, and the gates after blocks {self.arguments['gates']} "
                    "need the whole grid: use a backbone without gates"
                )
            patches = pick_tokens(patches, keep)
        # Not len(x), which would fix the batch of an exported program.
        tokens = torch.cat([*self._prefix(x.shape[0], patches.dtype), patches], dim=1)
        return vit.norm_pre(vit.pos_drop(tokens)), grid

    def _prefix(self, n: int, dtype: torch.dtype) -> list[Tensor]:
        prefix = []
        if self.vit.cls_token is not None:
            cls = self.vit.cls_token
            if self.class_position:
                cls = cls + self.vit.pos_embed[:, :1]
            prefix.append(cls)
        if self.vit.reg_token is not None:
            prefix.append(self.vit.reg_token)
        return [token.to(dtype).expand(n, -1, -1) for token in prefix]

    def _run_blocks(
        self, groups: list[Tensor], blocks: Iterable[Any], grids: list[tuple[int, int]]
    ) -> list[Tensor]:
        packed = groups[0].is_cuda if self.packed is None else self.packed
        for block in blocks:
            block.packed = packed
            if self.activation_checkpointing and torch.is_grad_enabled():
                groups = checkpoint(block, groups, grids, use_reentrant=False)
            else:
                groups = block(groups, grids)
        return groups

    @property
    def _n_prefix(self) -> int:
        return int(self.has_class_token) + self.n_registers

    @property
    def default_gate_kernel(self) -> int:
        """3 where the grid has at most 7 rows or columns, else 7."""
        return 3 if min(self.grid) <= 7 else 7

    def _new_gate(self, level: int, kernel: int) -> ResidualGate:
        return ResidualGate(self.level_dims[level], kernel=kernel)

    def _set_gate(self, level: int, gate: nn.Module | None) -> None:
        self.vit.blocks[level].gate = gate

    def _split(self, x: Tensor, grid: tuple[int, int]) -> Tokens:
        first, start = int(self.has_class_token), self._n_prefix
        return Tokens(
            cls=x[:, 0] if first else None,
            registers=x[:, first:start],
            patches=x[:, start:],
            grid=grid,
        )
