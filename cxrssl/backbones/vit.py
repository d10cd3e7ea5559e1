"""The vision transformer of every objective: timm's, with tokens masked, kept or packed."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import timm
import torch
from timm.layers import Mlp, SwiGLUPacked
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cxrssl.backbones.base import Backbone
from cxrssl.backbones.block import PackedBlock, pick_tokens
from cxrssl.backbones.context import ResidualGate, checked_gates
from cxrssl.backbones.positions import Interpolation, resample_positions, sincos_positions
from cxrssl.backbones.tokens import Tokens
from cxrssl.errors import InputError

__all__ = ["ViT"]

_SHORT_NAMES = {
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
    "vit_base": "vit_base_patch16_224",
    "vit_large": "vit_large_patch16_224",
    "vit_huge": "vit_huge_patch14_224",
    "vit_giant": "vit_giant_patch14_dinov2",
}


_FIRST_LAYER = ("pos_embed", "patch_embed", "cls_token", "reg_token")


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
        layer_scale: Initial value of the residual scales; the named model's own if left out.
        drop_path: Rate of batch-subset stochastic depth.
        drop_path_shape: ``uniform`` over the blocks as in DINOv2, or ``linear`` from 0.
        packed: Whether crops of several sizes share one call of norms and linear layers. By default
            they do on a GPU and not on a CPU, where it gains nothing.
        init: How weights start: as in ``timm``, or with the patch embedding too drawn from a normal
            of standard deviation 0.02 and without bias, as in ``jepa`` (I-JEPA, CheXWorld).
        activation_checkpointing: Whether blocks are recomputed in the backward pass to save memory.
        gates: Numbers of the blocks behind which a :class:`ResidualGate` gates the patches in line;
            none by default. For MLVICX.
        gate_kernel: Side of the gates' spatial convolution.
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
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        drop_path_shape: Literal["uniform", "linear"] = "uniform",
        packed: bool | None = None,
        init: Literal["timm", "jepa"] = "timm",
        activation_checkpointing: bool = False,
        gates: Sequence[int] = (),
        gate_kernel: int = 7,
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
            "layer_scale": layer_scale,
            "gates": [],
            "gate_kernel": gate_kernel,
        }
        self.interpolation: Interpolation = interpolation
        self.packed = packed
        self.activation_checkpointing = activation_checkpointing
        self.pretrained_mask_token = None
        self.load_report = None
        self.vit = _build(self.arguments)
        self.gates = nn.ModuleDict()
        self.embed_dim = self.vit.embed_dim
        self.depth = len(self.vit.blocks)
        self.level_dims = (self.embed_dim,) * self.depth
        self.in_chans = in_chans
        self.img_size = img_size
        self.patch_size: int = self.vit.patch_embed.patch_size[0]
        self.grid: tuple[int, int] = tuple(self.vit.patch_embed.grid_size)
        self.n_registers = registers
        self.class_position = class_token and class_position
        self.vit.pos_embed = self._position_table(position)
        self._set_drop_path(drop_path, drop_path_shape)
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

    def _set_drop_path(self, rate: float, shape: str) -> None:
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
                returned, without class token and registers, and the last block is spared the rest.
        """
        if wanted is None:
            return self.forward_many([x], masks=[mask], mask_token=mask_token, keeps=[keep])[0]
        tokens, grid = self._embed(x, mask, mask_token, keep)
        before, last = self.depth - 1, self.vit.blocks[-1]
        [tokens] = self._run_blocks([tokens], [grid], range(before))
        if str(before) in self.gates:  # which need all patches
            [tokens] = self._run_blocks([tokens], [grid], [before])
            tokens = pick_tokens(tokens, wanted + self._n_prefix)
        else:
            tokens = last.select(tokens, wanted + self._n_prefix)
        patches = self.vit.norm(tokens)
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
        groups = self._run_blocks([tokens for tokens, _ in embedded], grids, range(self.depth))
        return [self._split(self.vit.norm(x), grid) for x, grid in zip(groups, grids, strict=True)]

    def levels(
        self,
        x: Tensor,
        levels: Sequence[int],
        norm: Literal["all", "last", "none"] = "all",
        stem: bool = False,
    ) -> list[Tokens]:
        """Return the tokens after the given blocks.

        Args:
            x: (B, C, H, W).
            levels: Numbers of blocks; negative ones count from the end.
            norm: Which levels pass through the final norm: ``all``, the ``last`` block's alone, or
                ``none``.
            stem: Whether the embedded patches, which are never normalised, come first.
        """
        wanted = [number % self.depth for number in levels]
        tokens, grid = self._embed(x, None, None, None)
        found = {-1: self._split(tokens, grid)}
        for number in range(max(wanted) + 1):
            [tokens] = self._run_blocks([tokens], [grid], [number])
            if number in wanted:
                normed = norm == "all" or (norm == "last" and number == self.depth - 1)
                found[number] = self._split(self.vit.norm(tokens) if normed else tokens, grid)
        return [found[number] for number in ([-1] if stem else []) + wanted]

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter: 0 for tokens, positions and patches, i + 1 for block i.

        The final norm has layer ``depth`` + 1, and a gate that of its block.
        """
        parts = name.split(".")
        if any(part in _FIRST_LAYER for part in parts):
            return 0
        for room in ("blocks", "gates"):
            if room in parts:
                return int(parts[parts.index(room) + 1]) + 1
        return self.depth + 1

    def insert_gates(self, levels: Sequence[int], kernel: int = 7) -> None:
        """Put a :class:`ResidualGate` behind each of the given blocks."""
        numbers = checked_gates(levels, self.depth)
        if self.gates:
            raise InputError(f"the backbone has gates already, at {self.arguments['gates']}")
        self.gates = nn.ModuleDict({str(n): ResidualGate(self.embed_dim, kernel) for n in numbers})
        self.arguments |= {"gates": numbers, "gate_kernel": kernel}

    def drop_gates(self) -> None:
        """Take the gates out again."""
        self.gates = nn.ModuleDict()
        self.arguments["gates"] = []

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
            if self.gates:
                raise InputError("gates need whole maps: patches cannot be dropped before them")
            patches = pick_tokens(patches, keep)
        tokens = torch.cat([*self._prefix(len(x), patches.dtype), patches], dim=1)
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
        self, groups: list[Tensor], grids: Sequence[tuple[int, int]], numbers: Iterable[int]
    ) -> list[Tensor]:
        packed = groups[0].is_cuda if self.packed is None else self.packed
        for number in numbers:
            block = self.vit.blocks[number]
            block.packed = packed
            if self.activation_checkpointing and torch.is_grad_enabled():
                groups = checkpoint(block, groups, use_reentrant=False)
            else:
                groups = block(groups)
            if str(number) in self.gates:
                gate = self.gates[str(number)]
                pairs = zip(groups, grids, strict=True)
                groups = [gate(tokens, grid, self._n_prefix) for tokens, grid in pairs]
        return groups

    @property
    def _n_prefix(self) -> int:
        return int(self.vit.cls_token is not None) + self.n_registers

    def _split(self, x: Tensor, grid: tuple[int, int]) -> Tokens:
        start = self._n_prefix
        first = start - self.n_registers
        return Tokens(
            cls=x[:, 0] if first else None,
            registers=x[:, first:start],
            patches=x[:, start:],
            grid=grid,
        )


def _build(arguments: dict[str, Any]) -> VisionTransformer:
    name = _SHORT_NAMES.get(arguments["name"], arguments["name"])
    named = _reference(name)
    _check_sizes(arguments, named)
    options = {
        "patch_size": arguments["patch_size"],
        "embed_dim": arguments["width"],
        "depth": arguments["depth"],
        "num_heads": arguments["heads"],
        "init_values": arguments["layer_scale"],
    }
    options = {key: value for key, value in options.items() if value is not None}
    options |= _ffn_options(arguments["ffn"], arguments["width"] or named.embed_dim)
    return timm.create_model(
        name,
        pretrained=False,
        num_classes=0,
        global_pool="",
        img_size=arguments["img_size"],
        in_chans=arguments["in_chans"],
        class_token=arguments["class_token"],
        reg_tokens=arguments["registers"],
        no_embed_class=True,
        dynamic_img_size=True,
        block_fn=PackedBlock,
        **options,
    )


def _reference(name: str) -> VisionTransformer:
    """Return timm's own model of a name without memory for weights, if it is one we can wrap."""
    if not timm.is_model(name):
        raise InputError(
            f"unknown backbone {name!r}: use one of {', '.join(_SHORT_NAMES)} "
            "or the name of a timm VisionTransformer"
        )
    with torch.device("meta"):
        named = timm.create_model(name, pretrained=False, num_classes=0)
    blocks = getattr(named, "blocks", [None])
    if type(named) is not VisionTransformer or type(blocks[0]) is not Block:
        raise InputError(
            f"{name} cannot be used: only timm's VisionTransformer is supported, with its usual "
            f"blocks; this is a {type(named).__name__} of {type(blocks[0]).__name__}s"
        )
    return named


