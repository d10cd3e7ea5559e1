"""The folder of a packed store, on a disk or in an object store."""

import json
import os
import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import fs

from cxrssl.errors import InputError

__all__ = [
    "FORMAT",
    "INDEX",
    "MANIFEST",
    "TABLE",
    "open_folder",
    "read_manifest",
    "read_packed_index",
    "read_table",
    "shard_name",
    "store_folder",
]

MANIFEST = "packed.json"
"""File of a store that says how it was packed and whether it is complete."""

FORMAT = 1
"""Version of what is written; another one is not read."""

INDEX = "index.parquet"
"""File of a store with the columns of every index; paths are names of images in the store."""

TABLE = "images.parquet"
"""File of a store with one row per image: its shard, place and checksum there, and its size."""


def shard_name(shard: int) -> str:
    """Return the file of a shard."""
    return f"images-{shard:05d}.arrow"


def store_folder(source: str | os.PathLike[str]) -> str | None:
    """Return the folder of the packed store that a source names, None where it is something else.

    Args:
        source: A store, or its `INDEX`. What begins as in ``s3://`` is taken to be a store.
    """
    folder = os.fspath(source)
    if folder.endswith(INDEX):
        folder = folder.removesuffix(INDEX).rstrip("/") or "."
    if "://" in folder:
        return folder
    return folder if folder and os.path.isfile(os.path.join(folder, MANIFEST)) else None


def read_packed_index(folder: str) -> pd.DataFrame:
    """Return the index of a store as it was packed.

    Raises:
        InputError: If there is no store, or it is not complete.
    """
    filesystem, place = open_folder(folder)
    manifest = read_manifest(filesystem, place, folder)
    return read_table(filesystem, place, INDEX, manifest)


def open_folder(folder: str) -> tuple[Any, str]:
    """Return the file system of a folder or URI, and the folder's place in it."""
    if "://" not in folder:
        return fs.LocalFileSystem(), os.path.abspath(folder)
    try:
        filesystem, place = fs.FileSystem.from_uri(folder)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{folder} cannot be opened: {error}") from None
    return filesystem, place.rstrip("/")


def read_manifest(filesystem: Any, place: str, folder: str) -> dict[str, Any]:
    """Return what a store says of itself; refuse one that is not complete."""
    try:
        with filesystem.open_input_file(f"{place}/{MANIFEST}") as file:
            manifest: dict[str, Any] = json.loads(file.read())
        version = manifest["settings"]["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is no packed store: {error}") from None
    if version != FORMAT:
        raise InputError(
            f"the packed store {folder} has format {version} and {FORMAT} is read here: pack again"
        )
    if not manifest["complete"]:
        raise InputError(
            f"the packed store {folder} is not complete: run the same cxrssl pack again, which "
            "goes on where it was"
        )
    return manifest


def read_table(filesystem: Any, place: str, name: str, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """Return a Parquet file of a store.

    Raises:
        InputError: If it cannot be read, or is not what was packed.
    """
    try:
        with filesystem.open_input_file(f"{place}/{name}") as file:
            data = file.read()
    except OSError as error:
        raise InputError(f"{name} of the packed store {place} cannot be read: {error}") from None
    if zlib.crc32(data) != manifest["checksums"][name]:
        raise InputError(
            f"{name} of the packed store {place} has a wrong checksum: copy the store again, or "
            "run the same cxrssl pack again; an index that you change needs a name of its own"
        )
    return pd.read_parquet(BytesIO(data))
