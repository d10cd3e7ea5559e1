"""Reading the tables of a release: text first, so that no identifier is taken for a number."""

import ast
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.errors import InputError

__all__ = [
    "labels_of_columns",
    "labels_of_lists",
    "number",
    "parse_list",
    "read_table",
    "require_columns",
]

Column: TypeAlias = "pd.Series[Any]"

_VALUES = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": -1.0, "-1.0": -1.0, "": np.nan}


def read_table(
    path: str | os.PathLike[str], required: Iterable[str] = (), **options: Any
) -> pd.DataFrame:
    """Return a table whose cells are all text, empty where the file has nothing.

    Names of columns are stripped of blanks and of a byte order mark. Compressed files are read as
    they are; ``.tsv`` is separated by tabs.

    Args:
        path: A ``.csv``, ``.tsv`` or text file, also with ``.gz``.
        required: Columns that must be there.
        options: More for `pandas.read_csv`, such as ``header`` or ``names``.

    Raises:
        InputError: If the file cannot be read or lacks a column; it names the file, the column and
            those there are.
    """
    separator = "\t" if ".tsv" in Path(path).name else ","
    text = {"sep": separator, "dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    given: dict[str, Any] = text | options
    try:
        table: pd.DataFrame = pd.read_csv(path, **given)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from error
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    require_columns(table, required, path)
    # A short row leaves cells that no option turns into text.
    return table.fillna("")


def require_columns(
    table: pd.DataFrame, required: Iterable[str], path: str | os.PathLike[str]
) -> None:
    """Refuse a table of a file without some columns.

    Raises:
        InputError: If it lacks one; it names the file, the column and those there are.
    """
    lacking = [name for name in required if name not in table]
    if lacking:
        raise InputError(
            f"{path} has no column {', '.join(map(repr, lacking))}; it has "
            f"{', '.join(map(repr, table.columns))}: is it the table of another release?"
        )


def labels_of_columns(
    table: pd.DataFrame, findings: Sequence[str], file: str | os.PathLike[str]
) -> pd.DataFrame:
    """Return label columns as float32: 1, 0, -1 for uncertain, NaN for missing.

    Args:
        table: Table of text with a column for each finding.
        findings: The columns.
        file: The table's file, for messages.

    Raises:
        InputError: If a cell is none of these; it names the file, the row and the value.
    """
    columns = {}
    for name in findings:
        text = table[name].str.strip()
        values = text.map(_VALUES).to_numpy(dtype=np.float32)
        wrong = np.flatnonzero(np.isnan(values) & (text != "").to_numpy())
        if wrong.size:
            row = int(wrong[0])
            raise InputError(
                f"{file}: {name!r} is {text.iloc[row]!r} in row {row + 1}; labels are 1, 0, -1 "
                "(uncertain) or empty"
            )
        columns[name] = values
    return pd.DataFrame(columns, index=table.index)


def labels_of_lists(
    lists: Iterable[Sequence[str] | None], findings: Sequence[str]
) -> NDArray[np.float32]:
    """Return labels (n, F): 1 for the findings in a list, 0 for others, NaN where it is None.

    Names are compared whole: that "mass" is part of "breast mass" does not make it one.

    Args:
        lists: What was found in each image.
        findings: The F findings, in order; names that are not among them are left out.
    """
    place = {name: number for number, name in enumerate(findings)}
    rows = list(lists)
    labels = np.zeros((len(rows), len(findings)), dtype=np.float32)
    for row, names in enumerate(rows):
        if names is None:
            labels[row] = np.nan
        else:
            labels[row, [place[name] for name in names if name in place]] = 1
    return labels


def parse_list(text: str) -> list[str] | None:
    """Return the items, stripped, of a cell that holds a Python list; None for an empty cell.

    Raises:
        InputError: If the cell holds anything else.
    """
    if text.strip().lower() in ("", "nan", "none"):
        return None
    try:
        items = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        items = None
    if not isinstance(items, list):
        raise InputError(f"a list such as ['nodule', 'mass'] was expected, not {text[:80]!r}")
    return [str(item).strip() for item in items if str(item).strip()]


def number(column: Column, keep: Callable[[float], bool] | None = None) -> NDArray[np.float32]:
    """Return text as numbers, NaN where it is none.

    Args:
        column: Text (n,).
        keep: Says of a number whether it is plausible; others become NaN.
    """
    values = pd.to_numeric(column.str.strip(), errors="coerce").to_numpy(dtype=np.float32)
    if keep is not None:
        values = np.where([keep(float(value)) for value in values], values, np.nan)
    return values.astype(np.float32)
