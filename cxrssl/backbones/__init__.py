"""Backbones: ViT and ConvNet on timm, their tokens, and pretrained weights for them."""

from cxrssl.backbones.base import Backbone, pooled_dim
from cxrssl.backbones.block import PackedBlock, pick_tokens
from cxrssl.backbones.class_attention import class_attention
from cxrssl.backbones.codes import place_in_other_crop, sincos_codes
from cxrssl.backbones.context import ContextBottleneck, ResidualGate
from cxrssl.backbones.convnet import ConvNet
from cxrssl.backbones.encoders import encoder_from_timm, load_encoder
from cxrssl.backbones.positions import resample_positions, sincos_positions
from cxrssl.backbones.tokens import Pooling, Tokens
from cxrssl.backbones.vit import ViT
from cxrssl.backbones.weights import LoadReport, load_backbone_weights

__all__ = [
    "Backbone",
    "ContextBottleneck",
    "ConvNet",
    "LoadReport",
    "PackedBlock",
    "Pooling",
    "ResidualGate",
    "Tokens",
    "ViT",
    "class_attention",
    "encoder_from_timm",
    "load_backbone_weights",
    "load_encoder",
    "pick_tokens",
    "place_in_other_crop",
    "pooled_dim",
    "resample_positions",
    "sincos_codes",
    "sincos_positions",
]
