"""Scores that only rank turned into probabilities."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from cxrssl.analysis.metrics import known_labels
from cxrssl.errors import InputError

__all__ = ["PlattScaling"]

_NO_PENALTY = 1e12
_LEAST_SLOPE = 1e-3
_SMALLEST_STD = 1e-12


class PlattScaling:
    """A sigmoid of each finding's score, fitted to images the scores were not learnt from.

    Scale and offset maximise the likelihood of Platt's smoothed labels, (P + 1) / (P + 2) for the
    P positives and 1 / (N + 2) for the N negatives (Platt 1999, "Probabilistic outputs for support
    vector machines"), so that classes which do not overlap give no infinite scale. The sigmoid
    always rises, at least a thousandth for a standard deviation of the scores: it changes no order,
    and probabilities are almost constant where scores say nothing.
    """

    def fit(self, scores: NDArray[np.floating], labels: NDArray[np.floating]) -> "PlattScaling":
        """Fit every finding of which the images show both classes.

        Args:
            scores: (n, F), higher where the finding is more likely.
            labels: (n, F), 1, 0, -1 (uncertain) or NaN (missing).

        Raises:
            InputError: If the shapes differ.
        """
        if scores.ndim != 2 or scores.shape != labels.shape:
            raise InputError(
                f"scores {scores.shape} and labels {labels.shape} must both be (images, findings)"
            )
        self.slopes = np.full(scores.shape[1], np.nan)
        self.offsets = np.full(scores.shape[1], np.nan)
        for finding, known in enumerate(known_labels(labels).T):
            truth = labels[known, finding]
            if len(np.unique(truth)) == 2:
                self.slopes[finding], self.offsets[finding] = _fit(scores[known, finding], truth)
        return self

    def predict(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return probabilities (n, F) of scores (n, F), NaN for findings without a fit."""
        logits = torch.from_numpy(scores * self.slopes + self.offsets)
        probabilities: NDArray[np.float64] = logits.sigmoid().numpy()
        return probabilities


def _fit(scores: NDArray[np.floating], truth: NDArray[np.floating]) -> tuple[float, float]:
    """Return scale and offset of scores (n,) with truth (n,)."""
    mean, std = float(scores.mean()), max(float(scores.std()), _SMALLEST_STD)
    positives = float(truth.sum())
    smoothed = np.where(
        truth == 1, (positives + 1) / (positives + 2), 1 / (len(truth) - positives + 2)
    )
    # A label between 0 and 1 is both, each with its share.
    x = np.tile((scores - mean) / std, 2)[:, None]
    both = np.repeat([1, 0], len(truth))
    model = LogisticRegression(C=_NO_PENALTY, tol=1e-8, max_iter=1000)
    model.fit(x, both, sample_weight=np.concatenate([smoothed, 1 - smoothed]))
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope < _LEAST_SLOPE:
        share = float(smoothed.mean())
        slope, offset = _LEAST_SLOPE, math.log(share / (1 - share))
    return slope / std, offset - slope * mean / std
