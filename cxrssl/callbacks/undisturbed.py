"""Looking at a model in the middle of training without leaving a trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

__all__ = ["undisturbed"]


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Run without gradient; put all generators and every module's mode back afterwards."""
    modes = [(child, child.training) for child in module.modules()]
    try:
        with isolate_rng(), torch.no_grad():
            yield
    finally:
        for child, mode in modes:
            child.training = mode
