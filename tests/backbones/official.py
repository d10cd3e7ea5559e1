"""Small ViTs and the official DINOv2 names of their weights."""

import torch
from torch import Tensor

from cxrssl.backbones import ViT


def tiny_vit(**options) -> ViT:
    """Return a ViT of the golden files' size: width 64, two blocks, two heads, patch 14."""
    defaults = {
        "name": "vit_tiny",
        "img_size": 70,
        "patch_size": 14,
        "in_chans": 3,
        "width": 64,
        "depth": 2,
        "heads": 2,
        "layer_scale": 1e-5,
    }
    return ViT(**(defaults | options))


def save_official(state: dict[str, Tensor], path) -> str:
    """Write a state dict as the official releases do and return the path."""
    torch.save(state, path)
    return str(path)
