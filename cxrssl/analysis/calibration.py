"""How far predicted probabilities are from the shares of positives."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxrssl.analysis.resampling import check_resampled
from cxrssl.errors import InputError

__all__ = ["ReliabilityCurve", "reliability_curve", "weighted_brier", "weighted_ece"]


class ReliabilityCurve(NamedTuple):
    """Predicted against observed shares of positives, in bins of equal width over [0, 1]."""

    confidence: NDArray[np.float64]
    """Mean probability in each bin, (bins,); NaN where it is empty."""
    accuracy: NDArray[np.float64]
    """Share of positives in each bin, (bins,); NaN where it is empty."""
    images: NDArray[np.int64]
    """Number in each bin, (bins,)."""


def weighted_brier(
    probabilities: NDArray[np.floating], truth: NDArray[np.number], weights: NDArray[np.number]
) -> NDArray[np.float64]:
    """Return the mean squared error of probabilities in each of R resamples.

    It is the score of Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.

    Args:
        probabilities: (n,), in [0, 1].
        truth: 1 where the finding is present and 0 where it is absent, (n,).
        weights: How often each image stands in each resample, (R, n).

    Returns:
        (R,), NaN for a resample without images.

    Raises:
        InputError: If the shapes do not belong together, there is no image, a probability is not
            in [0, 1] or a truth is neither 0 nor 1.
    """
    _check(probabilities, truth, weights)
    errors = np.square(truth - probabilities.astype(np.float64))
    return _per_image(weights.astype(np.float64) @ errors, weights)


def weighted_ece(
    probabilities: NDArray[np.floating],
    truth: NDArray[np.number],
    weights: NDArray[np.number],
    bins: int = 15,
) -> NDArray[np.float64]:
    """Return the expected calibration error in each of R resamples.

    It is the mean, over the images, of the distance between the mean probability and the share of
    positives in an image's bin (L1; Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602). Bins have
    equal width and hold their lower end; the last holds 1 as well, for which TorchMetrics has a
    bin of its own.

    Args:
        probabilities: (n,), in [0, 1].
        truth: 1 where the finding is present and 0 where it is absent, (n,).
        weights: How often each image stands in each resample, (R, n).
        bins: Number of bins.

    Returns:
        (R,), NaN for a resample without images.

    Raises:
        InputError: As :func:`weighted_brier`, or if there is no bin.
    """
    _check(probabilities, truth, weights)
    gaps = np.zeros((len(truth), bins))
    gaps[np.arange(len(truth)), _bin_of(probabilities, bins)] = truth - probabilities.astype(float)
    return _per_image(np.abs(weights.astype(np.float64) @ gaps).sum(1), weights)


def reliability_curve(
    probabilities: NDArray[np.floating], truth: NDArray[np.number], bins: int = 15
) -> ReliabilityCurve:
    """Return the curve of a reliability diagram, with the bins of :func:`weighted_ece`.

    Args:
        probabilities: (n,), in [0, 1].
        truth: 1 where the finding is present and 0 where it is absent, (n,).
        bins: Number of bins.

    Raises:
        InputError: As :func:`weighted_ece`.
    """
    _check(probabilities, truth, np.ones((1, len(truth))))
    bin_of = _bin_of(probabilities, bins)
    images = np.bincount(bin_of, minlength=bins)
    means = np.full((2, bins), np.nan)
    for mean, values in zip(means, (probabilities, truth), strict=True):
        sums = np.bincount(bin_of, weights=values, minlength=bins)
        np.divide(sums, images, out=mean, where=images > 0)
    return ReliabilityCurve(means[0], means[1], images)


def _check(
    probabilities: NDArray[np.floating], truth: NDArray[np.number], weights: NDArray[np.number]
) -> None:
    check_resampled(probabilities, truth, weights)
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise InputError(
            f"probabilities must be in [0, 1], got {probabilities.min():g} to "
            f"{probabilities.max():g}; apply a sigmoid to logits first"
        )


def _bin_of(probabilities: NDArray[np.floating], bins: int) -> NDArray[np.intp]:
    if bins < 1:
        raise InputError(f"bins must be at least 1, got {bins}")
    edges = np.linspace(0, 1, bins + 1)
    return np.searchsorted(edges[1:-1], probabilities, side="right")


def _per_image(sums: NDArray[np.float64], weights: NDArray[np.number]) -> NDArray[np.float64]:
    images = weights.sum(1, dtype=np.float64)
    missing = np.full(len(sums), np.nan)
    mean: NDArray[np.float64] = np.divide(sums, images, out=missing, where=images > 0)
    return mean
