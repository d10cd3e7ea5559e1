"""What encoders' predictions of the test images are worth, as tables."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.analysis.comparison import compare_predictions
from cxrssl.analysis.few_label import few_label_curve
from cxrssl.analysis.intervals import score_predictions
from cxrssl.analysis.metadata import metadata_accuracy
from cxrssl.analysis.subgroups import score_subgroups
from cxrssl.evaluation.cohort import Cohort
from cxrssl.evaluation.methods import predict_findings
from cxrssl.evaluation.options import EvaluationOptions, Method

__all__ = ["Entry", "Tables"]

_ASKED = ("val", "test")

_MadeBy = dict[str, str | int]


@dataclass(frozen=True)
class Entry:
    """An encoder at a size, and what its features say."""

    encoder: str
    image_size: int
    features: NDArray[np.float32]
    """Of all n images, (n, D)."""
    probabilities: dict[Method, NDArray[np.float64]]
    """(n, F), NaN for training images."""


class Tables:
    """Makes the tables of an evaluation.

    Args:
        cohort: The images.
        options: What is measured.
    """

    def __init__(self, cohort: Cohort, options: EvaluationOptions) -> None:
        self.cohort = cohort
        self.options = options
        self._test = cohort.places("test")
        self._labels = cohort.labels[self._test]
        self._bootstrap: dict[str, Any] = {
            "patients": cohort.patients("test"),
            "replicates": options.replicates,
            "seed": options.seed,
        }

    def entry(self, encoder: str, image_size: int, features: NDArray[np.float32]) -> Entry:
        """Return what each method makes of the features (n, D) of all images."""
        cohort = self.cohort
        train, val = (cohort.labelled(features, split) for split in ("train", "val"))
        asked = np.flatnonzero(cohort.rows["split"].isin(_ASKED))
        probabilities = {}
        for method in self.options.methods:
            of_all = np.full(cohort.labels.shape, np.nan)
            of_all[asked] = predict_findings(method, train, val, features[asked], k=self.options.k)
            probabilities[method] = of_all
        return Entry(encoder, image_size, features, probabilities)

    def scores(self, entries: Sequence[Entry]) -> pd.DataFrame:
        """Return the scores of the test images."""
        settings = self._bootstrap | {"specificity": self.options.specificity}
        return _together(
            (
                made_by,
                score_predictions(
                    probabilities[self._test], self._labels, self.cohort.findings, **settings
                ),
            )
            for made_by, probabilities in _predictions(entries)
        )

    def subgroups(self, entries: Sequence[Entry]) -> pd.DataFrame:
        """Return the scores of subgroups of the test images."""
        groups = self.cohort.groups(self.options.groups)
        if not groups:
            return pd.DataFrame()
        settings = self._bootstrap | {"specificity": self.options.specificity}
        return _together(
            (
                made_by,
                score_subgroups(
                    probabilities[self._test],
                    self._labels,
                    self.cohort.findings,
                    groups,
                    **settings,
                ),
            )
            for made_by, probabilities in _predictions(entries)
        )

    def comparison(self, entries: Sequence[Entry]) -> pd.DataFrame:
        """Return the differences between the first encoder and others, and between sizes."""
        return _together(
            (
                {
                    "first_encoder": first.encoder,
                    "first_image_size": first.image_size,
                    "second_encoder": second.encoder,
                    "second_image_size": second.image_size,
                    "method": method,
                },
                compare_predictions(
                    first.probabilities[method][self._test],
                    second.probabilities[method][self._test],
                    self._labels,
                    self.cohort.findings,
                    **self._bootstrap,
                ),
            )
            for first, second in _pairs(entries)
            for method in self.options.methods
        )

    def few_label(self, entries: Sequence[Entry]) -> pd.DataFrame:
        """Return the few-label curves."""
        subsets = self.cohort.subsets(self.options)
        if not subsets:
            return pd.DataFrame()
        return _together(
            (
                _made_by(entry),
                few_label_curve(
                    self.cohort.labelled(entry.features, "train"),
                    self.cohort.labelled(entry.features, "val"),
                    self.cohort.labelled(entry.features, "test"),
                    self.cohort.findings,
                    subsets,
                ),
            )
            for entry in entries
        )

    def metadata(self, entries: Sequence[Entry]) -> pd.DataFrame:
        """Return how well features of the images of all splits tell the patients' metadata."""
        if not self.options.metadata:
            return pd.DataFrame()
        tables = [
            metadata_accuracy(entry.features, self.cohort.rows, seed=self.options.seed)
            for entry in entries
        ]
        frame = _together(
            (_made_by(entry), table) for entry, table in zip(entries, tables, strict=True)
        )
        frame.attrs["left_out"] = tables[0].attrs["left_out"]
        return frame

    def predictions(self, entries: Sequence[Entry]) -> pd.DataFrame:
        """Return labels and probabilities of validation and test images; nothing of patients."""
        rows = self.cohort.rows
        asked = np.flatnonzero(rows["split"].isin(_ASKED))
        images = rows.iloc[asked][["path", "split"]].reset_index(drop=True)
        findings = self.cohort.findings
        labels = {
            f"label/{name}": self.cohort.labels[asked, column]
            for column, name in enumerate(findings)
        }
        return _together(
            (
                made_by,
                images.assign(
                    **labels,
                    **{
                        f"probability/{name}": probabilities[asked, column]
                        for column, name in enumerate(findings)
                    },
                ),
            )
            for made_by, probabilities in _predictions(entries)
        )


def _made_by(entry: Entry) -> _MadeBy:
    return {"encoder": entry.encoder, "image_size": entry.image_size}


def _predictions(
    entries: Sequence[Entry],
) -> Iterator[tuple[_MadeBy, NDArray[np.float64]]]:
    """Yield what made each prediction, and its probabilities (n, F)."""
    for entry in entries:
        for method, probabilities in entry.probabilities.items():
            yield _made_by(entry) | {"method": method}, probabilities


def _pairs(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Entry]]:
    """Yield the first encoder with each other at each size, then sizes of the same encoder."""
    encoders: dict[str, list[Entry]] = {}
    for entry in entries:
        encoders.setdefault(entry.encoder, []).append(entry)
    first, *others = encoders.values()
    for other in others:
        yield from zip(first, other, strict=True)
    for sizes in encoders.values():
        yield from ((sizes[0], other) for other in sizes[1:])


def _together(tables: Iterable[tuple[_MadeBy, pd.DataFrame]]) -> pd.DataFrame:
    """Return tables below each other, with what made them in columns in front."""
    parts = []
    for made_by, table in tables:
        for place, (name, value) in enumerate(made_by.items()):
            table.insert(place, name, value)
        parts.append(table)
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    frame.attrs = {}
    return frame
