"""Whether a predicted token finds the token it stands for, where ties are worth what chance is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["RETRIEVAL", "Retrieved", "feature_distances", "hits", "patch_distances", "retrieve"]

RETRIEVAL = ("top-1", "top-5", "patch distance")
"""The measures of :class:`Retrieved`, in the order of its columns."""


class Retrieved(NamedTuple):
    """What tokens found, and what a patch drawn at random would have been."""

    found: NDArray[np.float64]
    """(..., K, 3): right patch nearest, among the five nearest, distance to it in patches."""
    chance: NDArray[np.float64]
    """The same of a random patch, (K, 3)."""


def feature_distances(predicted: Tensor, candidates: Tensor) -> Tensor:
    """Return Euclidean distances (..., K, M) of predictions (..., K, D) to candidates (..., M, D).

    They are on the CPU, whatever the device of the features.

    Raises:
        ValueError: If a feature is not finite, which would rank nothing.
    """
    # Candidates may be much alike; expanding the square would lose what tells them apart.
    distances = torch.cdist(
        predicted.float(), candidates.float(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    if not torch.isfinite(distances).all():
        raise ValueError("the world model's tokens hold NaN or inf: nothing can be measured on it")
    return distances.cpu()


def hits(distances: Tensor, truth: Tensor, ks: Sequence[int]) -> Tensor:
    """Return for each row the probability that its true column is among the k nearest.

    Columns at the same distance are ranked at random, so that a model whose features are all alike
    scores what chance does.

    Args:
        distances: (..., K, M).
        truth: Column (K,) that is the true one.
        ks: Ranks that count as a hit.

    Returns:
        (..., K, len(ks)) in [0, 1], float64.
    """
    true = distances.gather(-1, truth.expand(distances.shape[:-1])[..., None])
    nearer = (distances < true).sum(-1, keepdim=True)
    alike = (distances == true).sum(-1, keepdim=True)
    return ((torch.tensor(list(ks)) - nearer).double() / alike).clamp(0, 1)


def patch_distances(side: int) -> Tensor:
    """Return the distances (N, N) between the patches of a square grid, in patches."""
    axis = torch.arange(side, dtype=torch.float64)
    places = torch.cartesian_prod(axis, axis)
    return torch.cdist(places, places)


def retrieve(predicted: Tensor, tokens: Tensor, truth: Tensor, side: int) -> Retrieved:
    """Look for every predicted token among all tokens of the image it belongs to.

    Args:
        predicted: (..., K, D).
        tokens: Target tokens (..., N, D) of the image, row by row.
        truth: Patch (K,) each prediction stands for.
        side: Patches along a side of the grid, N = side * side.
    """
    truth = truth.cpu()
    distances = feature_distances(predicted, tokens)
    between = patch_distances(side)[truth]  # (K, N)
    nearest = (distances == distances.amin(-1, keepdim=True)).double()
    apart = (nearest * between).sum(-1, keepdim=True) / nearest.sum(-1, keepdim=True)
    found = torch.cat([hits(distances, truth, (1, 5)), apart], dim=-1)
    n_tokens = side * side
    shares = torch.tensor([1 / n_tokens, min(1.0, 5 / n_tokens)], dtype=torch.float64)
    chance = torch.cat([shares.expand(len(truth), -1), between.mean(-1, keepdim=True)], dim=-1)
    return Retrieved(found.numpy(), chance.numpy())
