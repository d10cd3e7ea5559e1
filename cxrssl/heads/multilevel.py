"""The head of MLVICX that makes one embedding of an encoder's levels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrssl.errors import InputError
from cxrssl.heads.projector import Projector

__all__ = ["LevelFusion", "MultiLevelHead"]


class LevelFusion(nn.Module):
    """Maps of several levels, resized, projected to one width, summed and pooled (MLVICX).

    Each level is resized bilinearly (half-pixel centres, no antialiasing), goes through a 1x1
    convolution of its own, and the sum over levels is average-pooled. All of these are linear, and
    convolutions of one pixel commute with what happens along the axes; so each map is first brought
    to the pooled size by one matrix an axis, resizing and pooling in one. This equals the published
    order, and the large maps of the full width are never made.

    Args:
        dims: Width D_k of each level.
        size: Side that the levels are resized to, 64 as published; None where they need not be.
        channels: Common width C.
        pooled: Side p of the result.

    Raises:
        InputError: If there is no level, or a size is not positive.
    """

    def __init__(
        self, dims: Sequence[int], size: int | None = 64, *, channels: int = 512, pooled: int = 4
    ) -> None:
        super().__init__()
        if not dims or min(*dims, 1 if size is None else size, channels, pooled) < 1:
            raise InputError(
                "the fusion needs at least one level and positive sizes, got "
                f"dims {list(dims)}, size {size}, channels {channels}, pooled {pooled}"
            )
        self.size = size
        self.pooled = pooled
        self.convs = nn.ModuleList(nn.Conv2d(dim, channels, 1) for dim in dims)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, C, p, p) of one map (B, D_k, H_k, W_k) a level.

        Raises:
            InputError: If there are more or fewer maps than levels.
        """
        if len(maps) != len(self.convs):
            raise InputError(f"the fusion was built for {len(self.convs)} levels, got {len(maps)}")
        levels = [conv(self._reduce(level)) for conv, level in zip(self.convs, maps, strict=True)]
        return torch.stack(levels).sum(0)

    def _reduce(self, level: Tensor) -> Tensor:
        """Return a map (B, D, H, W) resized and pooled, (B, D, p, p)."""
        with torch.autocast(level.device.type, enabled=False):
            rows, columns = (self._axis(n, level) for n in level.shape[2:])
            return rows.T @ (level @ columns)

    def _axis(self, n: int, like: Tensor) -> Tensor:
        """Return the matrix (n, p) that resizes and pools along one axis of n pixels."""
        # What resizing and pooling make of the unit vectors.
        dtype = torch.promote_types(like.dtype, torch.float32)
        unit = torch.eye(n, dtype=dtype, device=like.device)[None]
        if self.size is not None:
            unit = F.interpolate(unit, size=self.size, mode="linear", align_corners=False)
        return F.adaptive_avg_pool1d(unit, self.pooled)[0].to(like.dtype)


class MultiLevelHead(nn.Module):
    """Fusion of an encoder's levels and a projector on all that is left of them.

    MLVICX (Singh et al., 2024, arXiv 2403.11504), whose sizes are the defaults.

    Args:
        dims: Width D_k of each level.
        size: See :class:`LevelFusion`.
        channels: See :class:`LevelFusion`.
        pooled: See :class:`LevelFusion`.
        widths: See :class:`Projector`.
        final_bn: See :class:`Projector`.

    Raises:
        InputError: If there is no level or no layer, or a size is not positive.
    """

    def __init__(
        self,
        dims: Sequence[int],
        size: int | None = 64,
        *,
        channels: int = 512,
        pooled: int = 4,
        widths: Sequence[int] = (4096, 4096, 4096),
        final_bn: bool = True,
    ) -> None:
        super().__init__()
        self.fusion = LevelFusion(dims, size, channels=channels, pooled=pooled)
        self.projector = Projector(channels * pooled**2, widths, final_bn=final_bn)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return embeddings (B, K) of one map (B, D_k, H_k, W_k) a level."""
        embeddings: Tensor = self.projector(self.fusion(maps).flatten(1))
        return embeddings
