"""Cross-attention of a few queries to patch tokens, and one linear classifier for each query."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrssl.errors import InputError

__all__ = ["CrossAttention", "PerFindingLinear"]


class CrossAttention(nn.Module):
    """Multi-head attention of queries to keys that are also the values, with biases.

    Args:
        width: Width D of queries and keys.
        heads: Number H of heads.
        dropout: Probability that an attention weight is dropped in training.

    Raises:
        InputError: If the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise InputError(f"heads must divide the width, got {heads} heads of width {width}")
        self.heads = heads
        self.dropout = dropout
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return what each query gathers, (B, Q, D).

        Args:
            queries: (B, Q, D), or (1, Q, D) for all images alike.
            keys: (B, N, D).
            scale: (B,) factors of the attention logits; 1 if left out.
        """
        q = self._queries(queries, keys, scale)
        k, v = self._split(self.kv(keys), 2)
        dropout = self.dropout if self.training else 0.0
        gathered = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        out: Tensor = self.proj(gathered.transpose(1, 2).flatten(2))
        return out

    def weights(self, queries: Tensor, keys: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return the attention weights (B, H, Q, N) in float32, none of them dropped."""
        q = self._queries(queries, keys, scale)
        k, _ = self._split(self.kv(keys), 2)
        with torch.autocast(q.device.type, enabled=False):
            logits = q.float() @ k.float().transpose(2, 3) / q.shape[-1] ** 0.5
            weights: Tensor = logits.softmax(-1)
            return weights

    def _queries(self, queries: Tensor, keys: Tensor, scale: Tensor | None) -> Tensor:
        """Return projected queries (B, H, Q, D / H)."""
        (q,) = self._split(self.q(queries), 1)
        if scale is not None:
            q = q * scale.to(q.dtype)[:, None, None, None]
        return q.expand(len(keys), -1, -1, -1)

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Return the parts of x (B, N, parts * D), each (B, H, N, D / H)."""
        heads: Tensor = x.unflatten(2, (parts, self.heads, -1))
        return heads.permute(2, 0, 3, 1, 4).unbind()


class PerFindingLinear(nn.Module):
    """A weight vector and a bias for each finding, which has a vector of its own.

    What all findings see besides is given once, and not copied for each.

    Args:
        n_findings: Number F of findings.
        width: Width D of a finding's own vector.
        shared: Width S of the vector that all findings see; 0 if there is none.
    """

    def __init__(self, n_findings: int, width: int, shared: int = 0) -> None:
        super().__init__()
        self.shared = shared
        self.weight = nn.Parameter(torch.empty(n_findings, shared + width))
        self.bias = nn.Parameter(torch.zeros(n_findings))
        nn.init.xavier_normal_(self.weight)

    def forward(self, own: Tensor, shared: Tensor | None = None) -> Tensor:
        """Return logits (B, F) of w_f . [shared, own_f] + b_f.

        Args:
            own: (B, F, D).
            shared: (B, S), given where S > 0.
        """
        logits: Tensor = (own * self.weight[:, self.shared :]).sum(2) + self.bias
        if shared is None:
            return logits
        return logits + F.linear(shared, self.weight[:, : self.shared])
