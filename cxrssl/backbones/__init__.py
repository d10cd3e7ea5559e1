"""Backbones: the ViT on timm, its tokens, and pretrained weights for it."""

from cxrssl.backbones.positions import resample_positions, sincos_positions
from cxrssl.backbones.tokens import Tokens
from cxrssl.backbones.vit import ViT
from cxrssl.backbones.weights import LoadReport, load_backbone_weights, load_encoder

__all__ = [
    "LoadReport",
    "Tokens",
    "ViT",
    "load_backbone_weights",
    "load_encoder",
    "resample_positions",
    "sincos_positions",
]
