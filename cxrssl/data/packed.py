"""Images of a packed store: decoded once by ``cxrssl pack``, then read one by one.

A store is Arrow IPC files with a record batch an image, raw by default: of the formats measured it
is the one that costs little more to read at random than a plain array, takes masks and compression,
and of whose files an image is one ranged read, on a disk or in an object store.
"""

import os
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from cxrssl.data.image import ImageReadError
from cxrssl.data.masks import UNKNOWN
from cxrssl.data.packed_folder import (
    TABLE,
    open_folder,
    read_manifest,
    read_table,
    shard_name,
)
from cxrssl.data.reading import Depth, scale
from cxrssl.errors import InputError

__all__ = ["SCHEMA", "PackedImages", "PackedMasks", "PackedStore"]

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("pixels", pa.large_binary()),  # null where the image could not be read
        ("masks", pa.large_binary()),  # (K, H, W) uint8, compressed by zlib; null without any
    ]
)
"""Columns of a shard."""


class PackedStore:
    """Images that ``cxrssl pack`` has decoded, numbered from 0.

    Files are opened when first read, and again in a process that was forked; a pickle holds none.

    Args:
        folder: The store: a folder, or a URI that `pyarrow.fs.FileSystem.from_uri` knows, such as
            ``s3://bucket/store`` or ``gs://bucket/store``.

    Attributes:
        bits: Bits of a stored pixel, 8 or 16.
        structures: Structures it has masks of.

    Raises:
        InputError: If there is no store, or it is not complete.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        filesystem, place = open_folder(folder)
        manifest = read_manifest(filesystem, place, folder)
        self.bits: int = manifest["settings"]["bits"]
        self.structures: tuple[str, ...] = tuple(manifest["settings"]["structures"])
        table = read_table(filesystem, place, TABLE, manifest)
        # Blocks that forked workers share, where they would copy a list of texts.
        self._names = pa.array(table["path"], type=pa.large_string())
        self._errors = pa.array(table["error"], type=pa.large_string())
        self._shards, self._starts, self._lengths, self._checksums = (
            table[name].to_numpy(dtype=np.int64)
            for name in ("shard", "offset", "length", "checksum")
        )
        self._place: tuple[Any, str] | None = None
        self._files: dict[int, Any] = {}
        self._process = 0
        self._last: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return len(self._shards)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_place": None, "_files": {}, "_last": None}

    @property
    def shards(self) -> NDArray[np.int64]:
        """Shard (n,) of each image."""
        return self._shards

    def numbers(self, paths: Iterable[str]) -> NDArray[np.int64]:
        """Return the numbers (n,) of images by their paths, with the store's folder or without.

        Raises:
            InputError: If one of them is not in the store.
        """
        asked = pd.Index([path.removeprefix(self.folder).lstrip("/") for path in paths])
        numbers = pd.Index(self._names.to_pandas()).get_indexer(asked)
        if lacking := int((numbers < 0).sum()):
            example = asked[numbers < 0][0]
            raise InputError(
                f"{lacking} of {len(asked)} images are not in the packed store {self.folder}, for "
                f"example {example!r}: pack them too, or leave them out of the index"
            )
        return np.asarray(numbers, dtype=np.int64)

    def name(self, number: int) -> str:
        """Return the path of an image, below the store's folder."""
        return os.path.join(self.folder, self._names[number].as_py())

    def key(self, number: int) -> str:
        """Return what tells the pixels of an image from others: its path and checksum."""
        return f"{self.name(number)} {self._checksums[number]:08x} {self._lengths[number]}"

    def pixels(self, number: int) -> NDArray[Any]:
        """Return the pixels (H, W) of an image as stored, uint8 or uint16.

        Raises:
            ImageReadError: If it could not be packed, cannot be read, or its checksum is wrong.
        """
        record = self._record(number)
        (data,) = record.column("pixels").buffers()[2:]
        stored = np.frombuffer(data, np.uint8 if self.bits == 8 else "<u2")
        return stored.reshape(_shape(record)).copy()

    def masks(self, number: int) -> NDArray[np.uint8] | None:
        """Return the masks (K, H, W) of an image: 1 inside, 0 outside, 255 not known; or None.

        Raises:
            ImageReadError: As for :meth:`pixels`.
        """
        record = self._record(number)
        masks = record.column("masks")[0]
        if not masks.is_valid:
            return None
        planes = np.frombuffer(zlib.decompress(masks.as_buffer()), np.uint8)
        return planes.reshape(len(self.structures), *_shape(record))

    def check(self, number: int) -> None:
        """Raise `ImageReadError` if an image was packed and is now damaged."""
        if self._lengths[number]:
            self._message(number)

    def _record(self, number: int) -> Any:
        """Return the record batch of an image; masks are asked for after pixels, and read once."""
        last = self._last
        if last is None or last[0] != number:
            if (error := self._errors[number].as_py()) is not None:
                raise ImageReadError(self.name(number), error)
            last = self._last = number, ipc.read_record_batch(self._message(number), SCHEMA)
        return last[1]

    def _message(self, number: int) -> Any:
        """Return the bytes of an image's record batch, which are not looked into before checked."""
        shard, length = int(self._shards[number]), int(self._lengths[number])
        try:
            message = self._file(shard).read_at(length, int(self._starts[number]))
        except OSError as error:
            reason = f"{shard_name(shard)} cannot be read ({error.strerror or error})"
            raise ImageReadError(self.name(number), reason) from None
        if len(message) != length or zlib.crc32(message) != self._checksums[number]:
            raise ImageReadError(
                self.name(number),
                f"its checksum is wrong, {shard_name(shard)} is damaged: copy the store again, or "
                "delete this file and pack again",
            )
        return message

    def _file(self, shard: int) -> Any:
        """Return an open shard."""
        if self._place is None or self._process != os.getpid():
            # Connections to an object store are no good in a forked process.
            self._place, self._files = open_folder(self.folder), {}
            self._process = os.getpid()
        if shard not in self._files:
            if len(self._files) >= _MOST_OPEN:
                self._files.pop(next(iter(self._files))).close()
            filesystem, place = self._place
            self._files[shard] = filesystem.open_input_file(f"{place}/{shard_name(shard)}")
        return self._files[shard]


