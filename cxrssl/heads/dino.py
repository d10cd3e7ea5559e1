"""The projection head of DINO and iBOT."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrssl.errors import InputError
from cxrssl.heads.prototypes import Prototypes

__all__ = ["DINOHead"]


class DINOHead(nn.Module):
    """MLP to a bottleneck, L2 normalisation, and a weight-normalised layer of prototypes.

    DINOv2 (Oquab et al., 2023) with its defaults; every Linear starts from a normal of standard
    deviation 0.02 with zero bias. Logit k is g_k times the cosine of the bottleneck vector and
    prototype k.

    Args:
        in_dim: Width D of the tokens.
        prototypes: K; 65,536 in DINOv2's short recipe, 131,072 in the long ones.
        hidden: Width of the hidden layers.
        bottleneck: Width before the prototypes.
        layers: Number of Linear layers of the MLP.
        bias: Whether those have a bias.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        prototypes: int = 65536,
        hidden: int = 2048,
        bottleneck: int = 256,
        layers: int = 3,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise InputError(f"layers must be at least 1, got {layers}")
        self.n_prototypes = prototypes
        widths = [in_dim, *[hidden] * (layers - 1), bottleneck]
        steps: list[nn.Module] = []
        for left, right in itertools.pairwise(widths):
            steps += [nn.Linear(left, right, bias=bias), nn.GELU()]
        # A single layer is stored as `mlp.*` and several as `mlp.<i>.*`, as in the official files.
        self.mlp = steps[0] if layers == 1 else nn.Sequential(*steps[:-1])
        self.mlp.apply(_init_linear)
        self.last_layer = Prototypes(bottleneck, prototypes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (..., K) of tokens (..., D)."""
        x = self.mlp(tokens)
        eps = 1e-6 if x.dtype == torch.float16 else 1e-12
        logits: Tensor = self.last_layer(F.normalize(x, dim=-1, p=2, eps=eps))
        return logits


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
