"""Writing features of labelled images, each encoded once, and finding them again."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch import distributed as dist

from cxrssl.data.features import FeatureDtype, FeatureStore, FeatureWriter, fingerprint

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
    changed in size or time is another image.

    Args:
        encoding: How images become features.
        loader: This process's share of the images, as :class:`EvalDataset` makes batches.
        paths: The n images, in the order of their numbers.
        view: The deterministic view; its plain attributes tell it from others.
        rank: This process; the first one makes the folder.
    """
    description = {
        **encoding.description,
        "dtype": encoding.dtype,
        "view": _plain(view),
        "images": _images(paths),
    }
    folder = Path(encoding.folder) / fingerprint(description)
    _wait()
    if folder.is_dir():
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
            writer.write(batch["image_number"].numpy(), encoding.encode(images), batch["readable"])
    _wait()
    if rank == 0:
        writer.finish()
    _wait()
    seconds = time.perf_counter() - started
    rank_zero_info(f"Encoded {len(paths):,} images once, in {seconds:.1f} s: {folder}")
    return FeatureStore(folder)


def _wait() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def _plain(view: object) -> dict[str, Any]:
    plain = {k: v for k, v in vars(view).items() if isinstance(v, str | int | float | bool | None)}
    return {"class": type(view).__name__, **plain}


def _images(paths: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for path in paths:
        digest.update(path.encode())
        if os.path.exists(path):
            status = os.stat(path)
            digest.update(np.array([status.st_size, status.st_mtime_ns]).tobytes())
    return digest.hexdigest()
