"""The architecture of a ViT, read off its tensors."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cxrssl.backbones.positions import sincos_positions
from cxrssl.errors import InputError

__all__ = ["square_grid", "vit_shape"]

_KERNEL = "patch_embed.proj.weight"
_BLOCK = re.compile(r"blocks\.(\d+)\.")
_NAMES = {
    (192, 12): "vit_tiny",
    (384, 12): "vit_small",
    (768, 12): "vit_base",
    (1024, 24): "vit_large",
    (1280, 32): "vit_huge",
}


def vit_shape(state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Return the arguments of :class:`ViT` that weights show: all but heads and interpolation.

    Args:
        state: Weights under timm's names, as :func:`to_timm_names` returns them.
        source: Where they come from, for messages.

    Raises:
        InputError: If they are of a ViT that cannot be built here.
    """
    kernel = _matrix(state, _KERNEL, 4, source)
    width, in_chans, *patch = kernel.shape
    if patch[0] != patch[1]:
        raise InputError(f"{source}: patches of {patch[0]} x {patch[1]} pixels are not square")
    depth = 1 + max((int(match[1]) for key in state if (match := _BLOCK.match(key))), default=-1)
    if depth == 0:
        raise InputError(f"{source} holds no transformer blocks")
    if "pos_embed" not in state:
        raise InputError(
            f"{source} holds no position table (rotary ones, as DINOv3 has, are not built here)"
        )
    table = _matrix(state, "pos_embed", 3, source)
    class_token = "cls_token" in state
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    first, side = square_grid(table.shape[1], registers, source)
    ffn, hidden = _feed_forward(state, source)
    patches = table[:, first:]
    return {
        "name": _NAMES.get((width, depth), "vit_base"),
        "img_size": side * patch[0],
        "patch_size": patch[0],
        "in_chans": in_chans,
        "registers": registers,
        "class_token": class_token,
        "class_position": first > 0,
        "position": "sincos" if _is_sincos(patches, side) else "learned",
        "width": width,
        "depth": depth,
        "ffn": ffn,
        "ffn_width": hidden,
        "layer_scale": 1e-5 if "blocks.0.ls1.gamma" in state else None,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
    }


def square_grid(rows: int, registers: int, source: str) -> tuple[int, int]:
    """Return how many rows of a position table are no patches, and the side of the grid.

    Those are none, one of the class token, or one of the class token and those of all registers.

    Raises:
        InputError: If the others are no square grid.
    """
    for first in dict.fromkeys((0, 1, 1 + registers, registers)):
        side = math.isqrt(max(rows - first, 0))
        if side and side * side == rows - first:
            return first, side
    raise InputError(
        f"{source}: a position table of {rows} rows is no square grid, with or "
        "without a class token"
    )


def _matrix(state: Mapping[str, Tensor], name: str, dims: int, source: str) -> Tensor:
    value = state[name]
    if value.ndim != dims:
        raise InputError(f"{source}: {name} is {tuple(value.shape)}, expected {dims} dimensions")
    return value


def _feed_forward(state: Mapping[str, Tensor], source: str) -> tuple[str, int]:
    """Return the kind of the feed-forward layers and their hidden width."""
    try:
        rows = state["blocks.0.mlp.fc1.weight"].shape[0]
        columns = state["blocks.0.mlp.fc2.weight"].shape[1]
    except (KeyError, IndexError) as error:
        raise InputError(
            f"{source} lacks blocks.0.mlp.fc1.weight or fc2.weight, the feed-forward layer of the "
            "first block: the file is cut off, or of a ViT that is not built here"
        ) from error
    if rows == 2 * columns:
        return "swiglu", columns
    if rows == columns:
        return "mlp", columns
    raise InputError(
        f"{source}: a feed-forward layer of {rows} rows and {columns} columns is neither an MLP "
        "nor SwiGLU"
    )


def _is_sincos(patches: Tensor, side: int) -> bool:
    width = patches.shape[2]
    if width % 4 or patches.shape[1] != side * side:
        return False
    fixed = sincos_positions(width, (side, side))
    return torch.allclose(patches.float(), fixed, atol=1e-3)
