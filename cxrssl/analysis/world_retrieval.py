"""What a predicted token is worth: whether it finds, and equals, the token it stands for."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "ERROR",
    "MEASURES",
    "feature_distances",
    "hits",
    "judge",
    "judge_chance",
    "patch_distances",
]

MEASURES = ("top-1", "top-5", "patch distance", "error")
"""What :func:`judge` measures, in the order of its columns."""

ERROR = MEASURES.index("error")


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


def judge(predicted: Tensor, tokens: Tensor, truth: Tensor, side: int) -> NDArray[np.float64]:
    """Compare the predicted tokens of one crop with all of its tokens.

    Args:
        predicted: (K, D).
        tokens: Target tokens (N, D), row by row.
        truth: Patch (K,) each prediction stands for.
        side: Patches along a side of the grid, N = side * side.

    Returns:
        `MEASURES` of each prediction, (K, 4): whether the right patch is nearest, or among the five
        nearest; how far from it the nearest one lies, in patches; and the mean squared error.
    """
    error = (predicted.float() - tokens[truth].float()).square().mean(-1, keepdim=True)
    truth = truth.cpu()
    distances = feature_distances(predicted, tokens)
    nearest = (distances == distances.amin(-1, keepdim=True)).double()
    apart = (nearest * patch_distances(side)[truth]).sum(-1) / nearest.sum(-1)
    columns = [hits(distances, truth, (1, 5)), apart[:, None], error.cpu().double()]
    return torch.cat(columns, dim=-1).numpy()


def judge_chance(tokens: Tensor, mean: Tensor, truth: Tensor, side: int) -> NDArray[np.float64]:
    """Return what :func:`judge` gives without knowledge, (K, 4).

    A patch drawn at random is what is found, and the error is that of one token for all.

    Args:
        tokens: Target tokens (N, D) of a crop.
        mean: The token (D,) that is best for all.
        truth: Patch (K,) each prediction stands for.
        side: Patches along a side of the grid.
    """
    error = (tokens[truth].float() - mean.to(tokens.device)).square().mean(-1, keepdim=True)
    shares = torch.tensor([1.0, min(5, side**2)], dtype=torch.float64) / side**2
    apart = patch_distances(side)[truth.cpu()].mean(-1, keepdim=True)
    columns = [shares.expand(len(truth), -1), apart, error.cpu().double()]
    return torch.cat(columns, dim=-1).numpy()
