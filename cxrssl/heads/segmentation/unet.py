"""CheXWorld's U-Net on the last map of a vision transformer."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrssl.backbones.tokens import Tokens
from cxrssl.errors import InputError
from cxrssl.heads.segmentation.base import SegmentationDecoder, resize

__all__ = ["UNetDecoder"]


class UNetDecoder(SegmentationDecoder):
    """A U-Net decoder whose skips are made of the last map and of the image (CheXWorld).

    Four scales of the last map have 2, 4, 8 and 16 times the base width, at 1/2, 1/4, 1/8 and 1/16
    of the image's side where the form suits the encoder's patches. Four stages go from the coarsest
    to the finest and to the image, each with a skip (CheXWorld, Yue et al., 2025, arXiv
    2504.13820, and its code). A stage resizes to the size of its skip: with the nearest pixel, as
    published, where that is exactly double, and bilinearly where patches do not fit.

    Args:
        dims: Width of each level of the encoder, first to last.
        n_structures: Number of structures K.
        in_chans: Channels C of the images, which are the last skip.
        width: Base width b.
        form: How the scales are made: ``patch16`` of a map at 1/16 (or 1/14) of the image, by
            nearest upsampling and convolutions; ``patch8`` of one at 1/8, by transposed
            convolutions.

    Raises:
        InputError: If a size is not positive, the last width is not a multiple of 4, or the form is
            unknown.
    """

    def __init__(
        self,
        dims: Sequence[int],
        n_structures: int,
        in_chans: int = 1,
        *,
        width: int = 32,
        form: Literal["patch8", "patch16"] = "patch16",
    ) -> None:
        super().__init__(dims, n_structures, levels=(-1,), in_chans=in_chans)
        if width < 1 or dims[-1] % 4:
            raise InputError(
                "the U-Net needs a positive width and a last level of a width that is a multiple "
                f"of 4, got {width} and {dims[-1]}"
            )
        if form not in ("patch8", "patch16"):
            raise InputError(f"form must be 'patch8' or 'patch16', got {form!r}")
        scales = _patch8_scales if form == "patch8" else _patch16_scales
        self.scales = nn.ModuleList(scales(dims[-1], width))  # finest first
        self.stem = _ResidualBlock(in_chans, width)
        widths = [width * factor for factor in (8, 4, 2, 1)]
        self.stages = nn.ModuleList(_ResidualBlock(3 * skip, skip) for skip in widths)
        self.classifier = nn.Conv2d(width, n_structures, 1)

    def forward(self, levels: Sequence[Tokens], images: Tensor) -> Tensor:
        """Return logits (B, K, H, W); see :meth:`SegmentationDecoder.forward`."""
        (last,) = self._maps(levels)
        *skips, x = (scale(last) for scale in self.scales)
        skips.insert(0, self.stem(images))
        for stage, skip in zip(self.stages, reversed(skips), strict=True):
            x = stage(torch.cat([_upsample(x, skip), skip], 1))
        logits: Tensor = self.classifier(x)
        return logits


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each with batch norm and GELU, beside a 1x1 convolution."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(dim, out, 3, padding=1),
            *_activated(out),
            nn.Conv2d(out, out, 3, padding=1),
            *_activated(out),
        )
        self.skip = nn.Conv2d(dim, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map (B, out, h, w) of a map (B, D, h, w)."""
        summed: Tensor = self.conv(x) + self.skip(x)
        return summed


def _upsample(x: Tensor, like: Tensor) -> Tensor:
    """Return a map at the size of another; see :class:`UNetDecoder`."""
    height, width = x.shape[-2:]
    if like.shape[-2:] == (2 * height, 2 * width):
        return F.interpolate(x, scale_factor=2, mode="nearest")
    return resize(x, like)


def _patch8_scales(dim: int, width: int) -> list[nn.Module]:
    """Return what makes maps of 4, 2, 1 and 1/2 times the size."""
    half, quarter = dim // 2, dim // 4
    return [
        nn.Sequential(
            nn.ConvTranspose2d(dim, half, 2, stride=2),
            *_activated(half),
            nn.ConvTranspose2d(half, quarter, 2, stride=2),
            nn.BatchNorm2d(quarter),
            *_project(quarter, 2 * width),
        ),
        nn.Sequential(
            nn.ConvTranspose2d(dim, half, 2, stride=2),
            nn.BatchNorm2d(half),
            *_project(half, 4 * width),
        ),
        nn.Sequential(*_project(dim, 8 * width)),
        nn.Sequential(
            nn.Conv2d(dim, 2 * dim, 2, stride=2),
            nn.BatchNorm2d(2 * dim),
            *_project(2 * dim, 16 * width),
        ),
    ]


def _patch16_scales(dim: int, width: int) -> list[nn.Module]:
    """Return what makes maps of 8, 4, 2 and 1 times the size."""
    half, quarter = dim // 2, dim // 4
    return [
        nn.Sequential(*_double(dim, half), *_double(half, quarter), *_double(quarter, 2 * width)),
        nn.Sequential(*_double(dim, half), *_double(half, 4 * width)),
        nn.Sequential(*_double(dim, 8 * width)),
        nn.Sequential(*_project(dim, 16 * width)),
    ]


def _activated(dim: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(dim), nn.GELU()]


def _project(dim: int, out: int) -> list[nn.Module]:
    return [nn.Conv2d(dim, out, 1), *_activated(out)]


def _double(dim: int, out: int) -> list[nn.Module]:
    return [nn.Upsample(scale_factor=2), nn.Conv2d(dim, out, 3, padding=1), *_activated(out)]
