"""Small objectives and batches to train on for a few steps."""

import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from cxrssl.backbones import ViT
from cxrssl.heads import DINOHead
from cxrssl.objectives import DINOv2


def small_head(dim):
    return DINOHead(dim, prototypes=24, hidden=16, bottleneck=8)


def small_objective(img_size=32, drop_path=0.2, **options):
    torch.manual_seed(0)
    backbone = ViT("vit_tiny", img_size=img_size, width=32, depth=2, heads=2, drop_path=drop_path)
    return DINOv2(backbone, **({"dino_head": small_head} | options))


def crops(n_batches, batch_size=4, size=32, seed=0):
    """Return batches of random crops as MultiCrop makes them."""
    generator = torch.Generator().manual_seed(seed)
    tokens = (size // 16) ** 2
    return [
        {
            "global_crops": torch.randn(batch_size, 2, 1, size, size, generator=generator),
            "local_crops": torch.randn(batch_size, 2, 1, 16, 16, generator=generator),
            "masks": torch.rand(batch_size, 2, tokens, generator=generator) < 0.4,
            "image_number": torch.arange(n * batch_size, (n + 1) * batch_size),
        }
        for n in range(n_batches)
    ]


def loader(batches):
    return DataLoader(batches, batch_size=None)


def quiet_trainer(**options):
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "max_epochs": 1,
    }
    return Trainer(**(defaults | options))