_MOST_OPEN = 256
"""Files a process holds open; systems often allow it 1024."""


class PackedImages:
    """Images of a store as a source of pixels.

    Args:
        store: The store.
        paths: One path per image, with the store's folder or without.
    """

    def __init__(self, store: PackedStore, paths: Iterable[str]) -> None:
        self._store = store
        self._numbers = store.numbers(paths)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        return self.read(number)

    def read(self, number: int, depth: Depth = "uint8") -> NDArray[Any]:
        """Return the pixels (H, W) at a depth, as `read_image` does."""
        pixels = self._store.pixels(int(self._numbers[number]))
        return scale(pixels, self._store.bits, depth)

    def name(self, number: int) -> str:
        """Return the path."""
        return self._store.name(int(self._numbers[number]))


class PackedMasks:
    """Masks of numbered images of a store; see :class:`cxrssl.data.targets.MaskReader`.

    Args:
        store: The store.
        paths: One path per image, with the store's folder or without.
        structures: K structures.

    Raises:
        InputError: If the store has no masks of one of them.
    """

    def __init__(self, store: PackedStore, paths: Iterable[str], structures: Sequence[str]) -> None:
        if lacking := [name for name in structures if name not in store.structures]:
            raise InputError(
                f"the packed store {store.folder} has no masks of {lacking[0]!r}, only of "
                f"{list(store.structures)}: pack an index that has them"
            )
        self._store = store
        self._numbers = store.numbers(paths)
        self._planes = [store.structures.index(name) for name in structures]

    def read(self, number: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the masks (K, H, W) of an image (H, W): 1 inside, 0 outside, 255 not known."""
        masks = self._store.masks(int(self._numbers[number]))
        if masks is None:
            return np.full((len(self._planes), *shape), UNKNOWN, dtype=np.uint8)
        return masks[self._planes]


def _shape(record: Any) -> tuple[int, int]:
    return record.column("height")[0].as_py(), record.column("width")[0].as_py()
