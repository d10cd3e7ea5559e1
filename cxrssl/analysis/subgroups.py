"""Scores of multi-label predictions in groups of images, such as those of one sex or age."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.analysis.intervals import score_predictions
from cxrssl.errors import InputError

__all__ = ["age_bands", "score_subgroups"]

_BAND_STARTS = (20, 40, 60, 80)
_BANDS = ("0-19", "20-39", "40-59", "60-79", "80+")


def age_bands(age: NDArray[np.floating]) -> list[str | None]:
    """Return the band of each age in completed years, None where it is NaN.

    The bands are ``0-19``, ``20-39``, ``40-59``, ``60-79`` and ``80+``: an age a is in the second
    if 20 <= a < 40. Their names sort by age.

    Args:
        age: In years, (n,).

    Raises:
        InputError: If an age is negative.
    """
    if (age < 0).any():
        raise InputError(f"ages must not be negative, got {np.nanmin(age):g}")
    bands = np.searchsorted(_BAND_STARTS, age, side="right")
    return [
        None if unknown else _BANDS[band]
        for unknown, band in zip(np.isnan(age), bands, strict=True)
    ]


def score_subgroups(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.floating],
    names: Sequence[str],
    groups: Mapping[str, Iterable[object]],
    *,
    patients: Iterable[object] | None = None,
    replicates: int = 1000,
    seed: int = 0,
    specificity: float = 0.9,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return the scores of every group of images on its own, with bootstrap intervals.

    Every group is scored as :func:`~cxrssl.analysis.intervals.score_predictions` scores its images
    alone, with resamples of its own patients. Means over findings are comparable only between
    groups that have the same findings.

    Args:
        probabilities: (n, F), in [0, 1].
        labels: (n, F), 1, 0, -1 (uncertain) or NaN (missing).
        names: The F findings.
        groups: What the images are grouped by, such as ``sex``, and the group of each of n images;
            one without (None, NaN or ``pd.NA``) is left out.
        patients: As for ``score_predictions``, and so are the rest.
        replicates: Number of resamples.
        seed: Of the resamples.
        specificity: At which sensitivity is measured.
        level: Share of the resamples inside an interval.

    Returns:
        The rows of ``score_predictions`` for each group after ``group`` (``sex``) and
        ``value_of_group`` (``F``), in the order given and then sorted by value.
        ``attrs["undefined"]`` lists [group, value, finding] for what cannot be scored.

    Raises:
        InputError: As ``score_predictions``, or if the groups are not those of n images.
    """
    owners = np.arange(len(labels)) if patients is None else _column(patients, labels, "patients")

    def score(rows: NDArray[np.intp], group: str, value: str) -> pd.DataFrame:
        table = score_predictions(
            probabilities[rows],
            labels[rows],
            names,
            patients=owners[rows],
            replicates=replicates,
            seed=seed,
            specificity=specificity,
            level=level,
        )
        table.insert(0, "group", group)
        table.insert(1, "value_of_group", value)
        return table

    tables, undefined = [], []
    for group, values in groups.items():
        column = _column(values, labels, f"groups[{group!r}]")
        for value in sorted(set(column) - {None}):
            table = score(np.flatnonzero(column == value), group, value)
            undefined += [[group, value, finding] for finding in table.attrs.pop("undefined")]
            tables.append(table)
    # Empty tables have no say in the types of the columns; without any other they give the names.
    filled = [table for table in tables if len(table)]
    together = pd.concat(filled or [score(np.arange(0), "", "")], ignore_index=True)
    together.attrs = {"undefined": undefined}
    return together


def _column(values: Iterable[object], labels: NDArray[np.floating], what: str) -> NDArray[Any]:
    """Return values as an array of objects, None where there is none."""
    column = pd.Series(list(values), dtype=object)
    if len(column) != len(labels):
        raise InputError(f"{what} must hold {len(labels)} values, one an image, got {len(column)}")
    return column.where(column.notna(), None).to_numpy()
