"""Tokens as an encoder's levels would have them."""

import torch

from cxrssl.backbones import Tokens


def as_tokens(level):
    """Return a map (B, D, h, w) as tokens."""
    patches = level.flatten(2).transpose(1, 2)
    return Tokens(None, patches[:, :0], patches, tuple(level.shape[-2:]))


def random_levels(dims, sides, *, batch=2, dtype=torch.float32, seed=0):
    """Return tokens of the given widths and sizes."""
    generator = torch.Generator().manual_seed(seed)
    return [
        as_tokens(torch.randn(batch, dim, *side, generator=generator, dtype=dtype))
        for dim, side in zip(dims, sides, strict=True)
    ]


def vit_levels(decoder, dim, grid, **options):
    """Return the levels that a decoder reads of a ViT."""
    n = len(decoder.level_numbers())
    return random_levels([dim] * n, [grid] * n, **options)
