"""Metrics of every finding and of their mean on the same resamples of whole patients."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.analysis.metrics import known_labels
from cxrssl.analysis.resampling import patient_numbers, patient_weights, percentile_interval
from cxrssl.errors import InputError

__all__ = ["FindingBootstrap", "Measure"]

Measure = Callable[
    [NDArray[np.floating], NDArray[np.floating], NDArray[np.uint16]], Sequence[NDArray[np.float64]]
]
"""From scores (n,), truth (n,) and weights (R, n) of one finding to M metrics, (R,) each."""

_MACRO = "macro"
_ENTRIES_AT_ONCE = 2**21  # of the weights; metrics hold some 50 bytes for each


class FindingBootstrap:
    """The findings that can be scored, their mean, and resamples of whole patients for all.

    A finding is scored on the images whose label is known, if there are a positive and a negative
    among them. The S rows of all results are those findings in the order given and, if there is
    one, their mean ``macro``.

    Args:
        labels: (n, F), 1, 0, -1 (uncertain) or NaN (missing).
        names: The F findings.
        patients: Identifier of the patient of each of n images; one without (None, NaN or
            ``pd.NA``) is a patient of its own, and so is every image by default.
        replicates: Number R of resamples.
        seed: Of the resamples, which depend on it and on the patients alone.
        level: Share of the resamples inside an interval.

    Raises:
        InputError: If the shapes do not belong together or a number is outside its range.
    """

    def __init__(
        self,
        labels: NDArray[np.floating],
        names: Sequence[str],
        *,
        patients: Iterable[object] | None = None,
        replicates: int = 1000,
        seed: int = 0,
        level: float = 0.95,
    ) -> None:
        if labels.ndim != 2 or labels.shape[1] != len(names):
            raise InputError(
                f"labels {labels.shape} must be (images, {len(names)}), one column for each of "
                f"{list(names)}"
            )
        if replicates < 1 or not 0 < level < 1:
            raise InputError(
                f"replicates must be at least 1 and level in (0, 1), got {replicates} and {level}"
            )
        self._numbers = np.arange(len(labels)) if patients is None else patient_numbers(patients)
        if len(self._numbers) != len(labels):
            raise InputError(
                f"patients must name the patient of each of {len(labels)} images, got "
                f"{len(self._numbers)}"
            )
        self._labels = labels
        self._replicates, self._seed, self._level = replicates, seed, level
        self._known, self._present = known_labels(labels), labels == 1
        both = self._present.any(0) & (labels == 0).any(0)
        self.columns = np.flatnonzero(both)
        """Of the findings that can be scored, (S - 1,)."""
        self.names = [name for name, defined in zip(names, both, strict=True) if defined]
        """Of the findings that can be scored."""
        self.undefined = [name for name, defined in zip(names, both, strict=True) if not defined]
        """Findings without a known positive or without a known negative."""

    def metrics(
        self, predictions: Sequence[NDArray[np.floating]], measure: Measure
    ) -> NDArray[np.float64]:
        """Return M metrics of P predictions on the data and then on the resamples.

        The mean of a resample is that of the findings for which it gives a number.

        Args:
            predictions: P times (n, F).
            measure: What is measured; NaN where a resample says nothing about a finding.

        Returns:
            (P, S, M, 1 + R).

        Raises:
            InputError: If a prediction's shape is not that of the labels.
        """
        for scores in predictions:
            if scores.shape != self._labels.shape:
                raise InputError(
                    f"predictions {scores.shape} must have the shape of the labels, "
                    f"{self._labels.shape}"
                )
        if not self.names:
            return np.empty((len(predictions), 0, 0, 1 + self._replicates))
        parts = [
            np.array([self._findings(scores, weights, measure) for scores in predictions])
            for weights in self._weights()
        ]
        of_findings = np.concatenate(parts, axis=-1)
        return np.concatenate([of_findings, _mean_over_findings(of_findings)], axis=1)

    def intervals(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the ends (2, S, M) of the percentile intervals of values (S, M, 1 + R).

        They are NaN where the images belong to fewer than two patients.
        """
        ends = percentile_interval(values[..., 1:], self._level)
        known = self._rows(self._known)
        patients = np.array([len(np.unique(self._numbers[rows])) for rows in known.T])
        ends[:, patients < 2] = np.nan
        return ends

    def table(
        self, metrics: Sequence[str], columns: Mapping[str, NDArray[np.floating]]
    ) -> pd.DataFrame:
        """Return columns (S, M) as a table with a row for each metric of each finding.

        Before them stand the ``finding`` and the ``metric``, after them the ``images`` with a known
        label and the ``positives`` among them; for the mean, images with any label known and with
        any finding. ``attrs["undefined"]`` lists the findings that cannot be scored.
        """
        repeated = len(metrics)
        rows = [*self.names, _MACRO] if self.names else []
        frame = pd.DataFrame(
            {
                "finding": np.repeat(np.array(rows, dtype=object), repeated),
                "metric": list(metrics) * len(rows),
                **{name: numbers.reshape(-1) for name, numbers in columns.items()},
                "images": np.repeat(self._rows(self._known).sum(0), repeated),
                "positives": np.repeat(self._rows(self._present).sum(0), repeated),
            }
        )
        frame.attrs["undefined"] = self.undefined
        return frame

    def _rows(self, marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return marks (n, F) for each row of the results, (n, S): for the mean, any of them."""
        of_findings = marked[:, self.columns]
        if not self.names:
            return of_findings
        return np.column_stack([of_findings, of_findings.any(1)])

    def _weights(self) -> Iterator[NDArray[np.uint16]]:
        """Yield the data themselves, every image once, and then the resamples part by part."""
        yield np.ones((1, len(self._numbers)), dtype=np.uint16)
        rng = np.random.default_rng(self._seed)
        step = max(1, _ENTRIES_AT_ONCE // len(self._numbers))
        for start in range(0, self._replicates, step):
            yield patient_weights(self._numbers, min(step, self._replicates - start), rng)

    def _findings(
        self, scores: NDArray[np.floating], weights: NDArray[np.uint16], measure: Measure
    ) -> list[Sequence[NDArray[np.float64]]]:
        measured = []
        for column in self.columns:
            known = np.flatnonzero(self._known[:, column])
            drawn = np.take(weights, known, axis=1)
            measured.append(measure(scores[known, column], self._labels[known, column], drawn))
        return measured


def _mean_over_findings(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean (P, 1, M, R) of the numbers there are in (P, S, M, R)."""
    told = ~np.isnan(values)
    count = told.sum(1, keepdims=True)
    total = np.where(told, values, 0).sum(1, keepdims=True)
    mean: NDArray[np.float64] = np.divide(
        total, count, out=np.full_like(total, np.nan), where=count > 0
    )
    return mean
