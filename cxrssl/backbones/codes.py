"""Sine-cosine codes of places that need not lie on the patch grid."""

from typing import Literal

import torch
from torch import Tensor

from cxrssl.errors import InputError

__all__ = ["AxisOrder", "place_in_other_crop", "sincos_codes"]

AxisOrder = Literal["column_first", "row_first"]


def sincos_codes(
    rows: Tensor, columns: Tensor, dim: int, order: AxisOrder = "column_first"
) -> Tensor:
    """Return the codes (..., D) of places given by row and column in patches.

    Each axis has one half of the code: sines, then cosines, of frequencies 10000^(-4k/D). With
    ``column_first`` and whole numbers this is the fixed table of a ViT (MAE, I-JEPA).

    Args:
        rows: (...), real numbers.
        columns: (...), real numbers.
        dim: Width D, a multiple of 4.
        order: Which axis has the first half.

    Raises:
        InputError: If D is not a multiple of 4.
    """
    if dim % 4:
        raise InputError(f"sine-cosine codes need a width that is a multiple of 4, got {dim}")
    exponent = torch.arange(dim // 4, dtype=torch.float64, device=rows.device) / (dim / 4)
    omega = (10000**-exponent).to(rows.dtype)
    axes = (columns, rows) if order == "column_first" else (rows, columns)
    angles = [axis[..., None] * omega for axis in axes]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=-1)


def place_in_other_crop(
    index: Tensor, grid: tuple[int, int], offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return rows and columns (B, K) of patches, in the patch frame of another crop of their image.

    Args:
        index: Patches (B, K), row by row.
        grid: Rows and columns (h, w) of patches of both crops.
        offset: (B, 4): the crop's corner in the other crop's frame, down and right in units of the
            crop's sides; 1 where one of the two is mirrored, else 0; and, for that case, where the
            mirrored frames meet, in widths of a crop (CheXWorld's code for flips). None for patches
            of the very crop.
    """
    height, width = grid
    rows = (index // width).float()
    columns = (index % width).float()
    if offset is None:
        return rows, columns
    down, right, mirrored, meeting = offset.float()[..., None].unbind(1)  # (B, 1) each
    flipped = width * meeting - 1 - columns
    return rows + height * down, torch.where(mirrored > 0.5, flipped, columns + width * right)
