"""Heads: what is put on an encoder's tokens."""

from cxrssl.heads.dino import DINOHead
from cxrssl.heads.prototypes import Prototypes

__all__ = ["DINOHead", "Prototypes"]
