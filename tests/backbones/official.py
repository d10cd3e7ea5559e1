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


def official_state(vit: ViT, chunks: int = 0) -> dict[str, torch.Tensor]:
    """Return a ViT's weights under the names of the official code, in block chunks if wanted."""
    state = {"mask_token": torch.randn(1, vit.embed_dim)}
    for key, value in vit.vit.state_dict().items():
        name = key.replace("reg_token", "register_tokens")
        if chunks and name.startswith("blocks."):
            number = int(name.split(".")[1])
            name = f"blocks.{number * chunks // len(vit.vit.blocks)}.{name[len('blocks.') :]}"
        state[name] = value.clone()
    return state
