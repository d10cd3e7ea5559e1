"""Bootstrap resamples of whole patients, as weights of their images."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.errors import InputError

__all__ = [
    "check_resampled",
    "patient_numbers",
    "patient_weights",
    "patients_of",
    "percentile_interval",
]


def patients_of(rows: pd.DataFrame) -> "pd.Series[str]":
    """Return whose each image is; the same number in two datasets is two people.

    Images without a patient are whose their study is.

    Args:
        rows: Rows of an index, with ``dataset`` and ``patient_id``, and ``study_id`` if known.

    Returns:
        One identifier a row, missing where patient and study are.
    """
    dataset = rows["dataset"].astype("string").fillna("")
    patients = dataset + " " + rows["patient_id"].astype("string")
    if "study_id" not in rows:
        return patients
    return patients.fillna(dataset + " study " + rows["study_id"].astype("string"))


def patient_numbers(patients: Iterable[object]) -> NDArray[np.int64]:
    """Return the patient of each image, numbered from 0 in the order of their first images.

    Args:
        patients: Identifier of the patient of each of n images; an image without one (None, NaN or
            ``pd.NA``) is a patient of its own.
    """
    numbers, known = pd.factorize(pd.Series(list(patients), dtype=object))
    unknown = numbers < 0
    numbers[unknown] = len(known) + np.arange(unknown.sum())
    return pd.factorize(numbers)[0].astype(np.int64)


def patient_weights(
    patients: Iterable[object], replicates: int, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Return how often each image stands in each bootstrap resample of whole patients.

    As many patients are drawn with replacement as there are, each with all of its images, since
    images of one patient are not independent (the cluster bootstrap; Field & Welsh 2007,
    doi:10.1111/j.1467-9868.2007.00593.x). Calls with one generator continue each other: two calls
    for 500 resamples give the rows of one call for 1000, so a caller short of memory may ask for
    part after part.

    Args:
        patients: As for :func:`patient_numbers`.
        replicates: Number R of resamples.
        rng: Source of the resamples.

    Returns:
        (R, n), 2 bytes each.
    """
    numbers = patient_numbers(patients)
    weights = np.zeros((replicates, len(numbers)), dtype=np.uint16)
    if len(numbers):
        n_patients = int(numbers.max()) + 1
        for row in weights:
            drawn = rng.integers(n_patients, size=n_patients)
            row[:] = np.bincount(drawn, minlength=n_patients)[numbers]
    return weights


def percentile_interval(drawn: NDArray[np.floating], level: float) -> NDArray[np.float64]:
    """Return the percentile intervals of numbers estimated from R resamples.

    Args:
        drawn: (..., R), NaN where a resample says nothing.
        level: Share of the resamples between the ends of an interval.

    Returns:
        Lower and upper ends (2, ...), NaN where no resample says anything.
    """
    rows = drawn.reshape(-1, drawn.shape[-1])
    ends = np.full((2, len(rows)), np.nan)
    told = ~np.isnan(rows).all(1)
    if told.any():
        tail = (1 - level) / 2
        ends[:, told] = np.nanquantile(rows[told], (tail, 1 - tail), axis=1)
    return ends.reshape(2, *drawn.shape[:-1])


def check_resampled(
    scores: NDArray[np.floating], truth: NDArray[np.number], weights: NDArray[np.number]
) -> None:
    """Refuse scores, truth and weights that do not belong together.

    Args:
        scores: Of n images, (n,).
        truth: 0 or 1, (n,).
        weights: How often each image stands in each of R resamples, (R, n).

    Raises:
        InputError: If the shapes differ, there is no image, a score is not finite or a truth is
            neither 0 nor 1.
    """
    if scores.ndim != 1 or not scores.shape == truth.shape == weights.shape[1:] or not len(scores):
        raise InputError(
            f"scores {scores.shape}, truth {truth.shape} and weights {weights.shape} must be (n,), "
            "(n,) and (resamples, n), with at least one image"
        )
    if not np.isfinite(scores).all():
        raise InputError(f"{np.sum(~np.isfinite(scores))} of {len(scores)} scores are not finite")
    if not np.isin(truth, (0, 1)).all():
        strange = truth[~np.isin(truth, (0, 1))][0]
        raise InputError(f"truth must be 0 or 1, got {strange}; leave out images without a label")
