"""Scores of multi-label predictions with bootstrap intervals over patients."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.analysis.bootstrap import FindingBootstrap
from cxrssl.analysis.calibration import weighted_brier, weighted_ece
from cxrssl.analysis.ranking import threshold_counts
from cxrssl.errors import InputError

__all__ = ["score_predictions"]


def score_predictions(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.floating],
    names: Sequence[str],
    *,
    patients: Iterable[object] | None = None,
    replicates: int = 1000,
    seed: int = 0,
    specificity: float = 0.9,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return the scores of every finding and their mean, with percentile bootstrap intervals.

    A finding is scored on the images whose label is known, if there are a positive and a negative
    among them. All findings and metrics rest on the same resamples of whole patients, so that the
    interval of the mean is a joint one. A resample in which a finding has only one class says
    nothing about that finding, and its mean is that of the others.

    Args:
        probabilities: (n, F), in [0, 1].
        labels: (n, F), 1, 0, -1 (uncertain) or NaN (missing).
        names: The F findings.
        patients: Identifier of the patient of each of n images; one without (None, NaN or
            ``pd.NA``) is a patient of its own, and so is every image by default.
        replicates: Number of resamples.
        seed: Of the resamples, which depend on it and on the patients alone.
        specificity: At which sensitivity is measured, in [0, 1]; the threshold is chosen anew on
            the images of each resample.
        level: Share of the resamples inside an interval.

    Returns:
        A row for each metric of each finding, then of their mean ``macro``: ``auroc``, ``auprc``
        (average precision), ``brier``, ``ece`` in 15 bins and ``sensitivity@0.9specificity``.
        Columns: ``finding``, ``metric``, ``value``, ``low``, ``high`` (NaN with fewer than two
        patients), ``images`` with a known label and ``positives`` among them (for ``macro``, images
        with any label known and with any finding). ``attrs["undefined"]`` lists the findings that
        cannot be scored.

    Raises:
        InputError: If the shapes do not belong together, a probability is not in [0, 1], or a
            number is outside its range.
    """
    if not 0 <= specificity <= 1:
        raise InputError(f"specificity must be in [0, 1], got {specificity}")
    metrics = ["auroc", "auprc", "brier", "ece", f"sensitivity@{specificity:g}specificity"]

    def measure(
        scores: NDArray[np.floating], truth: NDArray[np.floating], weights: NDArray[np.uint16]
    ) -> list[NDArray[np.float64]]:
        counts = threshold_counts(scores, truth, weights)
        auroc = counts.auroc()
        # Calibration needs no two classes, but all metrics must be means of the same findings.
        brier, ece = (
            np.where(np.isnan(auroc), np.nan, error(scores, truth, weights))
            for error in (weighted_brier, weighted_ece)
        )
        return [auroc, counts.auprc(), brier, ece, counts.sensitivity(specificity)]

    bootstrap = FindingBootstrap(
        labels, names, patients=patients, replicates=replicates, seed=seed, level=level
    )
    values = bootstrap.metrics([probabilities], measure)[0]
    low, high = bootstrap.intervals(values)
    return bootstrap.table(metrics, {"value": values[..., 0], "low": low, "high": high})
