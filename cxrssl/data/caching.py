"""Writing features of labelled images, each encoded once, and finding them again."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch import distributed as dist

from cxrssl.data.features import FeatureDtype, FeatureStore, FeatureWriter, fingerprint
from cxrssl.errors import InputError

__all__ = ["Encoding", "encode_once"]


@dataclass(frozen=True)
class Encoding:
    """How images become features.

    Args:
        encode: Images (B, C, H, W) on the device to tokens (B, T_i, D_i) after each level.
        shapes: (T_i, D_i) of each level.
        description: Plain data that says which encoder this is and what of it is read.
        device: Where ``encode`` wants the images.
        folder: Where stores are kept, each in a folder of its own.
        dtype: How numbers are kept.
    """

    encode: Callable[[Tensor], Sequence[Tensor]]
    shapes: Sequence[tuple[int, int]]
    description: Mapping[str, Any]
    device: torch.device
    folder: str
    dtype: FeatureDtype = "float16"


def encode_once(
    encoding: Encoding,
    loader: Iterable[Mapping[str, Any]],
    paths: Sequence[str],
    view: object,
    rank: int = 0,
) -> FeatureStore:
    """Return the features of images from a store, which is made if there is none.

    A store is found again where encoder, view, images and numbers are the same; a file that has
    changed in size or time is another image. A run that finds another at work on the same store
    waits for it.

    Args:
        encoding: How images become features.
        loader: This process's share of the images, as :class:`EvalDataset` makes batches.
        paths: The n images, in the order of their numbers: files, or names that tell them apart.
        view: The deterministic view; its plain attributes tell it from others.
        rank: This process; the first one makes the folder.

    Raises:
        InputError: If the store cannot be written, or features do not fit ``dtype``.
    """
    # Only the first process looks at the files, so that all agree on the store.
    description = _of_first({} if rank else _describe(encoding, paths, view))
    folder = Path(encoding.folder) / fingerprint(description)
    with _alone(folder, rank):
        if _of_first(folder.is_dir()):
            store = FeatureStore(folder)
            rank_zero_info(f"Features of {len(store):,} images come from {folder}.")
            return store
        started = time.perf_counter()
        writer = FeatureWriter(
            folder, len(paths), encoding.shapes, encoding.dtype, description, owner=rank == 0
        )
        _wait()
        with torch.no_grad():
            for batch in loader:
                images = batch["image"].to(encoding.device, non_blocking=True)
                numbers = batch["image_number"].numpy()
                writer.write(numbers, encoding.encode(images), batch["readable"])
        _wait()
        if rank == 0:
            writer.finish()
        _wait()
    seconds = time.perf_counter() - started
    rank_zero_info(f"Encoded {len(paths):,} images once, in {seconds:.1f} s: {folder}")
    return FeatureStore(folder)


@contextmanager
def _alone(folder: Path, rank: int) -> Iterator[None]:
    """Keep other runs from making a store at the same time."""
    if rank:
        yield
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{folder.name}.lock").open("w")
    except OSError as error:
        raise InputError(
            f"the cache {folder.parent} cannot be written ({error.strerror}): choose another folder"
        ) from error
    with lock, _locked(lock, folder):
        yield


@contextmanager
def _locked(lock: IO[str], folder: Path) -> Iterator[None]:
    """Hold a lock that goes with this process, however that ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    # Some network file systems have no locks: there, runs must be started one after the other.
    with suppress(OSError):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            rank_zero_info(f"Waits for another run that makes {folder}.")
            fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        # Closing the file is not enough while workers have it open.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_UN)


def _of_first(value: Any) -> Any:
    """Return the value that the first process gives."""
    if dist.is_available() and dist.is_initialized():
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]
    return value


def _wait() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def _describe(encoding: Encoding, paths: Sequence[str], view: object) -> dict[str, Any]:
    """Return plain data that tells a store from others."""
    plain = {
        name: value
        for name, value in vars(view).items()
        if isinstance(value, str | int | float | bool | None) or type(value) is tuple
    }
    return {
        **encoding.description,
        "dtype": encoding.dtype,
        "view": {"class": type(view).__name__, **plain},
        "images": _digest(paths),
    }


def _digest(paths: Sequence[str]) -> str:
    """Return a hash of paths, and of size and time of those that are files or rows of one."""
    digest = hashlib.blake2b(digest_size=12)
    for path in paths:
        digest.update(f"{path}\0".encode())
        file, row, _ = path.rpartition("#")
        with suppress(OSError):
            status = os.stat(file if row and file.lower().endswith(".npz") else path)
            digest.update(np.array([status.st_size, status.st_mtime_ns]).tobytes())
    return digest.hexdigest()
