"""VICReg's three terms: invariance between views, variance and covariance over the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cxrssl.losses.distributed import gather_rows

__all__ = ["covariance", "invariance", "variance", "vicreg_terms"]


def invariance(z1: Tensor, z2: Tensor) -> Tensor:
    """Return the mean over rows and dimensions of (z1 - z2)^2.

    Over the rows of this process; the mean over processes of equal batches is the global one.

    Args:
        z1: (B, ...) embeddings of one view.
        z2: (B, ...) embeddings of the other view of the same images.
    """
    return F.mse_loss(_rows(z1), _rows(z2))


def variance(z: Tensor, eps: float = 1e-4, gamma: float = 1.0) -> Tensor:
    """Return mean_j relu(gamma - sqrt(Var(z_j) + eps)), with the unbiased variance.

    Over the batch of all processes, which must hold equally many rows. Collapsed embeddings have
    gamma - sqrt(eps), with finite gradients.

    Args:
        z: (B, ...) embeddings; all dimensions but the first are flattened.
        eps: Added to the variance, so that the root has a slope at 0.
        gamma: Standard deviation that is asked of every dimension.

    Raises:
        ValueError: If the global batch has fewer than two rows.
    """
    return _hinge(_centred(gather_rows(_rows(z))), eps, gamma)


def covariance(z: Tensor) -> Tensor:
    """Return sum_{i != j} C_ij^2 / D of the unbiased covariance matrix C of the D dimensions.

    Over the batch of all processes, which must hold equally many rows. With N rows of unit variance
    it cannot fall below D / (N - 1) - 1.

    Args:
        z: (B, ...) embeddings; all dimensions but the first are flattened.

    Raises:
        ValueError: If the global batch has fewer than two rows.
    """
    rows = _rows(z)
    with torch.autocast(rows.device.type, enabled=False):
        return _off_diagonal(_centred(gather_rows(rows)))


def vicreg_terms(
    z1: Tensor, z2: Tensor, *, eps: float = 1e-4, gamma: float = 1.0
) -> dict[str, Tensor]:
    """Return the terms of VICReg (Bardes et al., 2022, arXiv 2105.04906), unweighted.

    ``invariance``, ``variance`` as the mean of both views, and ``covariance`` as their *sum*, which
    is how the released code, and MLVICX with it, counts them. Computed in float32 or better,
    whatever the precision of the run. The embeddings of each view are gathered from all processes
    once.

    Args:
        z1: (B, ...) embeddings of one view; all dimensions but the first are flattened.
        z2: (B, ...) embeddings of the other view of the same images.
        eps: See :func:`variance`.
        gamma: See :func:`variance`.

    Raises:
        ValueError: If the global batch has fewer than two rows.
    """
    first, second = _rows(z1), _rows(z2)
    with torch.autocast(first.device.type, enabled=False):
        x1, x2 = _centred(gather_rows(first)), _centred(gather_rows(second))
        return {
            "invariance": F.mse_loss(first, second),
            "variance": (_hinge(x1, eps, gamma) + _hinge(x2, eps, gamma)) / 2,
            "covariance": _off_diagonal(x1) + _off_diagonal(x2),
        }


def _rows(z: Tensor) -> Tensor:
    """Return (B, D) in float32, or in float64 where that came in."""
    return (z if z.dtype == torch.float64 else z.float()).flatten(1)


def _centred(z: Tensor) -> Tensor:
    if len(z) < 2:
        raise ValueError(
            f"variance and covariance need a batch of at least 2 over all processes, got {len(z)}"
        )
    return z - z.mean(0)


def _variances(x: Tensor) -> Tensor:
    """Return the unbiased variances (D,) of centred rows (N, D)."""
    return x.square().sum(0) / (len(x) - 1)


def _hinge(x: Tensor, eps: float, gamma: float) -> Tensor:
    return F.relu(gamma - torch.sqrt(_variances(x) + eps)).mean()


def _off_diagonal(x: Tensor) -> Tensor:
    """Return the covariance term of centred rows (N, D)."""
    n, dim = x.shape
    if n < dim:
        # X X^T has the same Frobenius norm as X^T X and is the smaller one; what is left to do is
        # to take the diagonal of the latter out, the squared variances.
        gram = x @ x.T / (n - 1)
        return (gram.square().sum() - _variances(x).square().sum()) / dim
    return (x.T @ x / (n - 1)).fill_diagonal_(0).square().sum() / dim
