"""Fingerprints of many images, made by all cores and kept in a file."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from torch.utils.data import Dataset
from tqdm import tqdm

from cxrssl.data.duplicates.fingerprint import fingerprint
from cxrssl.data.image import ImageReadError, read_image
from cxrssl.data.loader import plan_loader
from cxrssl.data.sampler import BatchPlan, FixedBatchSampler
from cxrssl.data.sources import ImageFiles, ImageSource
from cxrssl.errors import InputError

__all__ = ["fingerprint_images", "known_fingerprints", "read_fingerprints", "write_fingerprints"]

_SCHEMA = pa.schema(
    [
        ("key", pa.large_string()),
        ("size", pa.int64()),
        ("modified", pa.int64()),
        ("state", pa.string()),
        ("cause", pa.large_string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("bits", pa.int32()),
        ("exact", pa.large_binary()),
        ("hashes", pa.large_binary()),
        ("thumbnails", pa.large_binary()),
    ],
    metadata={"cxrssl_fingerprints": "1"},  # another number makes all of them anew
)
_NOTHING: pd.DataFrame = _SCHEMA.empty_table().to_pandas()
_FILE = ["key", "size", "modified"]
_BATCH = 16
_NO_FILE = -1

_Record: TypeAlias = tuple[object, ...]
"""Columns from ``state`` on."""

_MISSING: _Record = ("missing", "no such file", *[None] * 6)


def fingerprint_images(
    source: ImageSource,
    keys: Sequence[str],
    file: str | os.PathLike[str] | None = None,
    *,
    workers: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Open images and return what each is known by, one row an image in the order of the keys.

    The columns are ``key``; ``size`` in bytes and ``modified`` in nanoseconds of its file, -1 where
    it is none; ``state``: ok, missing, unreadable or blank; ``cause`` of what is not ok;
    ``height``, ``width`` and stored ``bits``; ``exact``, ``hashes`` and ``thumbnails``, see
    :class:`~cxrssl.data.duplicates.fingerprint.Fingerprint`.

    Args:
        source: The n images.
        keys: Their n names, which say all that pixels depend on beside size and time of a file.
        file: Where rows are kept, also those made before an interruption. An image whose key, size
            and time are there is not opened again.
        workers: Processes that open images; 0 opens them in this one.
        progress: Whether a bar shows how far it is.

    Raises:
        InputError: If imagehash is not installed, or the file is no file of fingerprints.
    """
    known = _NOTHING if file is None or not os.path.exists(file) else read_fingerprints(file)
    rows = known_fingerprints(keys, known)
    new = np.flatnonzero(rows["state"].isna())
    records: dict[int, _Record] = {}
    try:
        for made in _open(source, new[_there(source, rows, new)], workers, progress):
            records |= made
    finally:
        missing = {int(number): _MISSING for number in new}
        rows = _filled(rows, missing | records)
        if file is not None and records:
            opened = rows.iloc[list(records)]
            write_fingerprints(file, pd.concat([known, opened]) if len(known) else opened)
    return rows


def known_fingerprints(keys: Sequence[str], known: pd.DataFrame) -> pd.DataFrame:
    """Return rows of images made before, missing in all columns after the first three if unknown.

    Args:
        keys: Names (n,) of the images.
        known: Rows made before.
    """
    rows: pd.DataFrame = _files(keys).merge(known.drop_duplicates(_FILE), on=_FILE, how="left")
    return rows


def read_fingerprints(file: str | os.PathLike[str]) -> pd.DataFrame:
    """Return the rows of a file; none if it was written by another version.

    Raises:
        InputError: If it is no file of fingerprints.
    """
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{file} cannot be read as fingerprints ({error}): cxrssl check writes them"
        ) from error
    current = (table.schema.metadata or {}).get(b"cxrssl_fingerprints") == b"1"
    rows: pd.DataFrame = table.to_pandas() if current else _NOTHING
    return rows


def write_fingerprints(file: str | os.PathLike[str], rows: pd.DataFrame) -> None:
    """Write rows whose images could be opened; a kill leaves the file as it was.

    What cannot be read is not kept: a rerun tries again.
    """
    good = rows[rows["state"].isin(("ok", "blank"))].drop_duplicates("key", keep="last")
    table = pa.Table.from_pandas(good, schema=_SCHEMA, preserve_index=False)
    part = Path(f"{os.fspath(file)}.part")
    pq.write_table(table.replace_schema_metadata(_SCHEMA.metadata), part, compression="zstd")
    part.replace(file)


def _files(keys: Sequence[str]) -> pd.DataFrame:
    """Return key, size and time of each file, or of the file that a row of an archive is in."""
    status = []
    for key in keys:
        file, row, _ = key.rpartition("#")
        found = (_NO_FILE, _NO_FILE)
        with suppress(OSError, ValueError):
            stat = os.stat(file if row and file.lower().endswith(".npz") else key)
            found = stat.st_size, stat.st_mtime_ns
        status.append((key, *found))
    frame = pd.DataFrame(status, columns=_FILE)
    return frame.astype({"size": "int64", "modified": "int64"})


def _there(
    source: ImageSource, rows: pd.DataFrame, numbers: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which of some images are there to be opened; those that are no files always are."""
    if not isinstance(source, ImageFiles):
        return np.ones(len(numbers), dtype=np.bool_)
    there: NDArray[np.bool_] = rows["size"].to_numpy()[numbers] != _NO_FILE
    return there


def _filled(rows: pd.DataFrame, records: Mapping[int, _Record]) -> pd.DataFrame:
    """Return the rows with the columns from ``state`` on of some of them."""
    columns = _SCHEMA.names[len(_FILE) :]
    new = pd.DataFrame(list(records.values()), index=list(records), columns=columns, dtype=object)
    filled = rows.astype(dict.fromkeys(columns, object)).combine_first(new)[_SCHEMA.names]
    filled[columns] = filled[columns].where(filled[columns].notna(), None)
    whole: pd.DataFrame = filled.astype(dict.fromkeys(("height", "width", "bits"), "Int32"))
    return whole


def _open(
    source: ImageSource, numbers: NDArray[np.int64], workers: int, progress: bool
) -> Iterator[dict[int, _Record]]:
    """Yield records of images by their numbers, as they are made."""
    sampler = FixedBatchSampler(numbers, _BATCH)
    loader = plan_loader(
        _Records(source), sampler, num_workers=min(workers, len(sampler)), pin_memory=False
    )
    with tqdm(total=len(numbers), unit=" images", disable=not progress or not numbers.size) as bar:
        for batch in loader if numbers.size else ():
            yield batch["records"]
            bar.update(len(batch["records"]))


class _Records(Dataset[dict[str, Any]]):
    """What is known of images, by plans."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __getitem__(self, plan: BatchPlan) -> dict[str, Any]:
        return {"records": {int(number): self._record(int(number)) for number in plan.images}}

    def _record(self, number: int) -> _Record:
        source = self.source
        bits = 8
        try:
            if isinstance(source, ImageFiles):
                # Twelve bits in a file of sixteen are but sixteen grey levels of eight bits.
                image = read_image(source.name(number), depth="float32")
                pixels, bits = image.pixels, image.bits
            else:
                pixels = source[number]
        except ImageReadError as error:
            return ("unreadable", error.cause, *[None] * 6)
        made = fingerprint(pixels)
        state, cause = ("blank", "nothing is on it") if made.blank else ("ok", None)
        height, width = pixels.shape
        return (state, cause, height, width, bits, made.exact, made.hashes, made.thumbnails)
