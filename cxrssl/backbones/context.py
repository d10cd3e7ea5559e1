"""Gates on the maps of a backbone: MLVICX's context bottleneck."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cxrssl.errors import InputError

__all__ = ["ContextBottleneck", "ResidualGate", "checked_gates"]


class ContextBottleneck(nn.Module):
    """Channel attention, then spatial attention, without a residual (MLVICX, arXiv 2403.11504).

    It is CBAM (arXiv 1807.06521): with m two 1 x 1 convolutions without bias and a ReLU between,
    the channel gate is sigmoid(m(mean) + m(max)) over the places, and the spatial gate the sigmoid
    of a convolution of [mean; max] over the channels of what the first gate leaves. At the start
    both are near 1/2, so that a map comes out at about a quarter of its size.

    Args:
        dim: Channels D of the maps.
        reduction: Factor from D to the hidden channels of the channel gate.
        kernel: Side of the spatial convolution, odd.

    Raises:
        InputError: If a size does not fit.
    """

    def __init__(self, dim: int, reduction: int = 2, kernel: int = 7) -> None:
        super().__init__()
        if not 1 <= reduction <= dim:
            raise InputError(f"reduction must be in [1, {dim}], got {reduction}")
        if kernel < 1 or kernel % 2 == 0:
            raise InputError(f"kernel must be odd and positive, got {kernel}")
        hidden = dim // reduction
        self.channel = nn.Sequential(
            nn.Conv2d(dim, hidden, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, dim, 1, bias=False),
        )
        self.spatial = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return gated maps (B, D, h, w)."""
        gated = self.channel_gate(x) * x
        return self.spatial_gate(gated) * gated

    def channel_gate(self, x: Tensor) -> Tensor:
        """Return the gate (B, D, 1, 1) of maps (B, D, h, w)."""
        mean, largest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return torch.sigmoid(self.channel(mean) + self.channel(largest))

    def spatial_gate(self, x: Tensor) -> Tensor:
        """Return the gate (B, 1, h, w) of maps (B, D, h, w)."""
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.spatial(summary))


class ResidualGate(nn.Module):
    """x + s (gate(x) - x) with a learnt s that starts at 0: a gate that starts as the identity.

    For the patches of a ViT, whose pretrained blocks would not survive a quarter of their tokens.

    Args:
        dim: Width D of the tokens.
        kernel: See :class:`ContextBottleneck`.
    """

    def __init__(self, dim: int, kernel: int = 7) -> None:
        super().__init__()
        self.bottleneck = ContextBottleneck(dim, kernel=kernel)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tensor, grid: tuple[int, int], first: int) -> Tensor:
        """Return tokens (B, first + h * w, D) with the patches, those from ``first``, gated."""
        prefix, patches = tokens.split([first, tokens.shape[1] - first], dim=1)
        gated = self.bottleneck(patches.transpose(1, 2).unflatten(2, grid))
        step = gated.flatten(2).transpose(1, 2) - patches
        return torch.cat([prefix, patches + self.scale * step], dim=1)


def checked_gates(levels: Sequence[int], n_levels: int) -> list[int]:
    """Return the numbers of the levels to be gated, in order.

    Raises:
        InputError: If a number is not that of a level.
    """
    wrong = [number for number in levels if not 0 <= number < n_levels]
    if wrong:
        raise InputError(f"gates must be numbers of levels from 0 to {n_levels - 1}, got {wrong}")
    return sorted(set(levels))
