"""Splits by patient that do not move when rows are reordered or images are added."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.validate import SPLITS
from cxrssl.errors import InputError

__all__ = ["assign_splits", "stable_fractions"]


def assign_splits(
    index: pd.DataFrame,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    *,
    folder: str = "",
) -> pd.DataFrame:
    """Return the index with a split for every row; a split column that is filled stays as it is.

    Each patient goes to the split in which a hash of (seed, patient_id) falls, whatever the other
    rows are. The shares are therefore met on average only. Of rows without a patient, those of one
    study go together, and one without a study is alone, known by its path.

    Args:
        index: A checked index.
        fractions: Shares of train, val and test.
        seed: Another seed draws other splits.
        folder: Beginning of the paths to leave out of the hash, so that moving the folder of the
            images does not redraw the splits of images without a patient.

    Raises:
        InputError: Where the fractions are not three numbers >= 0 with the sum 1.
    """
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(
            f"split must be three shares (train, val, test) >= 0 with the sum 1, got {fractions}"
        )
    if index["split"].notna().all():
        return index
    files = "path " + index["path"].str.removeprefix(folder).str.lstrip("/")
    studies = "study " + index["study_id"] if "study_id" in index else files
    owners = ("patient " + index["patient_id"]).fillna(studies).fillna(files)
    codes, patients = pd.factorize(owners)
    bounds = np.cumsum(np.asarray(fractions, dtype=np.float64))[:-1]
    split = np.searchsorted(bounds, stable_fractions(seed, patients), side="right")[codes]
    return index.assign(split=pd.array(np.asarray(SPLITS, dtype=object)[split], "string"))


def stable_fractions(seed: int, keys: Iterable[str]) -> NDArray[np.float64]:
    """Return one number in [0, 1) per key: a hash of (seed, key), equal on every machine."""
    digests = (hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest() for key in keys)
    whole = np.frombuffer(b"".join(digests), dtype=">u8")
    # 53 bits fit a float exactly, so that the result never rounds up to 1.
    return (whole >> np.uint64(11)).astype(np.float64) / 2**53
