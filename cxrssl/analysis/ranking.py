"""Rank metrics of one finding in many resamples at once, from a single sort."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxrssl.analysis.resampling import check_resampled

__all__ = [
    "ThresholdCounts",
    "threshold_counts",
    "weighted_auprc",
    "weighted_auroc",
    "weighted_sensitivity",
]


class ThresholdCounts(NamedTuple):
    """What stands at or above each of K thresholds, highest first, in each of R resamples.

    Every metric is NaN (R,) in a resample without a positive or without a negative.
    """

    true_positives: NDArray[np.float64]
    """(R, K); the last threshold is below all images."""
    false_positives: NDArray[np.float64]
    """(R, K)."""

    def auroc(self) -> NDArray[np.float64]:
        """Return the area under the ROC, ties counting one half, (R,)."""
        true, false = self
        rises = np.diff(false, prepend=0)
        # Twice the area of the trapezia, in whole pairs of a positive and a negative.
        pairs = np.einsum("rk,rk->r", rises, true)
        pairs += np.einsum("rk,rk->r", rises[:, 1:], true[:, :-1])
        return self._defined(pairs, 2 * true[:, -1] * false[:, -1])

    def auprc(self) -> NDArray[np.float64]:
        """Return the average precision, without interpolation, (R,)."""
        true, false = self
        # Nothing of a resample need stand above its first thresholds; recall does not rise there.
        found = true + false
        precision = np.divide(true, found, out=np.zeros_like(true), where=found > 0)
        gained = np.einsum("rk,rk->r", np.diff(true, prepend=0), precision)
        return self._defined(gained, true[:, -1])

    def sensitivity(self, specificity: float) -> NDArray[np.float64]:
        """Return the largest sensitivity at a threshold of at least this specificity, (R,)."""
        true, false = self
        negatives = false[:, -1:]
        # The product may round to just above a whole number of negatives.
        allowed = negatives - false >= specificity * negatives * (1 - 1e-12)
        return self._defined(np.max(true * allowed, axis=1), true[:, -1])

    def _defined(
        self, numerator: NDArray[np.float64], denominator: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        both = (self.true_positives[:, -1] > 0) & (self.false_positives[:, -1] > 0)
        missing = np.full(len(both), np.nan)
        ratio: NDArray[np.float64] = np.divide(numerator, denominator, out=missing, where=both)
        return ratio


def threshold_counts(
    scores: NDArray[np.floating], truth: NDArray[np.number], weights: NDArray[np.number]
) -> ThresholdCounts:
    """Return the counts that the rank metrics of a finding rest on.

    Thresholds lie between distinct scores only, so that tied images pass together. Of a run of
    thresholds with nothing but negatives in between only the last is kept: it holds all that the
    metrics need, and K is at most twice the number of positives, plus one.

    Args:
        scores: (n,), higher where the finding is more likely.
        truth: 1 where the finding is present and 0 where it is absent, (n,).
        weights: How often each image stands in each resample, (R, n).

    Raises:
        InputError: If the shapes do not belong together, there is no image, a score is not finite
            or a truth is neither 0 nor 1.
    """
    check_resampled(scores, truth, weights)
    order = np.argsort(-scores, kind="stable")
    ordered, positive = scores[order], truth[order] == 1
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    reached = np.cumsum(positive)[ends]  # positives at or above each threshold
    rises = np.diff(reached, prepend=0) > 0
    kept = rises | np.append(rises[1:], True)
    ends, reached = ends[kept], reached[kept]

    found = np.cumsum(np.take(weights, order, axis=1), axis=1, dtype=np.float64)[:, ends]
    true = np.zeros((len(weights), 1 + int(positive.sum())))
    np.cumsum(np.take(weights, order[positive], axis=1), axis=1, out=true[:, 1:])
    true = true[:, reached]
    return ThresholdCounts(true, found - true)


def weighted_auroc(
    scores: NDArray[np.floating], truth: NDArray[np.number], weights: NDArray[np.number]
) -> NDArray[np.float64]:
    """Return the area under the ROC of a finding in each of R resamples.

    It is the share of pairs of a positive and a negative that are in the right order, a tie
    counting one half.

    Args:
        scores: (n,), higher where the finding is more likely.
        truth: 1 where the finding is present and 0 where it is absent, (n,).
        weights: How often each image stands in each resample, (R, n).

    Returns:
        (R,), NaN where a resample has no positive or no negative.

    Raises:
        InputError: As :func:`threshold_counts`.
    """
    return threshold_counts(scores, truth, weights).auroc()


def weighted_auprc(
    scores: NDArray[np.floating], truth: NDArray[np.number], weights: NDArray[np.number]
) -> NDArray[np.float64]:
    """Return the average precision of a finding in each of R resamples.

    It is the mean, over the positives, of the precision at the threshold that just finds them;
    there is no interpolation. Arguments, result and errors are those of :func:`weighted_auroc`.
    """
    return threshold_counts(scores, truth, weights).auprc()


def weighted_sensitivity(
    scores: NDArray[np.floating],
    truth: NDArray[np.number],
    weights: NDArray[np.number],
    specificity: float = 0.9,
) -> NDArray[np.float64]:
    """Return the largest sensitivity with at least some specificity, in each of R resamples.

    The threshold is chosen anew in every resample; 0 where only one above all scores will do.
    Arguments, result and errors are otherwise those of :func:`weighted_auroc`.

    Args:
        scores: (n,).
        truth: (n,).
        weights: (R, n).
        specificity: Smallest share of the negatives below the threshold, in [0, 1].
    """
    return threshold_counts(scores, truth, weights).sensitivity(specificity)
