"""Coarse copies of a map of patches."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrssl.errors import InputError

__all__ = ["PatchPyramid"]


class PatchPyramid(nn.Module):
    """A map averaged over squares of several sizes, each average brought to every patch under it.

    Experimental: after the description of pyramid patch merging in the second version of CheXFound
    (arXiv 2502.05142), of which no code was released. For each kernel k, the map is averaged over
    k x k patches, goes through a Linear of its own to an equal share of the width, and is resized
    bilinearly to the grid; the shares stand next to each other. Where k does not divide the grid,
    ceil(h / k) x ceil(w / k) squares of equal size cover it.

    Args:
        in_dim: Width D of the map.
        width: Width d of the result.
        kernels: Sides k of the squares in patches.

    Raises:
        InputError: If there is no kernel, one is not positive, or their number does not divide d.
    """

    def __init__(self, in_dim: int, width: int, kernels: Sequence[int] = (8, 4, 2)) -> None:
        super().__init__()
        if not kernels or min(kernels) < 1 or width % len(kernels):
            raise InputError(
                "a pyramid needs positive kernels whose number divides the width, got "
                f"{list(kernels)} for width {width}"
            )
        self.kernels = tuple(kernels)
        share = width // len(kernels)
        self.linears = nn.ModuleList(nn.Linear(in_dim, share) for _ in kernels)

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return coarse patches (B, N, d) of patches (B, N, D) on a grid of h * w = N.

        Raises:
            InputError: If patches were dropped from the grid.
        """
        if patches.shape[1] != grid[0] * grid[1]:
            raise InputError(
                f"a pyramid needs all patches of the grid {grid}, got {patches.shape[1]} of them"
            )
        level = patches.transpose(1, 2).unflatten(2, grid)  # (B, D, h, w)
        shares = []
        for kernel, linear in zip(self.kernels, self.linears, strict=True):
            squares = (math.ceil(grid[0] / kernel), math.ceil(grid[1] / kernel))
            coarse = F.adaptive_avg_pool2d(level, squares)
            share = linear(coarse.movedim(1, 3)).movedim(3, 1)
            shares.append(F.interpolate(share, grid, mode="bilinear", align_corners=False))
        return torch.cat(shares, 1).flatten(2).transpose(1, 2)
