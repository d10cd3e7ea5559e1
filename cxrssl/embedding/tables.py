"""Tables of embeddings, written part by part: Parquet and npz."""

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cxrssl.errors import InputError

__all__ = ["COLUMN", "check_out", "read_about", "write_table"]

COLUMN = "embedding"

_Parts = Iterable[NDArray[np.floating]]


def check_out(out: Path, rows: pd.DataFrame) -> None:
    """Refuse a file that cannot be written.

    Raises:
        InputError: If its name ends otherwise, its folder is not there, or the index has a column
            of the embeddings' name.
    """
    if out.suffix not in _WRITERS:
        raise InputError(f"the table must end in {' or '.join(_WRITERS)}, got {out}")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is no folder: create it first")
    if COLUMN in rows:
        raise InputError(f"the index has a column {COLUMN!r} of its own: rename it")


def write_table(
    out: Path,
    rows: pd.DataFrame,
    parts: _Parts,
    shape: tuple[int, ...],
    about: Mapping[str, Any],
) -> None:
    """Write the rows of an index with the embedding of each, whole or not at all.

    Args:
        out: ``.parquet``, where an embedding is a list of all its numbers, or ``.npz``, with an
            array for every column.
        rows: The n rows.
        parts: Embeddings (m, ...) of the rows in order, n of them in all parts together.
        shape: Of the embedding of an image.
        about: Plain data that describes the table; in the metadata ``cxrssl`` of Parquet and as the
            array ``about`` of npz, both as JSON.
    """
    with _replacing(out) as temporary:
        _WRITERS[out.suffix](temporary, rows, parts, shape, json.dumps(about, sort_keys=True))


def read_about(out: Path) -> dict[str, Any] | None:
    """Return what a table says of itself, None where there is none or it is of something else."""
    try:
        if out.suffix == ".parquet":
            text = (pq.read_schema(out).metadata or {})[b"cxrssl"].decode()
        else:
            with np.load(out, allow_pickle=False) as arrays:
                text = arrays["about"].item()
        about: dict[str, Any] = json.loads(text)
        return about
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, pa.ArrowInvalid):
        return None


def _write_parquet(
    out: Path, rows: pd.DataFrame, parts: _Parts, shape: tuple[int, ...], about: str
) -> None:
    length = int(np.prod(shape))
    writer: pq.ParquetWriter | None = None
    first = 0
    try:
        for features in parts:
            table = pa.Table.from_pandas(
                rows.iloc[first : first + len(features)], preserve_index=False
            )
            first += len(features)
            flat = pa.array(np.ascontiguousarray(features).reshape(-1))
            table = table.append_column(COLUMN, pa.FixedSizeListArray.from_arrays(flat, length))
            if writer is None:
                whole = pa.Table.from_pandas(rows, preserve_index=False).schema
                metadata = {**(whole.metadata or {}), b"cxrssl": about.encode()}
                schema = whole.append(table.schema.field(COLUMN)).with_metadata(metadata)
                writer = pq.ParquetWriter(out, schema)
            writer.write_table(table.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()


def _write_npz(
    out: Path, rows: pd.DataFrame, parts: _Parts, shape: tuple[int, ...], about: str
) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, column in rows.items():
            _save(archive, str(name), _plain(column))
        _save(archive, "about", np.array(about))
        # One array after the other would need memory for all of them together.
        with archive.open(f"{COLUMN}.npy", "w", force_zip64=True) as file:
            for number, features in enumerate(parts):
                if number == 0:
                    header = {
                        "descr": np.lib.format.dtype_to_descr(features.dtype),
                        "fortran_order": False,
                        "shape": (len(rows), *shape),
                    }
                    np.lib.format.write_array_header_2_0(file, header)
                file.write(np.ascontiguousarray(features).tobytes())


def _save(archive: zipfile.ZipFile, name: str, values: NDArray[Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, values, allow_pickle=False)


def _plain(column: "pd.Series[Any]") -> NDArray[Any]:
    """Return a column as numbers, or as text with nothing for what is missing."""
    if pd.api.types.is_bool_dtype(column.dtype) and not column.isna().any():
        return column.to_numpy(dtype=bool)
    if pd.api.types.is_numeric_dtype(column.dtype):
        whole = pd.api.types.is_integer_dtype(column.dtype) and not column.isna().any()
        return column.to_numpy(dtype=np.int64 if whole else np.float64, na_value=np.nan)
    return column.astype("string").fillna("").to_numpy(dtype=np.str_)


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """Give a name to write to, which takes the file's place at the end."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


_WRITERS: dict[str, Callable[[Path, pd.DataFrame, _Parts, tuple[int, ...], str], None]] = {
    ".parquet": _write_parquet,
    ".npz": _write_npz,
}
