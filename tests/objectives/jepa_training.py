"""Small joint-embedding objectives and batches to train on for a few steps."""

import torch

from cxrssl.backbones import ViT
from cxrssl.heads import Predictor
from cxrssl.objectives import IJEPA, WorldModel
from cxrssl.views import MaskedView, WorldViews

GRID = 4
TOKENS = GRID * GRID


def small_backbone(**options):
    defaults = {"class_token": False, "position": "sincos", "init": "jepa", "depth": 2}
    return ViT("vit_tiny", img_size=32, patch_size=8, width=32, heads=2, **(defaults | options))


def small_predictor(dim, actions):
    return Predictor(dim, actions, width=24, depth=2, heads=2)


def small_world(**options):
    torch.manual_seed(0)
    views = WorldViews(image_size=32, patch_size=8, min_keep=1)
    defaults = {"views": views, "predictor": small_predictor}
    return WorldModel(small_backbone(), **(defaults | options))


def small_ijepa(**options):
    torch.manual_seed(0)
    views = MaskedView(image_size=32, patch_size=8, min_keep=1)
    defaults = {"views": views, "predictor": small_predictor}
    return IJEPA(small_backbone(), **(defaults | options))


def world_batches(n_batches, batch_size=4, seed=0, kept=5, masked=4):
    """Return batches of noise as WorldViews makes them."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for number in range(n_batches):
        order = torch.rand(batch_size, 2, TOKENS, generator=generator).argsort(-1)
        offset = torch.rand(batch_size, 2, 4, generator=generator) * 2 - 1
        offset[..., 2] = (offset[..., 2] > 0).float()
        batches.append(
            {
                "context": torch.randn(batch_size, 2, 1, 32, 32, generator=generator),
                "target": torch.randn(batch_size, 2, 1, 32, 32, generator=generator),
                "action": torch.rand(batch_size, 2, 5, generator=generator),
                "offset": offset,
                "context_index": order[..., :kept].sort(-1).values,
                "target_index": order[..., kept : kept + masked].sort(-1).values,
                "image_number": torch.arange(number * batch_size, (number + 1) * batch_size),
            }
        )
    return batches


def ijepa_batches(n_batches, batch_size=4, seed=0):
    """Return batches of noise as MaskedView makes them, of two contexts and three blocks."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(n_batches):
        order = torch.rand(batch_size, TOKENS, generator=generator).argsort(-1)
        batches.append(
            {
                "image": torch.randn(batch_size, 1, 32, 32, generator=generator),
                "context_index": order[:, :8].unflatten(1, (2, 4)),
                "target_index": order[:, 8:14].unflatten(1, (3, 2)),
            }
        )
    return batches
