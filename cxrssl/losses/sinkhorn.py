"""Sinkhorn-Knopp: teacher probabilities that use every prototype equally."""

import math

import torch
from torch import Tensor

from cxrssl.losses.distributed import all_max, all_sum

__all__ = ["sinkhorn"]


@torch.no_grad()
def sinkhorn(logits: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """Return teacher probabilities after a few rounds of Sinkhorn-Knopp over the global batch.

    Rows sum to exactly 1; the prototypes are used almost equally. The rows may be spread unequally
    over the processes; the result is that of one process with all rows.

    The alternating normalisation of the (B, K) matrix is carried out on its two scaling vectors
    only, kept as logarithms, which needs one matrix in memory and one all-reduce of K numbers an
    iteration. The matrix is shifted by the maximum of each row and then of each column, and both
    shifts go into the vectors: every row and every column holds a 1, so that neither large logits,
    low temperatures nor a prototype nobody likes overflow or vanish, and the result is unchanged.

    Args:
        logits: (B, K) teacher logits of this process; B may be 0 here if other processes have rows.
        temperature: Temperature of the teacher.
        iterations: Number of rounds; DINOv2 uses 3.

    Returns:
        (B, K) float32.
    """
    with torch.autocast(logits.device.type, enabled=False):
        scaled = logits.float() / temperature
        n_rows, n_prototypes = scaled.shape
        total = all_sum(scaled.new_tensor([float(n_rows)])).clamp(min=1).log()
        rows = scaled.amax(1) if n_rows else scaled.new_zeros(0)  # (B,), a logarithm like columns
        scaled -= rows[:, None]
        lowest = scaled.new_full((n_prototypes,), -torch.inf)
        shift = all_max(scaled.amax(0) if n_rows else lowest)  # (K,)
        weights = scaled.sub_(shift).exp_()  # (B, K)
        columns = scaled.new_zeros(n_prototypes)
        for _ in range(iterations):
            peak = all_max(torch.cat([rows, lowest[:1]]).amax().view(1))
            usage = all_sum((rows - peak).exp() @ weights)  # (K,)
            columns = -math.log(n_prototypes) - _log(usage) - peak
            peak = columns.amax()
            rows = -total - _log(weights @ (columns - peak).exp()) - peak
        # The last scaling of the rows, as a softmax: what a row was shifted by does not matter.
        del weights, scaled
        return (logits.float() / temperature + (columns - shift)).softmax(1)


def _log(values: Tensor) -> Tensor:
    return values.clamp(min=torch.finfo(values.dtype).tiny).log()
