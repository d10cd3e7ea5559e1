"""Packing a data module's images into a store."""

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from cxrssl.data.failures import FailureLog, TooManyCorruptImagesError
from cxrssl.data.image import ImageReadError
from cxrssl.data.indexed import IndexedImages
from cxrssl.data.packed import PackedStore
from cxrssl.data.packed_folder import FORMAT
from cxrssl.data.subsets import image_names
from cxrssl.errors import InputError
from cxrssl.packing.folder import StoreFolder
from cxrssl.packing.index import packed_index
from cxrssl.packing.options import PackOptions
from cxrssl.packing.pool import in_parallel
from cxrssl.packing.shard import Images, write_shard

__all__ = ["Packed", "pack", "verify_store"]

_MOST_PER_SHARD, _LEAST_PER_SHARD, _SHARDS = 512, 16, 128


@dataclass(frozen=True)
class Packed:
    """What packing has done.

    Attributes:
        folder: The store.
        images: Images in it.
        failed: Images that could not be read.
        decoded: Images that were decoded by this run.
        bytes: Size of its shards.
        seconds: Time that decoding took.
    """

    folder: str
    images: int
    failed: int
    decoded: int
    bytes: int
    seconds: float


def pack(
    data: IndexedImages, out: str | os.PathLike[str], options: PackOptions | None = None
) -> Packed:
    """Decode the images of a data module into a store, which `CXRDataModule` reads as its index.

    Training on a store of images as they are gives the batches that training on the files gives.
    Images that cannot be read are left out of its index and listed in ``failures.csv``. A run that
    was stopped goes on where it was; whatever the number of processes, the bytes are the same.

    Args:
        data: The images; masks are packed beside them.
        out: Folder of the store.
        options: How they are packed.

    Raises:
        InputError: If the folder holds something else or cannot be written, a mask does not fit its
            image, or more images are corrupt than the options allow.
        RuntimeError: If a process was killed.
    """
    options, out = options or PackOptions(), os.fspath(out)
    if "://" in out:
        raise InputError(f"a store is packed on a disk, got {out}: copy it there when it is done")
    if data.polarity != "stored":
        raise InputError(
            "a store holds what the files hold: leave polarity out here, and set it where the "
            "store is read"
        )
    rows = data.unsplit_index
    names = image_names(rows, data.image_folder)
    structures = data.structures
    images = Images(
        data.make_source(rows),
        pa.array(names, type=pa.large_string()),
        data.make_masks(rows, structures) if structures else None,
    )
    settings = _settings(data, rows, structures, options)
    try:
        return _pack(data, rows, images, StoreFolder(Path(out), settings), options)
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror or error}): make room there, or give "
            "another folder; what is finished is kept"
        ) from error


def verify_store(folder: str, options: PackOptions) -> int:
    """Read all images of a store, and return how many there are.

    Raises:
        InputError: If there is no store, or an image is damaged.
    """
    store = PackedStore(folder)
    shards = np.unique(store.shards).tolist()
    damaged: list[str] = []
    work = partial(_verify, store)
    with closing(
        in_parallel(work, shards, options.processes, images=len(store), title="Verifying")
    ) as results:
        for found in results:
            damaged += found
    if damaged:
        raise InputError(
            f"{len(damaged)} of {len(store)} images are damaged, the first: {min(damaged)}"
        )
    return len(store)


def _verify(store: PackedStore, shard: int, after_image: Callable[[], Any]) -> list[str]:
    """Return what is wrong with the images of a shard."""
    damaged = []
    for number in np.flatnonzero(store.shards == shard).tolist():
        try:
            store.check(number)
        except ImageReadError as error:
            damaged.append(str(error))
        after_image()
    return damaged


def _settings(
    data: IndexedImages, rows: pd.DataFrame, structures: list[str], options: PackOptions
) -> dict[str, Any]:
    """Return what decides the bytes of a store."""
    digest = hashlib.blake2b(digest_size=12)
    for key in data.image_keys(rows):
        digest.update(f"{key.removeprefix(data.image_folder).lstrip('/')}\0".encode())
    references = [f"mask/{name}" for name in structures if f"mask/{name}" in rows]
    for text in rows[references].fillna("").to_numpy().ravel().tolist():
        digest.update(f"{text}\0".encode())
    masks = {"structures": structures} | ({"masks": asdict(data.mask_rules)} if structures else {})
    return {
        "format": FORMAT,
        "size": options.size,
        "bits": options.bits,
        "compression": options.compression,
        "images": len(rows),
        "images_per_shard": _per_shard(len(rows)),
        "digest of images": digest.hexdigest(),
        **masks,
    }


def _per_shard(images: int) -> int:
    """Return how many images a shard has: enough shards for many cores, but no more than needed."""
    return min(_MOST_PER_SHARD, max(_LEAST_PER_SHARD, -(-images // _SHARDS)))


def _pack(
    data: IndexedImages,
    rows: pd.DataFrame,
    images: Images,
    store: StoreFolder,
    options: PackOptions,
) -> Packed:
    started = time.perf_counter()
    step = store.settings["images_per_shard"]
    shards = [range(first, min(first + step, len(rows))) for first in range(0, len(rows), step)]
    finished = store.finished(retry=options.retry)
    todo = sorted(set(range(len(shards))) - set(finished["shard"]))
    if todo:
        store.start(finished)
    failures = _Failures(len(rows), options.max_corrupt)
    failures.note(finished)
    tables, decoded = [finished], sum(len(shards[shard]) for shard in todo)
    work = partial(_write, images, shards, store.folder, options)
    with closing(
        in_parallel(work, todo, options.processes, images=decoded, title="Packing")
    ) as results:
        for table in results:
            failures.note(table)
            tables.append(table)
    whole = pd.concat([table for table in tables if len(table)])
    whole = whole.sort_values(["shard", "offset"], ignore_index=True)
    index = packed_index(data, rows, whole, store.settings["structures"])
    store.finish(whole, index)
    size = sum(file.stat().st_size for file in store.folder.glob("images-*.arrow"))
    seconds = time.perf_counter() - started
    return Packed(str(store.folder), len(index), len(rows) - len(index), decoded, size, seconds)


def _write(
    images: Images,
    shards: list[range],
    folder: Path,
    options: PackOptions,
    shard: int,
    after_image: Callable[[], Any],
) -> pd.DataFrame:
    return write_shard(images, shards[shard], shard, folder, options, after_image)


class _Failures:
    """Images that could not be read, until there are too many.

    Args:
        images: Images in all.
        max_corrupt: Share of them that may be corrupt.
    """

    def __init__(self, images: int, max_corrupt: float) -> None:
        self._log = FailureLog(images, max_corrupt)

    def note(self, table: pd.DataFrame) -> None:
        """Note those of some rows of the store's table."""
        failed = table[table["error"].notna()]
        try:
            for row in failed.itertuples():
                self._log.record(str(row.path), f"{row.path}: {row.error}")
        except TooManyCorruptImagesError as error:
            raise InputError(f"{error}. --retry tries repaired images again") from None
