"""Single images out of the arrays of an ``.npz`` archive."""

import os
import re
import zipfile
import zlib
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrssl.data.reading import MAX_BYTES, UnreadableError, check_size

__all__ = ["read_row", "split_row"]

_ROW = re.compile(r"(?:(?P<name>\w+)/)?(?P<row>\d+)")


def split_row(path: str) -> tuple[str, str] | None:
    """Return the archive and the row that ``file.npz#row`` names, None for any other path."""
    file, separator, row = path.rpartition("#")
    return (file, row) if separator and file.lower().endswith(".npz") else None


def read_row(file: str, row: str) -> NDArray[np.uint8]:
    """Return a row of an array; a copy, so that a caller cannot change what is remembered."""
    match = _ROW.fullmatch(row)
    if match is None:
        raise UnreadableError(f"'#{row}' names no row; write file.npz#0 or file.npz#name/0")
    status = os.stat(file)
    name = match["name"] or "images"
    images = _read_array(file, name, status.st_mtime_ns, status.st_size)
    if int(match["row"]) >= len(images):
        raise UnreadableError(f"its array {name!r} has {len(images)} rows, numbered from 0")
    return np.array(images[int(match["row"])])


@lru_cache(maxsize=4)  # the train, validation and test arrays of one release
def _read_array(file: str, name: str, modified: int, size: int) -> NDArray[np.uint8]:
    """Return an array (N, H, W) uint8; the last two arguments tell versions of a file apart."""
    try:
        with zipfile.ZipFile(file) as archive:
            if f"{name}.npy" not in archive.namelist():
                raise UnreadableError(f"it has no array {name!r}; it holds {archive.namelist()}")
            with archive.open(f"{name}.npy") as member:
                _check_array(member, archive.getinfo(f"{name}.npy").file_size)
            with archive.open(f"{name}.npy") as member:
                images: NDArray[np.uint8] = np.lib.format.read_array(member, allow_pickle=False)
                return images
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError):
        raise UnreadableError("its archive is damaged, cut short or holds no plain array") from None


def _check_array(member: Any, size: int) -> None:
    """Refuse an array by its header alone, before memory is set aside for it."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    if dtype != np.uint8 or len(shape) != 3:
        raise UnreadableError(f"its array is {dtype} of shape {shape}, not uint8 of (N, H, W)")
    check_size(shape[2], shape[1])
    if not prod(shape) <= size <= 2 * MAX_BYTES:
        raise UnreadableError(f"its array claims {prod(shape)} bytes and unfolds to {size}")
