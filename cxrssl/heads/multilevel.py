"""One vector from the maps of several levels of a backbone, as MLVICX fuses them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrssl.errors import InputError
from cxrssl.heads.projector import Projector

__all__ = ["LevelFusion", "MultiLevelHead"]


class LevelFusion(nn.Module):
    """The sum of all levels, resized to one size, projected to one width, and pooled.

    MLVICX (arXiv 2403.11504) resizes bilinearly, projects by a 1 x 1 convolution with bias, adds,
    and pools. All of it but the sum over channels acts on each axis of the image alone, and an
    average and a 1 x 1 convolution can change places: here one small matrix an axis resizes and
    pools at once, and the convolution comes last, on a few pixels. The result is the same.

    Args:
        dims: Channels of each level.
        channels: Channels they are projected to.
        size: Side in pixels that levels are resized to before they are pooled; None for their own.
        pooled: Side of the result in pixels.

    Raises:
        InputError: If a size is not positive or there is no level.
    """

    def __init__(
        self, dims: Sequence[int], channels: int = 512, size: int | None = 64, pooled: int = 4
    ) -> None:
        super().__init__()
        if not dims or min(*dims, channels, pooled, 1 if size is None else size) < 1:
            raise InputError(
                f"the fusion needs positive sizes, got dims={list(dims)}, channels={channels}, "
                f"size={size}, pooled={pooled}"
            )
        self.size = size
        self.pooled = pooled
        self.convs = nn.ModuleList(nn.Conv2d(dim, channels, 1) for dim in dims)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, channels, pooled, pooled) of maps (B, D_k, H_k, W_k), one of each level."""
        fused = [conv(self._pool(level)) for conv, level in zip(self.convs, maps, strict=True)]
        return torch.stack(fused).sum(0)

    def _pool(self, level: Tensor) -> Tensor:
        """Return a level resized and pooled, (B, D, pooled, pooled)."""
        rows, columns = (self._axis(n, level) for n in level.shape[-2:])
        return rows @ level @ columns.T

    def _axis(self, length: int, like: Tensor) -> Tensor:
        """Return the matrix (pooled, length) that resizes and pools along one axis."""
        unit = torch.eye(length, dtype=torch.float64, device=like.device)[None]  # each pixel alone
        if self.size is not None:
            unit = F.interpolate(unit, self.size, mode="linear", align_corners=False)
        return F.adaptive_avg_pool1d(unit, self.pooled)[0].T.to(like.dtype)


class MultiLevelHead(nn.Module):
    """Fuses levels and projects the result: MLVICX's local ("multi-level") head.

    Args:
        dims: Channels of each level.
        size: See :class:`LevelFusion`.
        channels: See :class:`LevelFusion`.
        pooled: See :class:`LevelFusion`.
        widths: See :class:`Projector`.
        final_bn: See :class:`Projector`; True as published.
    """

    def __init__(
        self,
        dims: Sequence[int],
        size: int | None = 64,
        *,
        channels: int = 512,
        pooled: int = 4,
        widths: tuple[int, ...] = (4096, 4096, 4096),
        final_bn: bool = True,
    ) -> None:
        super().__init__()
        self.fusion = LevelFusion(dims, channels, size, pooled)
        self.projector = Projector(channels * pooled**2, widths, final_bn=final_bn)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, widths[-1]) of maps (B, D_k, H_k, W_k), one of each level."""
        projected: Tensor = self.projector(self.fusion(maps).flatten(1))
        return projected
