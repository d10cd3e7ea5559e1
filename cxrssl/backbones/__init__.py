"""Backbones: the ViT on timm, its tokens, and pretrained weights for it."""

from cxrssl.backbones.block import PackedBlock, pick_tokens
from cxrssl.backbones.codes import place_in_other_crop, sincos_codes
from cxrssl.backbones.positions import resample_positions, sincos_positions
from cxrssl.backbones.tokens import Tokens
from cxrssl.backbones.vit import ViT
from cxrssl.backbones.weights import LoadReport, load_backbone_weights, load_encoder

__all__ = [
    "LoadReport",
    "PackedBlock",
    "Tokens",
    "ViT",
    "load_backbone_weights",
    "load_encoder",
    "pick_tokens",
    "place_in_other_crop",
    "resample_positions",
    "sincos_codes",
    "sincos_positions",
]
