"""Sex, age, view and split in the words of each release, brought to those of the index."""

import os
import re
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.errors import InputError

__all__ = ["ViewPosition", "ages", "official_splits", "sexes", "view_positions"]

ViewPosition = Literal["PA", "AP", "AP_SUPINE", "LATERAL", "OTHER"]

Column: TypeAlias = "pd.Series[Any]"

_OLDEST = 120.0
_YEARS = {"Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([YMWD]?)")
_SEXES = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F", "O": "O", "OTHER": "O"}
_SPLITS = {"train": "train", "valid": "val", "validate": "val", "test": "test"}
_VIEWS = {
    "PA": "PA",
    "POSTEROANTERIOR": "PA",
    "POSTERO-ANTERIOR": "PA",
    "AP": "AP",
    "ANTEROPOSTERIOR": "AP",
    "ANTERO-POSTERIOR": "AP",
    "AP AXIAL": "AP",
    "AP_HORIZONTAL": "AP_SUPINE",
    "L": "LATERAL",
    "LL": "LATERAL",
    "RL": "LATERAL",
    "LATERAL": "LATERAL",
    "LEFT LATERAL": "LATERAL",
    "RIGHT LATERAL": "LATERAL",
    "XTABLE LATERAL": "LATERAL",
}


def sexes(column: Column) -> Column:
    """Return F, M, O or missing (n,) for `Female`, `M`, `other` and the like."""
    return column.str.strip().str.upper().map(_SEXES).astype("string")


def ages(column: Column) -> NDArray[np.float32]:
    """Return ages in years (n,) of numbers and of DICOM's ``058Y``, ``006M``, ``012D``.

    Nothing else is an age, and none above 120 years is: NaN.
    """
    return column.map(_age).to_numpy(dtype=np.float32)


def _age(text: str) -> float:
    match = _AGE.match(text.strip().upper())
    if match is None:
        return np.nan
    years = float(match[1]) / _YEARS[match[2] or "Y"]
    return years if years <= _OLDEST else np.nan


def view_positions(column: Column) -> Column:
    """Return the `ViewPosition` (n,) of the view in a release's words, missing where it is blank.

    What is neither frontal nor lateral, obliques and decubitus views among it, is OTHER.
    """
    text = column.str.strip().str.upper()
    return text.map(_VIEWS).astype("string").mask((text != "") & ~text.isin(list(_VIEWS)), "OTHER")


def official_splits(column: Column, file: str | os.PathLike[str]) -> Column:
    """Return train, val or test (n,) for `train`, `valid`, `validate` and `test`.

    Args:
        column: What the release calls the split of each row.
        file: Where it stands, for the message.

    Raises:
        InputError: If a cell is none of these; it names the file, the row and the value.
    """
    known = column.str.strip().str.lower().map(_SPLITS).astype("string")
    wrong = np.flatnonzero(known.isna())
    if wrong.size:
        row = int(wrong[0])
        raise InputError(
            f"{file}: the split is {column.iloc[row]!r} in row {row + 1}; it is one of "
            f"{', '.join(_SPLITS)}"
        )
    return known
