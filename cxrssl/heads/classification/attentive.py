"""The attentive probe."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cxrssl.backbones import Tokens
from cxrssl.errors import InputError
from cxrssl.heads.classification.attention import CrossAttention, PerFindingLinear
from cxrssl.heads.classification.base import ClassificationHead

__all__ = ["AttentiveProbe"]


class AttentiveProbe(ClassificationHead):
    """A learnt query gathers from the patches of the last level; a Linear reads what it found.

    The attentive head of CheXWorld, which follows V-JEPA (Bardes et al., 2024, arXiv 2404.08471):

        q = q + attention(q, LN(patches));  q = q + MLP(LN(q));  logits = Linear(q).

    The query itself is not normalised before the attention. The class token, where there is one, is
    not looked at.

    Args:
        dims: Widths of all levels of the encoder, of which the last one D is read.
        n_findings: Number F of findings.
        heads: Number of attention heads.
        mlp_ratio: Width of the MLP's hidden layer, in units of D.
        per_finding: Whether each finding has a query and a weight vector of its own, instead of
            one query and one Linear for all (published).

    Raises:
        InputError: If a number is out of range, or the heads do not divide D.
    """

    def __init__(
        self,
        dims: Sequence[int],
        n_findings: int,
        *,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        per_finding: bool = False,
    ) -> None:
        super().__init__(dims, n_findings)
        (dim,) = self.dims
        hidden = int(dim * mlp_ratio)
        if hidden < 1:
            raise InputError(f"mlp_ratio must be positive, got {mlp_ratio}")
        self.per_finding = per_finding
        self.query = nn.Parameter(torch.empty(1, n_findings if per_finding else 1, dim))
        self.norm_keys = nn.LayerNorm(dim)
        self.attention = CrossAttention(dim, heads)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.attention.apply(_init_linear)
        self.mlp.apply(_init_linear)
        self.classifier = (
            PerFindingLinear(n_findings, dim) if per_finding else nn.Linear(dim, n_findings)
        )

    def forward(self, levels: Sequence[Tokens]) -> Tensor:
        """Return logits (B, F), see :meth:`ClassificationHead.forward`."""
        self._check_count(levels)
        query = self.query + self.attention(self.query, self.norm_keys(levels[0].patches))
        query = query + self.mlp(self.norm_mlp(query))  # (B, Q, D)
        logits: Tensor = self.classifier(query if self.per_finding else query[:, 0])
        return logits


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
