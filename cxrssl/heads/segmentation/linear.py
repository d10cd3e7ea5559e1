"""The linear segmentation decoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cxrssl.backbones.tokens import Tokens
from cxrssl.errors import InputError
from cxrssl.heads.segmentation.base import SegmentationDecoder, resize

__all__ = ["LinearDecoder"]


class LinearDecoder(SegmentationDecoder):
    """A linear layer on each patch token, after a batch norm (DINOv2, arXiv 2304.07193).

    The logits are resized bilinearly to the image.

    Args:
        dims: Width of each level of the encoder, first to last.
        n_structures: Number of structures K.
        in_chans: Channels of the images, which are not looked at.
        blocks: How many of the last levels are concatenated; DINOv2 uses 1, and 4 for its stronger
            variant. Maps of other sizes are resized to the last one's.

    Raises:
        InputError: If a size is not positive, or the encoder has fewer levels.
    """

    def __init__(
        self, dims: Sequence[int], n_structures: int, in_chans: int = 1, *, blocks: int = 1
    ) -> None:
        if blocks < 1:
            raise InputError(f"blocks must be at least 1, got {blocks}")
        super().__init__(dims, n_structures, levels=range(-blocks, 0), in_chans=in_chans)
        width = sum(dims[-blocks:])
        self.norm = nn.BatchNorm2d(width)
        self.classifier = nn.Conv2d(width, n_structures, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)  # type: ignore[arg-type]  # there is a bias

    def forward(self, levels: Sequence[Tokens], images: Tensor) -> Tensor:
        """Return logits (B, K, H, W); see :meth:`SegmentationDecoder.forward`."""
        maps = self._maps(levels)
        joined = torch.cat([resize(level, maps[-1]) for level in maps], 1)
        return resize(self.classifier(self.norm(joined)), images)
