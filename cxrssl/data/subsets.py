"""Fewer training images: nested shares of the patients, and a few positives a finding."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.splits import stable_fractions
from cxrssl.errors import InputError

__all__ = ["few_shot", "image_names", "nested_subset"]


def nested_subset(
    rows: pd.DataFrame, size: int | float, seed: int = 0, *, folder: str = ""
) -> NDArray[np.int64]:
    """Return which rows make a subset of about a size; smaller subsets lie within larger ones.

    Patients are taken whole, in the order of a hash of (seed, patient), until the size is reached:
    the subset is the smallest that has at least so many images. Of rows without a
    patient, those of one study go together, and one without a study is alone, known by its path.

    Args:
        rows: Rows of a checked index.
        size: A number of images, or a share of them if it is a float of at most 1.
        seed: Another seed takes other patients.
        folder: Beginning of the paths to leave out of the hash, so that moving the folder of the
            images changes no subset.

    Returns:
        Positions of the rows, ascending.

    Raises:
        InputError: If the size is neither, or more images are wanted than there are.
    """
    share = isinstance(size, float) and size <= 1
    if not 0 < size <= len(rows) or not (share or size == int(size)):
        raise InputError(
            f"a subset is a share in (0, 1] or a number of images up to {len(rows)}, got {size}"
        )
    wanted = round(size * len(rows)) if share else size
    codes, patients = _patients(rows, folder)
    counts = np.bincount(codes, minlength=len(patients))
    order = np.argsort(stable_fractions(seed, "subset " + patients))
    before = np.cumsum(counts[order]) - counts[order]
    taken = np.zeros(len(patients), dtype=np.bool_)
    taken[order[before < max(wanted, 1)]] = True
    return np.flatnonzero(taken[codes])


def few_shot(
    labels: NDArray[np.floating], rows: pd.DataFrame, shots: int, seed: int = 0, *, folder: str = ""
) -> NDArray[np.int64]:
    """Return which rows make a k-shot set: k positive and k negative images for each finding.

    Images are taken in the order of a hash of (seed, path), so that a set of fewer shots lies
    within one of more. A finding with fewer images of a kind gives all of them.

    Args:
        labels: (n, F), 1, 0, -1 (uncertain) or NaN (missing).
        rows: The n rows of the index, for their paths.
        shots: k.
        seed: Another seed takes other images.
        folder: Beginning of the paths to leave out of the hash, as for :func:`nested_subset`.

    Returns:
        Positions of the rows, ascending.

    Raises:
        InputError: If k is not positive.
    """
    if shots < 1:
        raise InputError(f"shots must be at least 1, got {shots}")
    order = np.argsort(stable_fractions(seed, "shot " + image_names(rows, folder)))
    taken = np.zeros(len(labels), dtype=np.bool_)
    for column in labels.T:
        for kind in (1, 0):
            taken[order[column[order] == kind][:shots]] = True
    return np.flatnonzero(taken)


def _patients(rows: pd.DataFrame, folder: str) -> tuple[NDArray[np.intp], "pd.Index[str]"]:
    """Return the number (n,) of each row's patient, and what patients are known by."""
    # The same number in two datasets is two people.
    dataset = rows["dataset"].fillna("")
    known = ("patient " + dataset + " " + rows["patient_id"]).fillna(
        "study " + dataset + " " + rows["study_id"]
    )
    codes, patients = pd.factorize(known.fillna("path " + image_names(rows, folder)))
    return codes, pd.Index(patients)


def image_names(rows: pd.DataFrame, folder: str) -> "pd.Series[str]":
    """Return the paths (n,) below the folder of the images."""
    return rows["path"].astype("string").str.removeprefix(folder).str.lstrip("/")
