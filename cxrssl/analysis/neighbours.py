"""What the nearest images of other patients have in common with an image."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.analysis.metrics import known_labels
from cxrssl.analysis.resampling import patient_numbers, patient_weights, percentile_interval
from cxrssl.analysis.unit import unit_length
from cxrssl.errors import InputError

__all__ = ["Neighbours", "label_agreement", "nearest_images"]

_LEVEL = 0.95
_ENTRIES_AT_ONCE = 2**24  # of the similarities, 8 bytes each


class Neighbours(NamedTuple):
    """The k nearest images of each of q queries, nearest first."""

    numbers: NDArray[np.intp]
    """(q, k), of the images searched."""
    similarity: NDArray[np.float64]
    """Cosine, (q, k)."""


def nearest_images(
    queries: NDArray[np.floating],
    features: NDArray[np.floating],
    k: int = 5,
    *,
    query_patients: Iterable[object] | None = None,
    patients: Iterable[object] | None = None,
) -> Neighbours:
    """Return the images whose features are most like those of the queries, by cosine.

    Args:
        queries: (q, D).
        features: Of the n images that are searched, (n, D).
        k: Number of neighbours.
        query_patients: Of each query; with ``patients``, no image of the same patient is found.
        patients: Of each image that is searched.

    Raises:
        InputError: If ``k`` is not positive or there are fewer images of other patients.
    """
    owners = None
    if query_patients is not None and patients is not None:
        owners = patient_numbers([*query_patients, *patients])
    unit, asked = unit_length(features), unit_length(queries)
    step = max(1, _ENTRIES_AT_ONCE // max(len(features), 1))
    parts = []
    for start in range(0, len(queries), step):
        similarity = asked[start : start + step] @ unit.T
        if owners is not None:
            own = owners[start : start + len(similarity), None] == owners[None, len(queries) :]
            similarity[own] = -np.inf
        parts.append(_nearest(similarity, k))
    return Neighbours(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def label_agreement(
    found: Neighbours,
    query_labels: NDArray[np.floating],
    labels: NDArray[np.floating],
    names: Sequence[str],
    *,
    patients: Iterable[object],
    replicates: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how many of the neighbours of images with a finding have it too (precision at k).

    Args:
        found: Neighbours of q images.
        query_labels: Labels of those, (q, F), 1, 0, -1 (uncertain) or NaN (missing).
        labels: Labels of the images that were searched, (n, F).
        names: The F findings.
        patients: Of each of the q images, resampled for the 95 % intervals.
        replicates: Number of resamples.
        seed: Of the resamples.

    Returns:
        A row for each finding that some query has: ``finding``, ``value``, ``low`` and ``high``
        (NaN with fewer than two patients), ``chance`` (share of all searched images with a known
        label that have it), ``images`` with the finding and ``patients``.
    """
    owners = patient_numbers(patients)
    rows = []
    for column, name in enumerate(names):
        searched = labels[:, column]
        seen = searched[found.numbers]
        known = known_labels(seen)
        hits, told = ((seen == 1) & known).sum(1), known.sum(1)
        places = np.flatnonzero((query_labels[:, column] == 1) & (told > 0))
        if not places.size:
            continue
        share = hits[places] / told[places]
        of = owners[places]
        low, high = np.nan, np.nan
        n_patients = len(np.unique(of))
        if n_patients > 1:
            weights = patient_weights(of, replicates, np.random.default_rng(seed)).astype(float)
            low, high = percentile_interval((weights @ share / weights.sum(1))[None], _LEVEL)[:, 0]
        certain = searched[known_labels(searched)]
        chance = float((certain == 1).mean())
        rows.append((name, share.mean(), low, high, chance, len(places), n_patients))
    columns = ["finding", "value", "low", "high", "chance", "images", "patients"]
    return pd.DataFrame(rows, columns=columns)


def _nearest(
    similarity: NDArray[np.float64], k: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return numbers and similarities (q, k) of the k most similar of (q, n)."""
    fewest = int((similarity > -np.inf).sum(1).min())
    if not 1 <= k <= fewest:
        raise InputError(
            f"k must be from 1 to {fewest}, the images of other patients there are, got {k}"
        )
    # Sorting all of a large index takes minutes.
    chosen = np.sort(np.argpartition(-similarity, k - 1, axis=1)[:, :k], axis=1)
    alike = np.take_along_axis(similarity, chosen, 1)
    order = np.argsort(-alike, axis=1, kind="stable")
    return np.take_along_axis(chosen, order, 1), np.take_along_axis(alike, order, 1)
