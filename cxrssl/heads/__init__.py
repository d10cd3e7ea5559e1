"""Heads: what is put on an encoder's tokens."""

from cxrssl.heads.action import ActionToken, Policy
from cxrssl.heads.dino import DINOHead
from cxrssl.heads.multilevel import LevelFusion, MultiLevelHead
from cxrssl.heads.predictor import Predictor
from cxrssl.heads.projector import Projector
from cxrssl.heads.prototypes import Prototypes

__all__ = [
    "ActionToken",
    "DINOHead",
    "LevelFusion",
    "MultiLevelHead",
    "Policy",
    "Predictor",
    "Projector",
    "Prototypes",
]
