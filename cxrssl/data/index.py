"""Reading an index: one row per image, from a folder, a pattern, a CSV or a Parquet file."""

import glob
import os
from collections.abc import Mapping, Sequence

import pandas as pd

from cxrssl.data.image import IMAGE_SUFFIXES, is_image_file
from cxrssl.data.packed_folder import read_packed_index, store_folder
from cxrssl.data.validate import (
    COLUMNS,
    MASK,
    MISSING,
    OPTIONAL,
    is_known,
    label_names,
    validate_index,
)
from cxrssl.errors import InputError

__all__ = ["index_folder", "load_index", "other_columns"]

_LABEL_TEXTS = frozenset({"1", "0", "-1", "1.0", "0.0", "-1.0", "True", "False"})


def load_index(
    source: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    dataset: str | None = None,
    whole_patients: bool = True,
) -> pd.DataFrame:
    """Return a checked index with the columns of every dataset, then its labels.

    A folder is searched recursively for image files, in sorted order. Identifiers are read as
    text, so that leading zeros stay. Columns that are neither known nor labels are dropped; besides
    those of every index, `weight`, `bmi`, `text` and `mask/<structure>` are known.

    Args:
        source: A folder, a pattern such as ``images/**/*.png``, a ``.csv`` (also ``.csv.gz``) or
            a ``.parquet`` file; or a packed store, see `cxrssl.data.packed`.
        root: Folder that relative paths start from; the folder of the file by default.
        columns: Our name to the file's name, for columns that are called otherwise there. A column
            that is given the name of a label is nothing else.
        labels: The label columns; by default every remaining column whose values are only 1, 0,
            -1 and missing.
        dataset: Value of the dataset column, where the file has none.
        whole_patients: Whether a patient in more than one split is an error.

    Returns:
        The index as `validate_index` defines it, with paths that can be opened.

    Raises:
        InputError: Where the source cannot be read, a named column is missing, a label has the
            name of a known column, or the rows are not a valid index.
    """
    source = os.fspath(source)
    try:
        store = store_folder(source)
        table = _read(source) if store is None else read_packed_index(store)
        if labels is None and store is not None:
            labels = label_names(table)  # also those that no image has
        frame = _select(table, columns or {}, labels)
        if dataset is not None:
            frame["dataset"] = dataset
        index = validate_index(frame, whole_patients=whole_patients)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    folder = index_folder(source, root)
    index["path"] = pd.array([os.path.join(folder, path) for path in index["path"]], "string")
    return index


def index_folder(source: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> str:
    """Return the folder that relative paths of an index start from."""
    if (store := store_folder(source)) is not None:
        return store
    if os.path.isdir(source):
        return os.fspath(source)
    if root is not None:
        return os.fspath(root)
    return "" if glob.has_magic(os.fspath(source)) else os.path.dirname(source)


def other_columns(
    source: str | os.PathLike[str], columns: Mapping[str, str] | None, index: pd.DataFrame
) -> pd.DataFrame:
    """Return the columns of a table that :func:`load_index` has dropped, with the index's rows.

    Args:
        source: What the index was read from; folders, patterns and stores have no other columns.
        columns: See :func:`load_index`.
        index: What was read.
    """
    source = os.fspath(source)
    if not os.path.isfile(source) or store_folder(source) is not None:
        return pd.DataFrame(index=index.index)
    table = _read(source)
    used = {(columns or {}).get(str(name), str(name)) for name in index}
    names = [name for name in table if str(name) not in used and name not in index and str(name)]
    return table[names].set_axis(index.index)


def _read(source: str) -> pd.DataFrame:
    if os.path.isdir(source):
        return _read_folder(source)
    if not os.path.exists(source) and glob.has_magic(source):
        return _read_pattern(source)
    if not os.path.exists(source):
        raise InputError("no such file or folder: check the path of the index")
    lower = source.lower()
    try:
        if lower.endswith((".csv", ".csv.gz")):
            # utf-8-sig: spreadsheets put a byte order mark before the first name.
            frame = pd.read_csv(source, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        elif lower.endswith((".parquet", ".pq")):
            frame = pd.read_parquet(source)
        else:
            raise InputError("an index is a folder, a pattern, a .csv or a .parquet file")
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"the file cannot be read as a table: {error}") from error
    frame.columns = pd.Index([str(name).strip() for name in frame.columns])
    return frame


def _read_folder(folder: str) -> pd.DataFrame:
    paths = []
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        # A link back to a folder above would be walked for ever.
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        paths += [
            os.path.relpath(os.path.join(parent, name), folder)
            for name in files
            if not name.startswith(".") and is_image_file(os.path.join(parent, name))
        ]
    if not paths:
        raise InputError(f"the folder holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return pd.DataFrame({"path": sorted(paths)})


def _read_pattern(pattern: str) -> pd.DataFrame:
    paths = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    if not paths:
        raise InputError("the pattern matches no file")
    return pd.DataFrame({"path": paths})


def _select(
    table: pd.DataFrame, columns: Mapping[str, str], labels: Sequence[str] | None
) -> pd.DataFrame:
    """Return the known columns under our names, then the labels."""
    for ours, theirs in columns.items():
        _require(table, theirs, f"which columns maps to {ours!r}")
    masks = [str(name) for name in [*columns, *table] if str(name).startswith(MASK)]
    renamed = {theirs: ours for ours, theirs in columns.items() if not is_known(ours)}
    named = {name: name for name in (*COLUMNS, *OPTIONAL, *masks) if name not in renamed}
    known = {name: theirs for name, theirs in (named | dict(columns)).items() if is_known(name)}
    known = {ours: theirs for ours, theirs in known.items() if theirs in table}
    if labels is None:
        names = [str(name) for name in table if name not in known.values()]
        others = {renamed.get(name, name): name for name in names}
        chosen = {
            ours: theirs
            for ours, theirs in others.items()
            if not is_known(ours) and _is_label(table, theirs)
        }
    else:
        _refuse_known(labels)
        chosen = {name: columns.get(name, name) for name in labels}
        for name in chosen.values():
            _require(table, name, "which labels asks for")
    return pd.DataFrame({ours: table[theirs] for ours, theirs in (known | chosen).items()})


def _require(table: pd.DataFrame, name: str, why: str) -> None:
    if name not in table:
        raise InputError(f"there is no column {name!r}, {why}; there are {list(table.columns)}")


def _refuse_known(labels: Sequence[str]) -> None:
    if known := [name for name in labels if is_known(name)]:
        raise InputError(
            f"labels names {known[0]!r}, a column with a meaning of its own: give the label "
            f"another name with columns={{'my_{known[0]}': {known[0]!r}}}"
        )


def _is_label(table: pd.DataFrame, name: str) -> bool:
    # pandas calls the nameless column of row numbers so; with two rows it looks like a label.
    if not name or name.startswith("Unnamed:"):
        return False
    values = {str(value).strip() for value in table[name].dropna().unique()}
    values = {value for value in values if value.lower() not in MISSING}
    return bool(values) and values <= _LABEL_TEXTS
