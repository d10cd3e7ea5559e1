"""Two predictions for the same images, compared on the same resamples of patients."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.analysis.bootstrap import FindingBootstrap
from cxrssl.analysis.delong import delong_test
from cxrssl.analysis.metrics import known_labels
from cxrssl.analysis.ranking import threshold_counts

__all__ = ["compare_predictions"]


def compare_predictions(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    labels: NDArray[np.floating],
    names: Sequence[str],
    *,
    patients: Iterable[object] | None = None,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return how far two predictions differ in rank metrics, with paired intervals and tests.

    Findings, their mean and resamples are those of
    :func:`~cxrssl.analysis.intervals.score_predictions`.

    Args:
        first: (n, F), higher where the finding is more likely; they need not be probabilities.
        second: (n, F).
        labels: (n, F), 1, 0, -1 (uncertain) or NaN (missing).
        names: The F findings.
        patients: Identifier of the patient of each of n images; one without (None, NaN or
            ``pd.NA``) is a patient of its own, and so is every image by default.
        replicates: Number of resamples.
        seed: Of the resamples, which depend on it and on the patients alone.
        level: Share of the resamples inside an interval.

    Returns:
        A row for ``auroc`` and ``auprc`` of each finding, then of their mean ``macro``. Columns:
        ``finding``, ``metric``, ``first``, ``second``, ``difference`` (first minus second), its
        ``low`` and ``high``, ``p_bootstrap``, ``p_delong``, ``images`` and ``positives``.
        ``p_bootstrap`` is two-sided: twice the smaller of the shares of resamples with a
        difference of at most and of at least zero, one resample added to both, so that it is
        never 0. It honours patients, which ``p_delong``, for the AUROC of findings only, does not.
        Intervals and ``p_bootstrap`` are NaN with fewer than two patients. ``attrs["undefined"]``
        lists the findings that cannot be scored.

    Raises:
        InputError: If the shapes do not belong together, a score is not finite, or a number is
            outside its range.
    """
    bootstrap = FindingBootstrap(
        labels, names, patients=patients, replicates=replicates, seed=seed, level=level
    )
    both = bootstrap.metrics([first, second], _rank_metrics)  # (2, S, 2, 1 + R)
    differences = both[0] - both[1]
    low, high = bootstrap.intervals(differences)
    p_delong = np.full(low.shape, np.nan)
    for row, column in enumerate(bootstrap.columns):
        known = known_labels(labels[:, column])
        test = delong_test(first[known, column], second[known, column], labels[known, column])
        p_delong[row, 0] = test.p
    columns = {
        "first": both[0, ..., 0],
        "second": both[1, ..., 0],
        "difference": differences[..., 0],
        "low": low,
        "high": high,
        "p_bootstrap": np.where(np.isnan(low), np.nan, _two_sided(differences[..., 1:])),
        "p_delong": p_delong,
    }
    return bootstrap.table(["auroc", "auprc"], columns)


def _rank_metrics(
    scores: NDArray[np.floating], truth: NDArray[np.floating], weights: NDArray[np.uint16]
) -> list[NDArray[np.float64]]:
    counts = threshold_counts(scores, truth, weights)
    return [counts.auroc(), counts.auprc()]


def _two_sided(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the p of no difference from those of R resamples, (..., R) to (...)."""
    fewer = np.minimum((differences <= 0).sum(-1), (differences >= 0).sum(-1))
    told = (~np.isnan(differences)).sum(-1)
    p: NDArray[np.float64] = np.minimum(1, 2 * (1 + fewer) / (1 + told))
    return p
