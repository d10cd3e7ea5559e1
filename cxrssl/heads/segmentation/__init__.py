"""Segmentation decoders: from an encoder's levels to a map of logits for each structure."""

from cxrssl.heads.segmentation.base import SegmentationDecoder
from cxrssl.heads.segmentation.linear import LinearDecoder
from cxrssl.heads.segmentation.unet import UNetDecoder
from cxrssl.heads.segmentation.upernet import UPerNetDecoder
from cxrssl.heads.segmentation.vitdet import ViTDetDecoder

__all__ = [
    "LinearDecoder",
    "SegmentationDecoder",
    "UNetDecoder",
    "UPerNetDecoder",
    "ViTDetDecoder",
]
