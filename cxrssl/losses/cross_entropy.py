"""Cross-entropy between teacher probabilities and student logits."""

import torch
from torch import Tensor

__all__ = ["soft_cross_entropy"]


def soft_cross_entropy(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return -sum_k targets_k log_softmax(logits / temperature)_k for each row.

    Written as logsumexp minus inner product, which keeps two matrices fewer alive for the backward
    pass than the logarithm of the softmax does. Computed in float32.

    Args:
        logits: (..., K) student logits.
        targets: (..., K) non-negative weights, usually probabilities; no gradient flows into them.
        temperature: Temperature of the student.

    Returns:
        (...) float32.
    """
    scaled = logits.float() / temperature
    targets = targets.detach().float()
    inner = (targets * scaled).sum(-1)
    return torch.logsumexp(scaled, dim=-1) * targets.sum(-1) - inner
