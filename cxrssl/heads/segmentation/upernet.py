"""UPerNet as a segmentation decoder."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrssl.backbones.tokens import Tokens
from cxrssl.errors import InputError
from cxrssl.heads.segmentation.base import SegmentationDecoder, resize

__all__ = ["UPerNetDecoder"]


class UPerNetDecoder(SegmentationDecoder):
    """Pyramid pooling on the coarsest of four levels, and a feature pyramid (arXiv 1807.10221).

    Levels of one size, a ViT's, are first brought to 4, 2, 1 and 1/2 times their size. Every
    convolution but the last has a batch norm and a ReLU. Going down, coarser levels are added to
    finer ones; all four are then resized to the finest, concatenated and fused.

    Args:
        dims: Width of each level of the encoder, first to last.
        n_structures: Number of structures K.
        in_chans: Channels of the images, which are not looked at.
        channels: Width of the pyramid.
        pool_scales: Sides of the maps that the coarsest level is average-pooled to.
        levels: Numbers of the four levels, finest first. If left out, four equally spaced ones of
            an encoder of one width (2, 5, 8 and 11 of 12), else the last four.
        pyramid: Whether the levels are of one size and are rescaled. If left out, they are where
            all widths of the encoder are equal.
        auxiliary_weight: Weight of the loss on a convolutional head on the third level, which is
            there if this is positive; 0.4 is usual.
        auxiliary_channels: Width of that head.

    Raises:
        InputError: If a size is not positive, a weight is negative, or there are not four levels.
    """

    def __init__(
        self,
        dims: Sequence[int],
        n_structures: int,
        in_chans: int = 1,
        *,
        channels: int = 512,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        levels: Sequence[int] | None = None,
        pyramid: bool | None = None,
        auxiliary_weight: float = 0.0,
        auxiliary_channels: int = 256,
    ) -> None:
        alike = len(set(dims)) == 1
        wanted = _default_levels(len(dims), alike) if levels is None else levels
        super().__init__(dims, n_structures, levels=wanted, in_chans=in_chans)
        if len(wanted) != 4:
            raise InputError(f"UPerNet reads four levels, got {list(wanted)}")
        if min(channels, auxiliary_channels, *pool_scales) < 1 or auxiliary_weight < 0:
            raise InputError(
                "UPerNet needs positive sizes and no negative weight, got "
                f"channels {channels}, pool_scales {list(pool_scales)}, "
                f"auxiliary_channels {auxiliary_channels}, auxiliary_weight {auxiliary_weight}"
            )
        widths = [dims[number] for number in self.level_numbers()]
        self.auxiliary_weight = auxiliary_weight
        rescaled = alike if pyramid is None else pyramid
        self.rescale = nn.ModuleList(_scales(widths) if rescaled else [nn.Identity()] * 4)
        self.pooling = _PyramidPooling(widths[-1], channels, pool_scales)
        self.laterals = nn.ModuleList(_conv(width, channels, 1) for width in widths[:-1])
        self.smooth = nn.ModuleList(_conv(channels, channels, 3) for _ in widths[:-1])
        self.fusion = _conv(4 * channels, channels, 3)
        self.classifier = nn.Conv2d(channels, n_structures, 1)
        self.auxiliary_head: nn.Sequential | None = None
        if auxiliary_weight > 0:
            self.auxiliary_head = nn.Sequential(
                _conv(widths[2], auxiliary_channels, 3),
                nn.Conv2d(auxiliary_channels, n_structures, 1),
            )

    def forward(self, levels: Sequence[Tokens], images: Tensor) -> Tensor:
        """Return logits (B, K, H, W); see :meth:`SegmentationDecoder.forward`.

        Raises:
            InputError: If there are more or fewer levels, or a single image is pooled to one pixel
                in training, where its batch norm has no variance.
        """
        maps = [scale(level) for scale, level in zip(self.rescale, self._maps(levels), strict=True)]
        merged = [self.pooling(maps[-1])]
        for lateral, level in zip(reversed(self.laterals), reversed(maps[:-1]), strict=True):
            finer = lateral(level)
            merged.insert(0, finer + resize(merged[0], finer))
        outs = [smooth(level) for smooth, level in zip(self.smooth, merged[:-1], strict=True)]
        outs.append(merged[-1])
        fused = self.fusion(torch.cat([resize(out, outs[0]) for out in outs], 1))
        return resize(self.classifier(fused), images)

    def auxiliary(self, levels: Sequence[Tokens], images: Tensor) -> Tensor | None:
        """Return logits (B, K, H, W) of the head on the third level, None if it was not wanted."""
        if self.auxiliary_head is None:
            return None
        # Rescaling leaves the third level as it is.
        return resize(self.auxiliary_head(self._maps(levels)[2]), images)


class _PyramidPooling(nn.Module):
    """Pyramid pooling (PSPNet, arXiv 1612.01105): a map beside its averages at several scales."""

    def __init__(self, dim: int, channels: int, scales: Sequence[int]) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.convs = nn.ModuleList(_conv(dim, channels, 1) for _ in scales)
        self.fusion = _conv(dim + len(scales) * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map (B, channels, h, w) of a map (B, D, h, w)."""
        pooled = []
        for scale, conv in zip(self.scales, self.convs, strict=True):
            norm = conv.get_submodule("1")
            # Batch norms that are converted for several processes see the others' images too.
            if scale == 1 and len(x) == 1 and norm.training and type(norm) is nn.BatchNorm2d:
                raise InputError(
                    "UPerNet cannot train on a batch of 1 image with pool scale 1, since a batch "
                    "norm needs two values: take batches of 2 or more, or drop_last=True, or leave "
                    "1 out of pool_scales"
                )
            pooled.append(resize(conv(F.adaptive_avg_pool2d(x, scale)), x))
        fused: Tensor = self.fusion(torch.cat([x, *pooled], 1))
        return fused


def _default_levels(depth: int, spaced: bool) -> list[int]:
    """Return four equally spaced levels, repeated where there are fewer, or the last four."""
    if not spaced:
        return list(range(max(depth - 4, 0), depth))
    return [max((number * depth + 2) // 4, 1) - 1 for number in (1, 2, 3, 4)]


def _conv(dim: int, out: int, side: int) -> nn.Sequential:
    """Return a convolution with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(dim, out, side, padding=side // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU()
    )


def _scales(widths: Sequence[int]) -> list[nn.Module]:
    """Return layers that bring maps of one size to 4, 2, 1 and 1/2 times that size."""
    first, second, *_ = widths
    finest = nn.Sequential(
        nn.ConvTranspose2d(first, first, 2, stride=2),
        nn.BatchNorm2d(first),
        nn.GELU(),
        nn.ConvTranspose2d(first, first, 2, stride=2),
    )
    return [finest, nn.ConvTranspose2d(second, second, 2, stride=2), nn.Identity(), nn.MaxPool2d(2)]
