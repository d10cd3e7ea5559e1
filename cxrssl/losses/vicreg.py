"""VICReg's terms: invariance between two views, variance and covariance over the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cxrssl.losses.distributed import gather_rows

__all__ = ["covariance", "invariance", "variance", "vicreg_terms"]

EPS = 1e-4
"""Added to a variance before its root is taken."""


def vicreg_terms(first: Tensor, second: Tensor) -> dict[str, Tensor]:
    """Return the terms of VICReg (arXiv 2105.04906, equations 1 to 5) of two views, unweighted.

    ``variance`` is the mean of both views, ``covariance`` their *sum*, as released (VICRegL halves
    it). Variance and covariance are those of the batch over all processes; the mean over processes
    of the results, which DDP makes of their gradients, is then what one process would compute.

    Args:
        first: Embeddings (B, D) of the first view; what is behind B is flattened. Every process has
            the same number of rows.
        second: Those of the second view.

    Returns:
        ``invariance``, ``variance`` and ``covariance`` in single precision; in double for
        embeddings in double.

    Raises:
        ValueError: If the shapes differ or there are fewer than two rows in all processes.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"the two views must have one shape, got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    with torch.autocast(first.device.type, enabled=False):
        centred = [_centred(z) for z in (first, second)]
        return {
            "invariance": invariance(first, second),
            "variance": torch.stack([_hinge(z) for z in centred]).mean(),
            "covariance": torch.stack([_off_diagonal(z) for z in centred]).sum(),
        }


def invariance(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean squared difference of embeddings (B, D) of two views on this process."""
    return F.mse_loss(_rows(first), _rows(second))


def variance(z: Tensor) -> Tensor:
    """Return the mean over dimensions of relu(1 - sqrt(var + 1e-4)) of embeddings (B, D).

    The variance is the unbiased one over the rows of all processes.

    Raises:
        ValueError: If there are fewer than two rows.
    """
    with torch.autocast(z.device.type, enabled=False):
        return _hinge(_centred(z))


def covariance(z: Tensor) -> Tensor:
    """Return the sum of squared off-diagonal covariances of embeddings (B, D), over D.

    The covariances are the unbiased ones over the rows of all processes.

    Raises:
        ValueError: If there are fewer than two rows.
    """
    with torch.autocast(z.device.type, enabled=False):
        return _off_diagonal(_centred(z))


def _rows(z: Tensor) -> Tensor:
    """Return rows (B, D) in at least single precision."""
    rows = z.flatten(1)
    return rows if rows.dtype == torch.float64 else rows.float()


def _centred(z: Tensor) -> Tensor:
    """Return the rows of all processes without their mean."""
    rows = gather_rows(_rows(z))
    if len(rows) < 2:
        raise ValueError(
            "variance and covariance need at least two images over all processes, got "
            f"{len(rows)}; use a larger batch"
        )
    return rows - rows.mean(0)


def _hinge(centred: Tensor) -> Tensor:
    deviation = (centred.square().sum(0) / (len(centred) - 1) + EPS).sqrt()
    return F.relu(1 - deviation).mean()


def _off_diagonal(centred: Tensor) -> Tensor:
    n, dim = centred.shape
    if n >= dim:
        squares = (centred.T @ centred).square()
        total = squares.sum() - squares.diagonal().sum()
    else:  # the norm of this product is the same, and it is smaller
        total = (centred @ centred.T).square().sum() - centred.square().sum(0).square().sum()
    return total / ((n - 1) ** 2 * dim)
