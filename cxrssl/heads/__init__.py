"""Heads: what is put on an encoder's tokens."""

from cxrssl.heads.action import ActionToken, Policy
from cxrssl.heads.classification import (
    CXRLT_FINDINGS,
    AttentiveProbe,
    ClassificationHead,
    GLoRI,
    LinearProbe,
    load_glori_weights,
)
from cxrssl.heads.dino import DINOHead
from cxrssl.heads.language import VisionProjector
from cxrssl.heads.multilevel import LevelFusion, MultiLevelHead
from cxrssl.heads.predictor import Predictor
from cxrssl.heads.projector import Projector
from cxrssl.heads.prototypes import Prototypes
from cxrssl.heads.segmentation import (
    LinearDecoder,
    SegmentationDecoder,
    UNetDecoder,
    UPerNetDecoder,
    ViTDetDecoder,
)

__all__ = [
    "CXRLT_FINDINGS",
    "ActionToken",
    "AttentiveProbe",
    "ClassificationHead",
    "DINOHead",
    "GLoRI",
    "LevelFusion",
    "LinearDecoder",
    "LinearProbe",
    "MultiLevelHead",
    "Policy",
    "Predictor",
    "Projector",
    "Prototypes",
    "SegmentationDecoder",
    "UNetDecoder",
    "UPerNetDecoder",
    "ViTDetDecoder",
    "VisionProjector",
    "load_glori_weights",
]
