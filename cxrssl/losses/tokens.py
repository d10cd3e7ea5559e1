"""Losses between predicted and wanted tokens."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["TokenDistance", "token_loss", "token_spread"]

TokenDistance = Literal["mse", "smooth_l1"]


def token_loss(predicted: Tensor, wanted: Tensor, distance: TokenDistance = "mse") -> Tensor:
    """Return the mean distance over all elements, in float32.

    Args:
        predicted: (..., D).
        wanted: (..., D).
        distance: ``mse`` (CheXWorld) or ``smooth_l1`` with its bend at 1 (I-JEPA).
    """
    if distance == "mse":
        return F.mse_loss(predicted.float(), wanted.float())
    return F.smooth_l1_loss(predicted.float(), wanted.float())


def token_spread(tokens: Tensor, eps: float = 1e-4) -> Tensor:
    """Return the standard deviation (B, D) of tokens (B, K, D) over the tokens of each image.

    One token alone has a spread of sqrt(eps).
    """
    tokens = tokens.float()
    return torch.sqrt(tokens.var(1, correction=int(tokens.shape[1] > 1)) + eps)
