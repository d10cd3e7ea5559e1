"""Gates on maps: MLVICX's context bottleneck, and a form of it that starts as the identity."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrssl.errors import InputError

__all__ = ["ContextBottleneck", "ResidualGate"]


class ContextBottleneck(nn.Module):
    """Channel attention, then spatial attention (MLVICX, arXiv 2403.11504).

    This is CBAM (arXiv 1807.06521) without a residual around it. With m(t) = W2 relu(W1 t), the
    channel gate is a = sigmoid(m(mean of x) + m(maximum of x)) over the places of each channel; the
    spatial gate b is the sigmoid of a convolution of the mean and the maximum of a x over the
    channels; the output is b a x. Both gates begin near 1/2, so that a map leaves a fresh module
    at about a quarter of its size.

    Args:
        dim: Channels D of the maps.
        reduction: Factor from D to the width between W1 and W2.
        kernel: Side of the spatial convolution, odd.

    Raises:
        InputError: If a size does not fit.
    """

    def __init__(self, dim: int, reduction: int = 2, kernel: int = 7) -> None:
        super().__init__()
        if not 1 <= reduction <= dim:
            raise InputError(f"reduction must be in [1, {dim}], got {reduction}")
        if kernel < 1 or kernel % 2 == 0:
            raise InputError(f"kernel must be positive and odd, got {kernel}")
        hidden = dim // reduction
        self.down = nn.Conv2d(dim, hidden, 1, bias=False)
        self.up = nn.Conv2d(hidden, dim, 1, bias=False)
        self.spatial = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated maps (B, D, h, w), which are x * gate(x)."""
        gated = self.channel_gate(x) * x
        return self.spatial_gate(gated) * gated

    def gate(self, x: Tensor) -> Tensor:
        """Return what maps (B, D, h, w) are multiplied by, in (0, 1) and of the same shape."""
        channel = self.channel_gate(x)
        return self.spatial_gate(channel * x) * channel

    def channel_gate(self, x: Tensor) -> Tensor:
        """Return a gate (B, D, 1, 1) of maps (B, D, h, w)."""
        mean, largest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        # W2 has no bias, so that it may come after the sum.
        hidden = F.relu(self.down(mean)) + F.relu(self.down(largest))
        return torch.sigmoid(self.up(hidden))

    def spatial_gate(self, x: Tensor) -> Tensor:
        """Return a gate (B, 1, h, w) of maps (B, D, h, w)."""
        summaries = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.spatial(summaries))


class ResidualGate(nn.Module):
    """x + s (g(x) - 1) x with the gate g of a context bottleneck and a learnt s that starts at 0.

    Other than a bottleneck, which leaves a quarter of a map, it starts as the identity, so that it
    can be put between the blocks of a pretrained ViT.

    Args:
        dim: Channels D of the maps.
        reduction: See :class:`ContextBottleneck`.
        kernel: See :class:`ContextBottleneck`.
    """

    def __init__(self, dim: int, reduction: int = 2, kernel: int = 7) -> None:
        super().__init__()
        self.bottleneck = ContextBottleneck(dim, reduction, kernel)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated maps (B, D, h, w)."""
        return x * (1 + self.scale * (self.bottleneck.gate(x) - 1))
