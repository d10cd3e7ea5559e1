"""Position tables of patches and their resampling to other grids."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cxrssl.backbones.codes import sincos_codes

__all__ = ["Interpolation", "resample_positions", "sincos_positions"]

Interpolation = Literal["offset", "size", "plain"]

_OFFSET = 0.1


def resample_positions(
    table: Tensor, old: tuple[int, int], new: tuple[int, int], mode: Interpolation
) -> Tensor:
    """Return a position table of grid ``old`` resampled to grid ``new``, bicubic, in float32.

    The published modes differ visibly (DINOv2 trains with ``offset``; its models with registers,
    and timm, use ``size``; CheXWorld uses ``plain``), so the mode belongs to the weights.

    Args:
        table: (1, h * w, D).
        old: (h, w) of the table.
        new: (h, w) wanted.
        mode: ``offset`` samples by the scale factor (new + 0.1) / old without antialiasing;
            ``size`` samples to the exact size with antialiasing; ``plain`` does without it.
    """
    if old == new:
        return table
    image = table.float().unflatten(1, old).permute(0, 3, 1, 2)  # (1, D, h, w)
    if mode == "offset":
        scale = [(n + _OFFSET) / o for n, o in zip(new, old, strict=True)]
        image = F.interpolate(image, scale_factor=scale, mode="bicubic")
    else:
        image = F.interpolate(image, size=new, mode="bicubic", antialias=mode == "size")
    return image.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)


def sincos_positions(dim: int, grid: tuple[int, int]) -> Tensor:
    """Return the fixed table (1, h * w, D): the codes of every patch, column first (MAE, I-JEPA).

    Raises:
        InputError: If D is not a multiple of 4.
    """
    rows, columns = torch.meshgrid(
        torch.arange(grid[0], dtype=torch.float64),
        torch.arange(grid[1], dtype=torch.float64),
        indexing="ij",
    )
    return sincos_codes(rows.flatten(), columns.flatten(), dim).float().unsqueeze(0)
