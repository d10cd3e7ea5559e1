"""Tokens of a few levels, made up or golden."""

import torch

from cxrssl.backbones import Tokens


def random_levels(n=4, dim=12, batch=3, grid=(4, 4), seed=0, with_class=True):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(batch, *shape, dim, generator=generator)

    return [
        Tokens(draw() if with_class else None, draw(0), draw(grid[0] * grid[1]), grid)
        for _ in range(n)
    ]


def golden_levels(golden):
    """Return the four levels of a golden file of CheXFound."""
    levels = []
    for i in range(4):
        cls, patches = golden[f"layer{i}_cls"], golden[f"layer{i}_patch"]
        levels.append(Tokens(cls, patches[:, :0], patches, (4, 4)))
    return levels
