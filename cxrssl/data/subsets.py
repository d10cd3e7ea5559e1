"""Fewer training images: nested shares of the patients, and a few positives a finding."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.splits import stable_fractions
from cxrssl.errors import InputError

__all__ = ["few_shot", "nested_subset"]


def nested_subset(rows: pd.DataFrame, size: float | int, seed: int = 0) -> NDArray[np.int64]:
    """Return which rows make a subset of about a size; smaller subsets lie within larger ones.

    Patients are taken whole, in the order of a hash of (seed, patient), until the size is reached:
    the subset is the smallest that has at least so many images.

    Args:
        rows: Rows of a checked index.
        size: A number of images, or a share of them if it is a float of at most 1.
        seed: Another seed takes other patients.

    Returns:
        Positions of the rows, ascending.

    Raises:
        InputError: If the size is not positive, or more images are wanted than there are.
    """
    wanted = round(size * len(rows)) if isinstance(size, float) and size <= 1 else int(size)
    if not size > 0 or wanted > len(rows):
        raise InputError(
            f"a subset is a share in (0, 1] or a number of images up to {len(rows)}, got {size}"
        )
    codes, patients = _patients(rows)
    counts = np.bincount(codes, minlength=len(patients))
    order = np.argsort(stable_fractions(seed, "subset " + patients))
    before = np.cumsum(counts[order]) - counts[order]
    taken = np.zeros(len(patients), dtype=np.bool_)
    taken[order[before < max(wanted, 1)]] = True
    return np.flatnonzero(taken[codes])


def few_shot(
    labels: NDArray[np.floating], rows: pd.DataFrame, shots: int, seed: int = 0
) -> NDArray[np.int64]:
    """Return which rows make a k-shot set: k positive and k negative images for each finding.

    Images are taken in the order of a hash of (seed, path), so that a set of fewer shots lies
    within one of more. A finding with fewer images of a kind gives all of them.

    Args:
        labels: (n, F), 1, 0, -1 (uncertain) or NaN (missing).
        rows: The n rows of the index, for their paths.
        shots: k.
        seed: Another seed takes other images.

    Raises:
        InputError: If k is not positive.
    """
    if shots < 1:
        raise InputError(f"shots must be at least 1, got {shots}")
    order = np.argsort(stable_fractions(seed, "shot " + rows["path"].astype(str)))
    taken = np.zeros(len(labels), dtype=np.bool_)
    for column in labels.T:
        for kind in (1, 0):
            taken[order[column[order] == kind][:shots]] = True
    return np.flatnonzero(taken)


def _patients(rows: pd.DataFrame) -> tuple[NDArray[np.intp], "pd.Index[str]"]:
    """Return whose each row is; a row without a patient is one of its own."""
    owners = ("patient " + rows["dataset"].fillna("") + " " + rows["patient_id"]).fillna(
        "path " + rows["path"]
    )
    codes, names = pd.factorize(owners)
    return codes, pd.Index(names)
