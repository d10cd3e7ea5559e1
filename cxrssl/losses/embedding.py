"""Statistics of embeddings that tell how far they are from collapse."""

import math

import torch
from torch import Tensor

__all__ = ["embedding_statistics"]

_NAMES = ("std", "active_hinges", "effective_rank", "correlation")
_MAX_CORRELATED = 1024


@torch.no_grad()
def embedding_statistics(z: Tensor, *, eps: float = 1e-4, gamma: float = 1.0) -> dict[str, Tensor]:
    """Return statistics of the embeddings (N, D) of this process, without gradient.

    - ``std``: the mean over dimensions of the (unbiased) standard deviation;
    - ``active_hinges``: the share of dimensions in which VICReg's variance term is at work, where
      sqrt(Var + eps) < gamma;
    - ``effective_rank``: exp(entropy) of the normalised singular values of the centred embeddings
      (RankMe, arXiv 2210.02885), at most min(N - 1, D), and 0 where all rows are equal;
    - ``correlation``: the mean absolute correlation of two dimensions, 0 where there are no two.
      More than 1024 dimensions are thinned out evenly. Independent dimensions have about
      sqrt(2 / (pi N)).

    The last two leave out dimensions that are constant to float32's precision. All are
    0-dimensional float32 tensors, and all NaN if an embedding is not finite. One row has no spread
    and no rank.

    Args:
        z: (N, D), N at least 1; the rows of other processes are not looked at.
        eps: See :func:`cxrssl.losses.variance`.
        gamma: See :func:`cxrssl.losses.variance`.
    """
    with torch.autocast(z.device.type, enabled=False):
        if not torch.isfinite(z).all():  # the eigenvalue solver would raise
            nothing = torch.full((), torch.nan, dtype=torch.float32, device=z.device)
            return dict.fromkeys(_NAMES, nothing)
        # float64, so that small singular values survive being squared.
        x = z.double()
        x = x - x.mean(0)
        spread = (x.square().sum(0) / max(len(x) - 1, 1)).sqrt()  # (D,)
        varying = spread > torch.finfo(torch.float32).eps * z.abs().amax(0)
        used = x[:, varying]
        statistics = (
            spread.mean(),
            (torch.sqrt(spread.square() + eps) < gamma).double().mean(),
            _effective_rank(used),
            _correlation(used),
        )
        return {name: value.float() for name, value in zip(_NAMES, statistics, strict=True)}


def _effective_rank(x: Tensor) -> Tensor:
    gram = x @ x.T if x.shape[0] < x.shape[1] else x.T @ x
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = singular / singular.sum().clamp(min=torch.finfo(x.dtype).tiny)
    rank: Tensor = torch.special.entr(share).sum().exp() * (singular.sum() > 0)
    return rank


def _correlation(x: Tensor) -> Tensor:
    x = x[:, :: max(math.ceil(x.shape[1] / _MAX_CORRELATED), 1)]
    dim = x.shape[1]
    if dim < 2:
        return x.new_zeros(())
    unit = x / torch.linalg.vector_norm(x, dim=0)
    total: Tensor = (unit.T @ unit).fill_diagonal_(0).abs().sum()
    return total / (dim * (dim - 1))
