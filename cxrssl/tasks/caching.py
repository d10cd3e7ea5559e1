"""Tokens of a frozen encoder as plain tensors, and back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cxrssl.backbones import Backbone, Tokens

__all__ = ["pack_levels", "packed_shapes", "unpack_levels"]


def pack_levels(levels: Sequence[Tokens], patches: bool) -> list[Tensor]:
    """Return the class token, where there is one, and the patches of each level, (B, T_i, D_i).

    Args:
        levels: The tokens.
        patches: Whether all patches are kept; otherwise their mean is the only one.
    """
    packed = []
    for tokens in levels:
        kept = tokens.patches if patches else tokens.patches.mean(1, keepdim=True)
        first = [] if tokens.cls is None else [tokens.cls[:, None]]
        packed.append(torch.cat([*first, kept], dim=1))
    return packed


def unpack_levels(packed: Sequence[Tensor], class_token: bool) -> list[Tokens]:
    """Return tokens of what :func:`pack_levels` made; grids are taken to be square."""
    levels = []
    for x in packed:
        patches = x[:, int(class_token) :]
        side = round(patches.shape[1] ** 0.5)
        levels.append(
            Tokens(
                cls=x[:, 0] if class_token else None,
                registers=x[:, :0],
                patches=patches,
                grid=(side, patches.shape[1] // side),
            )
        )
    return levels


@torch.no_grad()
def packed_shapes(
    backbone: Backbone, numbers: Sequence[int], patches: bool, image_size: int
) -> list[tuple[int, int]]:
    """Return (T_i, D_i) of the levels of an encoder, as :func:`pack_levels` would make them."""
    weight = next(backbone.parameters())
    blank = torch.zeros(1, backbone.in_chans, image_size, image_size).to(weight)
    packed = pack_levels(backbone.levels(blank, numbers), patches)
    return [(x.shape[1], x.shape[2]) for x in packed]
