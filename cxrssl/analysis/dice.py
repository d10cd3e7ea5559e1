"""Dice scores of masks, under conventions that are often mixed up."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.analysis.resampling import patient_numbers, patient_weights, percentile_interval
from cxrssl.errors import InputError

__all__ = ["dice_scores", "summarise_dice"]

_UNKNOWN = 255
_LEVEL = 0.95
_AT_ONCE = 100  # resamples; their weights are as many numbers as there are images


def dice_scores(prediction: NDArray[np.bool_], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the Dice score of every image and structure, over its known pixels.

    Twice the overlap over the sum of both areas. Where both are empty it is 1, where one is, 0.

    Args:
        prediction: (n, K, H, W).
        truth: (n, K, H, W), 1 inside, 0 outside, 255 unknown.

    Returns:
        (n, K), NaN where no pixel is known.

    Raises:
        InputError: If the shapes differ, the prediction is not boolean, or the truth has other
            values.
    """
    if prediction.shape != truth.shape or truth.ndim != 4 or prediction.dtype != np.bool_:
        raise InputError(
            f"the prediction {prediction.shape} {prediction.dtype} must be boolean, and it and the "
            f"truth {truth.shape} must both be (n, K, H, W): threshold probabilities at 0.5"
        )
    inside, known = truth == 1, truth != _UNKNOWN
    if not (inside | (truth == 0) | ~known).all():
        others = np.setdiff1d(truth, (0, 1, _UNKNOWN)).tolist()
        raise InputError(f"truth must be 0, 1 or {_UNKNOWN}, got {others}")
    overlap = _area(prediction & inside)
    total = _area(prediction & known) + _area(inside)
    scores = np.where(total > 0, 2 * overlap / np.maximum(total, 1), 1.0)
    return np.where(_area(known) > 0, scores, np.nan)


def summarise_dice(
    each: NDArray[np.floating],
    empty_truth: NDArray[np.bool_],
    names: Sequence[str],
    *,
    patients: Iterable[object] | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return mean Dice scores with 95 % intervals of a bootstrap over patients.

    Where most images lack a structure, the mean over ``all images`` is mainly about how often
    nothing is predicted there: ``always empty`` is what predicting nothing at all scores under that
    convention, and ``positives only`` is the mean over images that show the structure.

    The ``macro`` rows are means over structures; a structure without images is left out, also of a
    resample that has none. Their standard deviation is that of the images' means over structures.

    Args:
        each: (n, K) of :func:`dice_scores`, NaN where not known.
        empty_truth: (n, K), whether no known pixel is inside the structure.
        names: The K structures.
        patients: Identifier of each image's patient; see :func:`patient_weights`. Without, each
            image is a patient of its own.
        replicates: Number of resamples of whole patients, the same for all rows.
        seed: Of the resamples.

    Returns:
        Columns ``structure``, ``convention``, ``mean``, ``std`` (over images, n - 1 below),
        ``low``, ``high`` and ``images``, how many were averaged. NaN where there are too few:
        intervals need two patients.

    Raises:
        InputError: If the shapes do not belong together, or there is no image or no resample.
    """
    n = len(each)
    owners = np.arange(n) if patients is None else patient_numbers(patients)
    fits = each.shape == empty_truth.shape == (len(owners), len(names))
    if not fits or min(n, len(names), replicates) < 1:
        raise InputError(
            f"each {each.shape} and empty_truth {empty_truth.shape} must both be ({len(owners)} "
            f"patients' images, {len(names)} names), at least one of each, with 1 resample or "
            f"more, got {replicates}"
        )
    unknown = np.isnan(each)
    conventions = {
        "all images": each,
        "positives only": np.where(empty_truth, np.nan, each),
        "always empty": np.where(unknown, np.nan, empty_truth),
    }
    stacked = np.stack(list(conventions.values()), 1).astype(np.float64)  # (n, conventions, K)
    drawn = _resampled_means(stacked, owners, replicates, np.random.default_rng(seed))
    values, resampled = _with_macro(stacked), _with_macro(drawn)
    means = _with_macro(_mean(stacked, 0))
    rows = [
        (
            name,
            convention,
            float(means[i, k]),
            *_spread(values[:, i, k], resampled[:, i, k], owners),
        )
        for k, name in enumerate([*names, "macro"])
        for i, convention in enumerate(conventions)
    ]
    columns = ["structure", "convention", "mean", "std", "low", "high", "images"]
    return pd.DataFrame(rows, columns=columns)


def _area(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the numbers of pixels (n, K) of masks (n, K, H, W)."""
    area: NDArray[np.int64] = masks.sum((2, 3), dtype=np.int64)
    return area


def _resampled_means(
    values: NDArray[np.float64],
    owners: NDArray[np.int64],
    replicates: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return the means (R, ...) over resamples of values (n, ...), those that are not NaN."""
    flat = values.reshape(len(values), -1)
    known = ~np.isnan(flat)
    sums, counts = [], []
    for start in range(0, replicates, _AT_ONCE):
        weights = patient_weights(owners, min(_AT_ONCE, replicates - start), rng)
        weights = weights.astype(np.float64)
        sums.append(weights @ np.where(known, flat, 0))
        counts.append(weights @ known)
    total, count = np.concatenate(sums), np.concatenate(counts)
    means = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means.reshape(replicates, *values.shape[1:])


def _with_macro(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values (..., K) with their mean over structures behind them, (..., K + 1)."""
    return np.concatenate([values, _mean(values, -1)[..., None]], -1)


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return the mean of what is not NaN, NaN where all is."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    total = np.where(known, values, 0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _spread(
    images: NDArray[np.float64], resampled: NDArray[np.float64], owners: NDArray[np.int64]
) -> tuple[float, float, float, int]:
    """Return standard deviation, both ends of the interval and number of the images (n,)."""
    known = ~np.isnan(images)
    n = int(known.sum())
    std = float(images[known].std(ddof=1)) if n > 1 else np.nan
    if len(np.unique(owners[known])) < 2:
        return std, np.nan, np.nan, n
    low, high = percentile_interval(resampled, _LEVEL)
    return std, float(low), float(high), n
