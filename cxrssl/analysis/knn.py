"""Nearest-neighbour classification of features, several findings at once."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.analysis.metrics import known_labels

__all__ = ["multilabel_knn"]

_QUERIES_AT_ONCE = 1024


def multilabel_knn(
    train_features: NDArray[np.floating],
    train_labels: NDArray[np.floating],
    features: NDArray[np.floating],
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> NDArray[np.float32]:
    """Return, for every finding, the share of positives among the nearest training images.

    Each neighbour votes with weight exp(cosine / temperature), as in DINO (arXiv 2104.14294). A
    finding's neighbours are the ``k`` nearest of the images where *its* label is known, so that a
    missing label costs no vote; all of them where fewer than ``k`` are known, and 0 for every
    image where none is.

    Args:
        train_features: (m, D).
        train_labels: (m, F), 1, 0, -1 (uncertain) or NaN (missing).
        features: (n, D), the images to be scored.
        k: Number of neighbours.
        temperature: Temperature of the votes, on cosine similarity.

    Returns:
        Scores (n, F) in [0, 1].

    Raises:
        ValueError: If ``k`` or the temperature is not positive, or the shapes do not agree.
    """
    if k < 1 or temperature <= 0:
        raise ValueError(f"k and temperature must be positive, got {k} and {temperature}")
    if len(train_features) != len(train_labels) or train_features.shape[1:] != features.shape[1:]:
        raise ValueError(
            f"training features {train_features.shape}, training labels {train_labels.shape} and "
            f"features {features.shape} do not agree; expected (m, D), (m, F) and (n, D)"
        )
    scores = np.zeros((len(features), train_labels.shape[1]), dtype=np.float32)
    # Findings labelled on the same images share their neighbours.
    patterns, pattern_of = np.unique(known_labels(train_labels), axis=1, return_inverse=True)
    for pattern in range(patterns.shape[1]):
        rows, columns = patterns[:, pattern], np.flatnonzero(pattern_of.ravel() == pattern)
        if rows.any():
            scores[:, columns] = _vote(
                _normalised(train_features[rows]),
                torch.from_numpy(train_labels[np.ix_(rows, columns)]).float(),
                _normalised(features),
                k,
                temperature,
            )
    return scores


def _normalised(features: NDArray[np.floating]) -> Tensor:
    return F.normalize(torch.from_numpy(features).float(), dim=1)


def _vote(
    train: Tensor, labels: Tensor, queries: Tensor, k: int, temperature: float
) -> NDArray[np.float32]:
    votes = []
    for chunk in torch.split(queries, _QUERIES_AT_ONCE):
        similarity, neighbours = (chunk @ train.T).topk(min(k, len(train)), dim=1)  # (q, k)
        weights = torch.softmax(similarity / temperature, dim=1)
        votes.append(torch.einsum("qk,qkf->qf", weights, labels[neighbours]))
    scores: NDArray[np.float32] = torch.cat(votes).numpy()
    return scores
