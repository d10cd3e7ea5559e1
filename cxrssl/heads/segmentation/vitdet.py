"""ViTDet's simple feature pyramid as a segmentation decoder."""

from collections.abc import Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from cxrssl.backbones.tokens import Tokens
from cxrssl.errors import InputError
from cxrssl.heads.segmentation.base import SegmentationDecoder, resize

__all__ = ["ViTDetDecoder"]


class ViTDetDecoder(SegmentationDecoder):
    """Four scales made of the last map alone, summed (ViTDet, arXiv 2203.16527).

    The map is brought to 4, 2, 1 and 1/2 times its size by transposed convolutions and max pooling;
    each scale goes through a 1x1 and a 3x3 convolution with a layer norm over channels. ViTDet
    detects and does not segment: the fusion is that of Panoptic FPN (arXiv 1901.02446) without its
    stages of upsampling, the scales resized to the finest, summed, and one linear layer.

    Args:
        dims: Width of each level of the encoder, first to last.
        n_structures: Number of structures K.
        in_chans: Channels of the images, which are not looked at.
        channels: Width of the pyramid.

    Raises:
        InputError: If a size is not positive, or the last width is not a multiple of 4.
    """

    def __init__(
        self, dims: Sequence[int], n_structures: int, in_chans: int = 1, *, channels: int = 256
    ) -> None:
        super().__init__(dims, n_structures, levels=(-1,), in_chans=in_chans)
        width = dims[-1]
        if channels < 1 or width % 4:
            raise InputError(
                "the pyramid needs a positive number of channels and a last level of a width that "
                f"is a multiple of 4, got channels {channels} and width {width}"
            )
        half, quarter = width // 2, width // 4
        finest = nn.Sequential(_double(width, half), LayerNorm2d(half), nn.GELU())
        finest.append(_double(half, quarter))
        self.scales = nn.ModuleList(
            nn.Sequential(scale, *_project(dim, channels))
            for scale, dim in (
                (finest, quarter),
                (_double(width, half), half),
                (nn.Identity(), width),
                (nn.MaxPool2d(2), width),
            )
        )
        self.classifier = nn.Conv2d(channels, n_structures, 1)

    def forward(self, levels: Sequence[Tokens], images: Tensor) -> Tensor:
        """Return logits (B, K, H, W); see :meth:`SegmentationDecoder.forward`."""
        (last,) = self._maps(levels)
        finest, *others = (scale(last) for scale in self.scales)
        fused = sum((resize(each, finest) for each in others), finest)
        return resize(self.classifier(fused), images)


def _double(dim: int, out: int) -> nn.Module:
    """Return a layer that doubles the size of a map."""
    return nn.ConvTranspose2d(dim, out, 2, stride=2)


def _project(dim: int, channels: int) -> list[nn.Module]:
    """Return the layers that bring a scale to the width of the pyramid."""
    return [
        nn.Conv2d(dim, channels, 1, bias=False),
        LayerNorm2d(channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        LayerNorm2d(channels),
    ]
