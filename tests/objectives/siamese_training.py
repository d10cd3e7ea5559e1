"""Small objectives without a teacher, Joint ones, and batches to train on for a few steps."""

import numpy as np
import torch

from cxrssl.backbones import ConvNet, ViT
from cxrssl.heads import DINOHead, MultiLevelHead, Predictor, Projector
from cxrssl.objectives import MLVICX, DINOv2, Joint, LeJEPA, VICReg, WorldModel
from cxrssl.views import MultiCrop, PairViews, WorldViews

SIDE, PATCH = 32, 8


def small_vit(**options):
    torch.manual_seed(0)
    return ViT("vit_tiny", img_size=SIDE, patch_size=PATCH, width=32, depth=2, heads=2, **options)


def small_convnet(**options):
    torch.manual_seed(0)
    return ConvNet("test_resnet", img_size=SIDE, **options)


def small_projector(dim):
    return Projector(dim, (24, 16))


def small_level_head(dims, size):
    return MultiLevelHead(dims, size, channels=8, widths=(24, 16))


def small_dino_head(dim):
    return DINOHead(dim, prototypes=24, hidden=16, bottleneck=8)


def pair_views():
    return PairViews(image_size=SIDE, scale=(0.3, 1.0))


def crop_views():
    return MultiCrop(global_size=SIDE, local_size=16, n_local=2, patch_size=PATCH)


def small_vicreg(backbone=None, **options):
    torch.manual_seed(0)
    defaults = {"views": pair_views(), "expander": small_projector}
    return VICReg(backbone or small_vit(), **(defaults | options))


def small_mlvicx(backbone=None, **options):
    torch.manual_seed(0)
    defaults = {
        "views": pair_views(),
        "global_head": small_projector,
        "local_head": small_level_head,
        "gate_kernel": 3,
    }
    return MLVICX(backbone or small_vit(), **(defaults | options))


def small_lejepa(backbone=None, **options):
    torch.manual_seed(0)
    defaults = {"views": crop_views(), "projector": small_projector, "directions": 32}
    return LeJEPA(backbone or small_vit(), **(defaults | options))


def small_dinov2(backbone=None, **options):
    torch.manual_seed(0)
    defaults = {
        "views": crop_views(),
        "dino_head": small_dino_head,
        "center_reduction": "global",
        "koleo_scope": "global",
    }
    return DINOv2(backbone or small_vit(), **(defaults | options))


def small_world(backbone=None, **options):
    torch.manual_seed(0)
    defaults = {
        "views": WorldViews(image_size=SIDE, patch_size=PATCH, min_keep=1),
        "predictor": lambda dim, actions: Predictor(dim, actions, width=24, depth=2, heads=2),
    }
    return WorldModel(backbone or small_vit(), **(defaults | options))


CHILDREN = {"dinov2": small_dinov2, "mlvicx": small_mlvicx, "world": small_world}


def small_joint(*names, backbone=None, children=None, **options):
    """Return a Joint of children by name, or of given ones."""
    torch.manual_seed(0)
    return Joint(
        backbone or small_vit(), children or {name: CHILDREN[name] for name in names}, **options
    )


def batches(views, n_batches, batch_size=4, seed=0):
    """Return batches that the views make of blurred noise."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(n_batches):
        images = rng.integers(0, 256, (batch_size, 12, 12), dtype=np.uint8)
        images = images.repeat(4, 1).repeat(4, 2)
        samples = [views(image, rng) for image in images]
        result.append(views.collate(samples, rng))
    return result
