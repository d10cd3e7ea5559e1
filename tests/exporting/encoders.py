"""Small encoders of every kind that is exported."""

from typing import Any

import torch

from cxrssl.backbones import ViT
from tests.backbones.hub_models import shuffle

SHAPE = {"img_size": 32, "patch_size": 8, "width": 32, "depth": 2, "heads": 2}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "registers": {"registers": 3, "layer_scale": 1e-5},
    "swiglu": {"ffn": "swiglu", "in_chans": 3, "layer_scale": 1e-5, "interpolation": "plain"},
    "folded": {"registers": 2, "class_position": False, "ffn": "swiglu", "ffn_width": 40},
    "sincos": {"position": "sincos", "interpolation": "size", "ffn": "mlp", "ffn_width": 64},
    "patches": {"class_token": False, "position": "sincos", "layer_scale": 1e-5, "registers": 1},
}
"""Options of ViTs."""


def exported_vit(kind: str, **options: Any) -> ViT:
    """Return a random ViT of a kind, with what goes with it."""
    vit = ViT(**({"name": "vit_tiny"} | SHAPE | KINDS[kind] | options))
    shuffle(vit)
    if vit.in_chans == 3:
        vit.normalisation = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    else:
        vit.normalisation = (0.45, 0.25)
    vit.image_size, vit.resize, vit.resampling = 24, 28, "pillow"
    vit.trained_pooling = "class" if vit.has_class_token else "mean"
    return vit


def images(vit: ViT, height: int, width: int) -> torch.Tensor:
    """Return random images for an encoder."""
    rng = torch.Generator().manual_seed(height)
    return torch.randn(2, vit.in_chans, height, width, generator=rng)


@torch.no_grad()
def sequence(vit: ViT, x: torch.Tensor) -> torch.Tensor:
    """Return class token, registers and patches as one sequence."""
    tokens = vit(x)
    first = [] if tokens.cls is None else [tokens.cls[:, None]]
    return torch.cat([*first, tokens.registers, tokens.patches], dim=1)
