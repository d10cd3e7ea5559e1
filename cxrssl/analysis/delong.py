"""DeLong's test of two correlated areas under the ROC."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxrssl.analysis.resampling import check_resampled
from cxrssl.errors import InputError

__all__ = ["DeLong", "delong_test"]


class DeLong(NamedTuple):
    """Two areas under the ROC on the same images, and how surely they differ."""

    auroc_first: float
    auroc_second: float
    difference: float
    """First minus second."""
    standard_error: float
    """Of the difference; NaN with a single positive or a single negative."""
    p: float
    """Two-sided, for equal areas. 1 where they are equal; NaN where they differ and no variance
    can be estimated."""


def delong_test(
    first: NDArray[np.floating], second: NDArray[np.floating], truth: NDArray[np.number]
) -> DeLong:
    """Return DeLong's test of whether two scores of one finding have the same AUROC.

    The areas are U statistics, and the variance of their difference is that of the mean of their
    structural components (DeLong et al. 1988, doi:10.2307/2531595), found from midranks in
    O(n log n) (Sun & Xu 2014, doi:10.1109/LSP.2014.2337313). Images count as independent: with
    several of a patient the standard error is too small, and a bootstrap of patients is the better
    test.

    Args:
        first: (n,), higher where the finding is more likely.
        second: (n,).
        truth: 1 where the finding is present and 0 where it is absent, (n,).

    Raises:
        InputError: If the shapes differ, a score is not finite, a truth is neither 0 nor 1, or
            there is no positive or no negative.
    """
    for scores in (first, second):
        check_resampled(scores, truth, np.ones((1, len(truth))))
    positive = truth == 1
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        raise InputError(
            f"AUROC needs positives and negatives, got {positives} and {negatives} of them"
        )
    below_first, above_first = _beaten(first, positive)
    below_second, above_second = _beaten(second, positive)
    pairs = positives * negatives
    areas = float(below_first.sum() / pairs), float(below_second.sum() / pairs)
    difference = float((below_first - below_second).sum() / pairs)
    # The counts are multiples of one half, so that equal ones have a variance of exactly zero.
    error = math.hypot(
        _error_of_mean(below_first - below_second) / negatives,
        _error_of_mean(above_first - above_second) / positives,
    )
    return DeLong(*areas, difference, error, _p_value(difference, error))


def _beaten(
    scores: NDArray[np.floating], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the negatives below each positive and the positives above each negative, ties half."""
    ranks = _midranks(scores)
    among_positives, among_negatives = _midranks(scores[positive]), _midranks(scores[~positive])
    below = ranks[positive] - among_positives
    above = len(among_positives) - (ranks[~positive] - among_negatives)
    return below, above


def _midranks(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return ranks from 1, tied scores sharing the mean of theirs."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(count) - (count - 1) / 2)[place]
    return ranks


def _error_of_mean(values: NDArray[np.float64]) -> float:
    if len(values) < 2:
        return math.nan
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def _p_value(difference: float, error: float) -> float:
    if difference == 0:
        return 1.0
    return math.erfc(abs(difference) / error / math.sqrt(2)) if error > 0 else math.nan
