"""Objectives that hide patch tokens work on a ViT only, and say so."""

from cxrssl.backbones import Backbone, ViT
from cxrssl.errors import InputError

__all__ = ["vit_only"]


def vit_only(backbone: Backbone, objective: str) -> ViT:
    """Return the backbone if it is a ViT.

    Raises:
        InputError: If it is not.
    """
    if not isinstance(backbone, ViT):
        raise InputError(
            f"{objective} hides patch tokens from its backbone, and a {type(backbone).__name__} "
            "has none: use a ViT, or MLVICX, VICReg or LeJEPA with this backbone"
        )
    return backbone
