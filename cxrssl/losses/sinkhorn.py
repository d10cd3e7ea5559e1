"""Sinkhorn-Knopp: teacher probabilities that use every prototype equally."""

import torch
from torch import Tensor

from cxrssl.losses.distributed import all_max, all_sum

__all__ = ["sinkhorn"]

_TINY = 1e-30


@torch.no_grad()
def sinkhorn(logits: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """Return teacher probabilities after a few rounds of Sinkhorn-Knopp over the global batch.

    Rows sum to exactly 1; the prototypes are used almost equally. The rows may be spread unequally
    over the processes; the result is that of one process with all rows.

    The alternating normalisation of the (B, K) matrix is carried out on its two scaling vectors
    only, which needs one matrix in memory and one all-reduce of K numbers in each iteration. Each
    row is shifted by its own maximum, and the shift is put back through the row's initial scale, so
    that neither large logits nor low temperatures overflow and the result is unchanged.

    Args:
        logits: (B, K) teacher logits of this process; B may be 0 here if other processes have rows.
        temperature: Temperature of the teacher.
        iterations: Number of rounds; DINOv2 uses 3.

    Returns:
        (B, K) float32.
    """
    with torch.autocast(logits.device.type, enabled=False):
        scaled = logits.float() / temperature
        n_prototypes = scaled.shape[1]
        n_rows = all_sum(scaled.new_tensor([float(len(scaled))]))
        shift = scaled.amax(1) if len(scaled) else scaled.new_zeros(0)  # (B,)
        highest = all_max(torch.cat([shift, shift.new_tensor([-torch.inf])]).amax().view(1))
        weights = (scaled - shift[:, None]).exp_()  # (B, K)
        rows = (shift - highest).exp()  # (B,)
        columns = weights.new_ones(n_prototypes)
        for _ in range(iterations):
            usage = all_sum(rows @ weights)  # (K,)
            columns = 1 / (n_prototypes * usage.clamp(min=_TINY))
            rows = 1 / (n_rows * (weights @ columns).clamp(min=_TINY))
        return weights.mul_(columns).mul_((rows * n_rows)[:, None])
