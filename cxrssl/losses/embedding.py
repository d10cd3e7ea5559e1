"""What a batch of embeddings looks like, to be watched and not to be trained on."""

import torch
from torch import Tensor

__all__ = ["embedding_statistics"]


@torch.no_grad()
def embedding_statistics(z: Tensor) -> dict[str, Tensor]:
    """Return how embeddings (B, D) of this process use their space, as float32 scalars.

    Returns:
        ``std``: the mean unbiased standard deviation of the dimensions; ``active_hinges``: the
        share of dimensions on which VICReg's variance term acts, those below 1; ``effective_rank``:
        the exponential of the entropy of the singular values' shares (RankMe, arXiv 2210.02885) of
        the centred rows, at most B - 1, 0 where all are equal; ``correlation``: the mean absolute
        correlation of two different dimensions, constant ones left out.
    """
    with torch.autocast(z.device.type, enabled=False):
        rows = z.flatten(1).float()
        rows = rows - rows.mean(0)
        deviation = (rows.square().sum(0) / max(len(rows) - 1, 1)).sqrt()
        return {
            "std": deviation.mean(),
            "active_hinges": (deviation < 1).float().mean(),
            "effective_rank": _effective_rank(rows),
            "correlation": _correlation(rows),
        }


def _effective_rank(rows: Tensor) -> Tensor:
    rows = rows.double()
    # The eigenvalues of the smaller product are the squared singular values, at a fraction of the
    # cost of a decomposition of the rows.
    product = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    values = torch.linalg.eigvalsh(product).clamp(min=0).sqrt()
    shares = values / values.sum()
    rank: Tensor = torch.special.entr(shares).sum().exp().nan_to_num(0.0).float()
    return rank


def _correlation(rows: Tensor) -> Tensor:
    norms = rows.norm(dim=0)
    used = rows[:, norms > 0] / norms[norms > 0]
    dim = used.shape[1]
    if dim < 2:
        return rows.new_zeros(())
    mean: Tensor = ((used.T @ used).abs().sum() - dim) / (dim * (dim - 1))
    return mean
