"""Heads: what is put on an encoder's tokens."""

from cxrssl.heads.action import ActionToken, Policy
from cxrssl.heads.dino import DINOHead
from cxrssl.heads.predictor import Predictor
from cxrssl.heads.prototypes import Prototypes

__all__ = ["ActionToken", "DINOHead", "Policy", "Predictor", "Prototypes"]
