"""The columns of an index, and the checks every index passes before anything is read."""

from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.errors import InputError

__all__ = [
    "COLUMNS",
    "MASK",
    "MISSING",
    "OPTIONAL",
    "SPLITS",
    "is_known",
    "label_names",
    "shared_patients",
    "validate_index",
]

COLUMNS = ("dataset", "path", "patient_id", "study_id", "view_position", "split", "sex", "age")
"""Columns of every index, in order."""

OPTIONAL = ("weight", "bmi", "text", "boxes", "origin", "origin_patient")
"""Columns an index may have: weight in kg, body mass index in kg/m2, findings of the report, boxes
(see `cxrssl.data.releases.boxes`), and the names of an image and its patient in the collection that
they were first released in."""

MASK = "mask/"
"""What the name of a column of masks begins with; the rest is the structure."""

SPLITS = ("train", "val", "test")

MISSING = frozenset({"", "nan", "na", "n/a", "none", "null", "<na>"})
"""Texts, in lower case, that stand for nothing in columns of numbers, reports and masks."""

_SYNONYMS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
_MEASURES = ("weight", "bmi")
_TEXTS = ("text", "boxes", "origin", "origin_patient")
_EXAMPLES = 3

Column: TypeAlias = "pd.Series[Any]"


def label_names(frame: pd.DataFrame) -> list[str]:
    """Return the label columns of an index, in their order."""
    return [str(name) for name in frame.columns if not is_known(str(name))]


def is_known(name: str) -> bool:
    """Return whether a column has a meaning of its own; all others are labels."""
    return name in COLUMNS or name in OPTIONAL or name.startswith(MASK)


def validate_index(frame: pd.DataFrame, *, whole_patients: bool = True) -> pd.DataFrame:
    """Return an index in its canonical form, or raise on the first thing that is wrong with it.

    The canonical form has all of `COLUMNS` in order, then those of `OPTIONAL` and masks that are
    there, then the labels: identifiers, names, reports and references to masks are strings, split
    is train, val or test (or missing throughout), age, weight, bmi and labels are float32 with NaN
    for missing. A canonical index comes back equal. Rows in messages are counted from 1, the header
    not included.

    Args:
        frame: At least a column `path`; every column that is not known is taken as a label.
        whole_patients: Whether a patient in more than one split is an error.

    Raises:
        InputError: For an empty index, a missing or repeated path, a label outside 1, 0, -1 and
            missing, an unknown split name, or a patient in more than one split.
    """
    frame = frame.rename(columns=str)
    _check_columns(frame)
    paths = _text(frame["path"])
    _check_paths(paths)
    columns: dict[str, Column | NDArray[np.float32]] = {}
    for name in COLUMNS:
        if name not in frame:
            empty = pd.Series([np.nan] * len(frame))
            columns[name] = empty.astype("float32") if name == "age" else empty.astype("string")
        elif name == "age":
            columns[name] = _numbers(frame[name], name, paths)
        elif name == "split":
            columns[name] = _splits(_text(frame[name]), paths)
        else:
            columns[name] = _text(frame[name])
    columns |= _optional(frame, paths)
    for name in label_names(frame):
        columns[name] = _labels(frame[name], name, paths)
    index = pd.DataFrame(columns)
    if whole_patients:
        _check_patients(index)
    return index


def shared_patients(index: pd.DataFrame) -> pd.DataFrame:
    """Return ``dataset``, ``patient_id`` and ``split`` of patients in more than one split.

    There is a row for each split of such a patient. The same number in two datasets is two people.

    Args:
        index: A canonical index.
    """
    owners = index[["dataset", "patient_id", "split"]].dropna(subset=["patient_id", "split"])
    owners = owners.fillna({"dataset": ""}).drop_duplicates()
    return owners[owners.duplicated(["dataset", "patient_id"], keep=False)]


def _optional(
    frame: pd.DataFrame, paths: Column
) -> dict[str, "pd.Series[Any] | NDArray[np.float32]"]:
    """Return the known columns that not every index has."""
    numbers = {name: _numbers(frame[name], name, paths) for name in _MEASURES if name in frame}
    names = [name for name in frame.columns if name in _TEXTS or name.startswith(MASK)]
    texts = {name: _text(frame[name]) for name in names}
    return {**numbers, **{name: text.mask(_is_missing(text)) for name, text in texts.items()}}