def _check_sizes(arguments: dict[str, Any], named: VisionTransformer) -> None:
    for key in ("img_size", "patch_size", "in_chans", "width", "depth", "heads"):
        if arguments[key] is not None and arguments[key] < 1:
            raise InputError(f"{key} must be positive, got {arguments[key]}")
    if arguments["registers"] < 0:
        raise InputError(f"registers must not be negative, got {arguments['registers']}")
    patch = arguments["patch_size"] or named.patch_embed.patch_size[0]
    if arguments["img_size"] % patch:
        raise InputError(
            f"img_size must be a multiple of patch_size {patch}, got {arguments['img_size']}"
        )
    width = arguments["width"] or named.embed_dim
    heads = arguments["heads"] or named.blocks[0].attn.num_heads
    if width % heads:
        raise InputError(f"width must be a multiple of heads, got width {width} and heads {heads}")


def _ffn_options(ffn: str | None, width: int) -> dict[str, Any]:
    if ffn == "swiglu":
        hidden = (int(width * 4 * 2 / 3) + 7) // 8 * 8
        # timm rounds width * ratio down; the half keeps the product from falling below 2 * hidden.
        ratio = (2 * hidden + 0.5) / width
        return {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": ratio}
    if ffn == "mlp":
        return {"mlp_layer": Mlp, "act_layer": nn.GELU, "mlp_ratio": 4.0}
    return {}
