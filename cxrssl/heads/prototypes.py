"""The last layer of a prototype head."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Prototypes"]


class Prototypes(nn.Module):
    """Linear layer whose weight rows have a learnt length and a learnt direction, without bias.

    The weight of prototype k is g_k v_k / ||v_k||. The two parameters carry the names under which
    the official checkpoints store them. Directions start uniform in +-1/sqrt(D), lengths at 1.

    Args:
        in_dim: D.
        n_prototypes: K.
    """

    def __init__(self, in_dim: int, n_prototypes: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(n_prototypes, 1))
        self.weight_v = nn.Parameter(torch.empty(n_prototypes, in_dim))
        nn.init.uniform_(self.weight_v, -1 / math.sqrt(in_dim), 1 / math.sqrt(in_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (..., K) of features (..., D)."""
        length = torch.linalg.vector_norm(self.weight_v, dim=1, keepdim=True)
        return F.linear(x, self.weight_v * (self.weight_g / length))