def _check_columns(frame: pd.DataFrame) -> None:
    names = [str(name) for name in frame.columns]
    repeated = frame.columns[frame.columns.duplicated()].tolist()
    if repeated:
        raise InputError(f"the index has more than one column named {repeated[0]!r}: rename one")
    if "path" not in names:
        raise InputError(
            f"the index has no column 'path', only {names}: rename the column with the image "
            "files, or map it with columns={'path': ...}"
        )
    if frame.empty:
        raise InputError("the index has no rows: one row per image is needed")


def _check_paths(paths: Column) -> None:
    empty = np.flatnonzero(paths.isna())
    if empty.size:
        raise InputError(f"row {empty[0] + 1} of the index has no path: fill it in or drop the row")
    repeats = np.flatnonzero(paths.duplicated())
    if repeats.size:
        path = paths.iloc[repeats[0]]
        first = int(np.flatnonzero(paths == path)[0])
        raise InputError(
            f"{path!r} stands in rows {first + 1} and {repeats[0] + 1} of the index "
            f"({repeats.size} repeated rows in all): keep one row per image"
        )


def _text(column: Column) -> Column:
    """Return a column as strings; whole numbers lose the '.0' that a missing neighbour gave."""
    values = column.reset_index(drop=True)
    if pd.api.types.is_float_dtype(values.dtype):
        present = values.dropna()
        if (present == present.round()).all():
            values = values.astype("Int64")
    text = values.astype("string")
    return text.mask(text == "", pd.NA)


def _splits(names: Column, paths: Column) -> Column:
    if names.isna().all():
        return names
    known = names.str.strip().str.lower().map(_SYNONYMS).astype("string")
    wrong = np.flatnonzero(known.isna())
    if wrong.size:
        row = int(wrong[0])
        value = names.fillna("").iloc[row]
        raise InputError(
            f"the split in row {row + 1} ({paths.iloc[row]}) is {value!r}: "
            f"use one of {', '.join(_SYNONYMS)}, or leave the column out"
        )
    return known


def _numbers(column: Column, name: str, paths: Column) -> NDArray[np.float32]:
    """Return a column as float32 with NaN for missing; a text that is no number is an error."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        return np.asarray(column.to_numpy(dtype=np.float32, na_value=np.nan))
    text = column.astype("string").str.strip()
    missing = _is_missing(text)
    numbers = pd.to_numeric(text.mask(missing, pd.NA), errors="coerce")
    wrong = np.flatnonzero(numbers.isna() & ~missing)
    if wrong.size:
        row = int(wrong[0])
        raise InputError(
            f"column {name!r} is {column.iloc[row]!r} in row {row + 1} ({paths.iloc[row]}): "
            "a number or nothing is expected"
        )
    return np.asarray(numbers.to_numpy(dtype=np.float32, na_value=np.nan))


def _is_missing(text: Column) -> Column:
    return text.isna() | text.str.strip().str.lower().isin(MISSING)


def _labels(column: Column, name: str, paths: Column) -> NDArray[np.float32]:
    values = _numbers(column, name, paths)
    wrong = np.flatnonzero(~(np.isnan(values) | np.isin(values, (1, 0, -1))))
    if wrong.size:
        row = int(wrong[0])
        raise InputError(
            f"label {name!r} is {column.iloc[row]!r} in row {row + 1} ({paths.iloc[row]}): "
            "labels are 1, 0, -1 (uncertain) or missing; name the label columns with labels=[...]"
        )
    return values


def _check_patients(index: pd.DataFrame) -> None:
    shared = shared_patients(index)
    if shared.empty:
        return
    patients: dict[tuple[str, str], list[str]] = {}
    for dataset, patient, split in zip(*(shared[name] for name in shared), strict=True):
        patients.setdefault((dataset, patient), []).append(split)
    examples = ", ".join(
        f"{patient!r} ({' and '.join(splits)})"
        for (_, patient), splits in list(patients.items())[:_EXAMPLES]
    )
    raise InputError(
        f"{len(patients)} patients stand in more than one split, for example {examples}: "
        "put all images of a patient in one split, or leave the split column out"
    )
