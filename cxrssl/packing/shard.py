"""One shard of a packed store: images decoded, made smaller and written in their order."""

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc, parquet

from cxrssl.data.image import ImageReadError, read_image
from cxrssl.data.masks import UNKNOWN
from cxrssl.data.packed import SCHEMA, PackedImages
from cxrssl.data.packed_folder import shard_name
from cxrssl.data.sources import ImageFiles, ImageSource
from cxrssl.data.targets import MaskReader
from cxrssl.errors import InputError
from cxrssl.packing.options import PackOptions
from cxrssl.views.structures import resize_masks

__all__ = ["TABLE_COLUMNS", "Images", "part_of", "reduced_shape", "write_shard", "write_table"]

_MAGIC = 8
"""Bytes before the schema in a file of Arrow."""

_SIZES = ("height", "width", "source_height", "source_width")
TABLE_COLUMNS = {
    "path": pa.string(),
    "error": pa.string(),
    **dict.fromkeys(_SIZES, pa.int32()),
    "shard": pa.int32(),
    "offset": pa.int64(),
    "length": pa.int64(),
    "checksum": pa.uint32(),
}


@dataclass(frozen=True, eq=False)
class Images:
    """What is to be packed.

    Args:
        source: Pixels of the n images.
        names: Names (n,) of the images in the store.
        masks: Masks of them, None if there are none.
    """

    source: ImageSource
    names: Any
    masks: MaskReader | None = None

    def __len__(self) -> int:
        return len(self.source)


def write_shard(
    images: Images,
    numbers: range,
    shard: int,
    folder: Path,
    options: PackOptions,
    after_image: Callable[[], None],
) -> pd.DataFrame:
    """Write some images into a shard, which gets its name when it is complete.

    Args:
        images: The images.
        numbers: Which of them.
        shard: Number of the shard.
        folder: The store.
        options: How they are packed.
        after_image: Called after every image.

    Returns:
        A row of the store's table for each image. It is also written beside the shard, after it:
        where it is, the shard is finished.

    Raises:
        InputError: If a mask does not fit its image.
        OSError: If the shard cannot be written.
    """
    file = folder / shard_name(shard)
    part = part_of(file)
    rows: list[dict[str, Any]] = []
    compression = None if options.compression == "none" else options.compression
    writing = ipc.IpcWriteOptions(compression=compression, use_threads=False)
    with pa.OSFile(str(part), "wb") as sink, ipc.new_file(sink, SCHEMA, options=writing) as writer:
        for number in numbers:
            row, record = _pack(images, number, options)
            writer.write_batch(record)
            rows.append(row | {"shard": shard, "end": sink.tell()})
            after_image()
    table = _located(pd.DataFrame(rows), part)
    _to_disk(part)
    part.replace(file)
    write_table(table, folder / f"{file.stem}.parquet")
    return table


def write_table(table: pd.DataFrame, file: Path) -> None:
    """Write rows of the store's table, the same bytes whether or not they were read from one."""
    schema = pa.schema(list(TABLE_COLUMNS.items()))
    columns = pa.Table.from_pandas(table, schema, preserve_index=False)
    parquet.write_table(columns.replace_schema_metadata(None), part_of(file))
    part_of(file).replace(file)


def part_of(file: Path) -> Path:
    """Return the name that a file has while this process writes it."""
    return file.with_name(f".{file.name}.{os.getpid()}.part")


def reduced_shape(shape: tuple[int, int], size: int | None) -> tuple[int, int]:
    """Return height and width with a shorter side of at most a size, the aspect kept."""
    shorter = min(shape)
    if size is None or shorter <= size:
        return shape
    # In whole numbers, rounded to the nearest, so that every machine gets the same.
    height, width = ((2 * side * size + shorter) // (2 * shorter) for side in shape)
    return height, width


def _pack(
    images: Images, number: int, options: PackOptions
) -> tuple[dict[str, Any], pa.RecordBatch]:
    """Return what the table says of an image, and its record."""
    name = images.names[number].as_py()
    try:
        pixels = _read(images.source, number, options.bits)
        shape = reduced_shape(pixels.shape, options.size)
        masks = _masks(images, number, pixels.shape, shape)
    except ImageReadError as error:
        row = {"path": name, "error": error.cause}
        return row | dict.fromkeys(_SIZES, 0), _record(name, (0, 0), None, None)
    small = pixels
    if shape != pixels.shape:
        small = cv2.resize(pixels, shape[::-1], interpolation=cv2.INTER_AREA)
    row = {"path": name, "error": None}
    sizes = dict(zip(_SIZES, (*shape, *pixels.shape), strict=True))
    return row | sizes, _record(name, shape, np.ascontiguousarray(small), masks)


def _read(source: ImageSource, number: int, bits: int) -> NDArray[Any]:
    """Return the pixels (H, W), uint8 or uint16."""
    if bits == 8:
        return source[number]
    if isinstance(source, ImageFiles):
        unit = read_image(source.name(number), depth="float32").pixels
    elif isinstance(source, PackedImages):
        unit = source.read(number, "float32")
    else:
        return source[number].astype(np.uint16) * 257
    # Rounding to 8 bits later gives what rounding at once does: 65535 is 257 times 255, and with
    # an odd factor no stored value lies half way between two grey levels.
    stored: NDArray[np.uint16] = np.rint(unit.astype(np.float64) * 65535).astype(np.uint16)
    return stored


def _masks(
    images: Images, number: int, shape: tuple[int, int], reduced: tuple[int, int]
) -> bytes | None:
    """Return the compressed masks of an image; None where nothing is known of any structure."""
    if images.masks is None:
        return None
    try:
        masks = images.masks.read(number, shape)
    except ImageReadError:
        raise
    except InputError as error:
        raise InputError(f"{images.source.name(number)}: {error}") from None
    if (masks == UNKNOWN).all():
        return None
    return zlib.compress(resize_masks(masks, *reduced).tobytes(), level=1)


def _record(
    name: str, shape: tuple[int, int], pixels: NDArray[Any] | None, masks: bytes | None
) -> pa.RecordBatch:
    data = None if pixels is None else pixels.astype(pixels.dtype.newbyteorder("<")).data.cast("B")
    return pa.record_batch([[name], [shape[0]], [shape[1]], [data], [masks]], schema=SCHEMA)


def _located(rows: pd.DataFrame, part: Path) -> pd.DataFrame:
    """Return the rows with place and checksum of each record, as they are read back."""
    with pa.OSFile(str(part), "rb") as file:
        file.seek(_MAGIC)
        ipc.read_message(file)  # the schema, which is written with the first record
        ends = rows.pop("end").to_numpy(dtype=np.int64)
        starts = np.append(file.tell(), ends[:-1])
        lengths = np.where(rows["error"].isna(), ends - starts, 0)
        checksums = [
            zlib.crc32(file.read_at(length, start))
            for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
        ]
    return rows.assign(offset=starts, length=lengths, checksum=checksums)


def _to_disk(file: Path) -> None:
    """Wait until a file is on the disk, so that no name stands for what a crash has lost."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
