"""Features of frozen encoders on disk: written once, mapped into memory when read."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cxrssl.data.sampler import BatchPlan
from cxrssl.data.targets import TargetTable
from cxrssl.errors import InputError

__all__ = ["FeatureDataset", "FeatureDtype", "FeatureStore", "FeatureWriter", "fingerprint"]

FeatureDtype = Literal["float16", "bfloat16", "float32"]

_TORCH = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
# numpy has no bfloat16; its bits are kept as whole numbers.
_NUMPY = {"float16": np.float16, "bfloat16": np.uint16, "float32": np.float32}
_DESCRIPTION = "features.json"
_READABLE = "readable.npy"


class FeatureStore:
    """Tokens of images after some levels of an encoder, one memory-mapped array a level.

    A store is a folder: ``features.json`` says what it holds, ``level<i>.npy`` are arrays
    (n, T_i, D_i) and ``readable.npy`` tells which images could be read. The folder gets its name
    when it is complete, so that a kill leaves nothing that looks like a store.

    Args:
        folder: A complete store.

    Attributes:
        description: What was said of it when it was made.
        readable: Which images (n,) could be read; features of the others mean nothing.

    Raises:
        InputError: If the folder holds no complete store.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        try:
            self.description: dict[str, Any] = json.loads((self.folder / _DESCRIPTION).read_text())
            self.dtype: FeatureDtype = self.description["dtype"]
            self._levels = [
                np.load(self.folder / f"level{number}.npy", mmap_mode="r", allow_pickle=False)
                for number in range(len(self.description["shapes"]))
            ]
            self.readable: NDArray[np.bool_] = np.load(self.folder / _READABLE, allow_pickle=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{folder} holds no features ({error}): delete it, and they are made again"
            ) from error

    def __len__(self) -> int:
        return len(self.readable)

    def __reduce__(self) -> tuple[type["FeatureStore"], tuple[Path]]:
        # A map that is pickled would take all of its file to the other process.
        return type(self), (self.folder,)

    def read(self, numbers: NDArray[np.int64]) -> list[Tensor]:
        """Return the tokens (B, T_i, D_i) float32 of B images after each level."""
        return [self._decode(np.asarray(level[numbers])).float() for level in self._levels]

    def _decode(self, values: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(values)
        return tensor.view(torch.bfloat16) if self.dtype == "bfloat16" else tensor


class FeatureWriter:
    """Writes a store, from several processes if need be.

    Args:
        folder: Where the store is to be; one owner at a time may write there.
        n_images: Rows of each array.
        shapes: (T_i, D_i) of each level.
        dtype: How numbers are kept.
        description: Plain data that says what the features are.
        owner: Whether this process makes and finishes the store.

    Raises:
        InputError: If the folder cannot be written, or the disk has too little room.
    """

    def __init__(
        self,
        folder: Path,
        n_images: int,
        shapes: Sequence[tuple[int, int]],
        dtype: FeatureDtype,
        description: Mapping[str, Any],
        *,
        owner: bool = True,
    ) -> None:
        self.folder = folder
        self.dtype: FeatureDtype = dtype
        self._part = folder.with_name(f".{folder.name}.part")
        self._names = [f"level{number}.npy" for number in range(len(shapes))]
        if owner:
            with _writing(self._part):
                self._make(n_images, shapes, description)

    def _make(
        self, n_images: int, shapes: Sequence[tuple[int, int]], description: Mapping[str, Any]
    ) -> None:
        shutil.rmtree(self._part, ignore_errors=True)
        self._part.mkdir(parents=True)
        width = np.dtype(_NUMPY[self.dtype]).itemsize
        needed = n_images * sum(tokens * dim for tokens, dim in shapes) * width
        free = shutil.disk_usage(self._part).free
        if needed > free:
            raise InputError(
                f"the features of {n_images} images take {needed / 1e9:.1f} GB and "
                f"{self.folder.parent} has {free / 1e9:.1f} GB left: choose another cache, a head "
                "that reads fewer blocks or no patches, or no cache"
            )
        for name, shape in zip(self._names, shapes, strict=True):
            self._empty(name, (n_images, *shape), _NUMPY[self.dtype])
        self._empty(_READABLE, (n_images,), np.bool_)
        whole = {**description, "dtype": self.dtype, "shapes": [list(shape) for shape in shapes]}
        (self._part / _DESCRIPTION).write_text(json.dumps(whole, indent=1, sort_keys=True))

    def write(self, rows: NDArray[np.int64], levels: Sequence[Tensor], readable: Tensor) -> None:
        """Write the tokens (B, T_i, D_i) of images after each level into their rows.

        Args:
            rows: Rows (B,) of the images.
            levels: Their tokens.
            readable: Which of them (B,) could be read.

        Raises:
            InputError: If tokens do not fit the kind of numbers, or cannot be written.
        """
        with _writing(self._part):
            for name, values in zip(self._names, levels, strict=True):
                self._put(name, rows, self._encode(values))
            self._put(_READABLE, rows, readable.cpu().numpy())

    def finish(self) -> FeatureStore:
        """Give the store its name, and open it."""
        with _writing(self._part):
            os.replace(self._part, self.folder)
        return FeatureStore(self.folder)

    def _encode(self, values: Tensor) -> NDArray[Any]:
        kept = values.detach().cpu().to(_TORCH[self.dtype])
        if not torch.isfinite(kept).all():
            raise InputError(
                f"features do not fit {self.dtype}, or the encoder makes NaN: use bfloat16 or "
                "float32"
            )
        numbers: NDArray[Any] = (
            kept.view(torch.uint16) if self.dtype == "bfloat16" else kept
        ).numpy()
        return numbers

    def _empty(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        np.lib.format.open_memmap(self._part / name, mode="w+", shape=shape, dtype=dtype)

    def _put(self, name: str, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Write values (B, ...) into rows of an array.

        Not through a map: a full disk would kill the process without a word, and a machine that
        shares the file through a network would write back whole pages, rows of others among them.
        """
        path = self._part / name
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        first, width = array.offset, array.strides[0]
        with path.open("r+b") as file:
            for row, value in zip(rows.tolist(), values, strict=True):
                file.seek(first + row * width)
                file.write(value.tobytes())


class FeatureDataset(Dataset[dict[str, Any]]):
    """Batches of stored features and what is to be predicted of their images.

    A batch holds ``levels``, a list of tokens (B, T_i, D_i), and the entries of
    :class:`TaskDataset` but images and masks.

    Args:
        store: The features.
        rows: Row of the store (n,) of each image, -1 where it has none.
        targets: Targets of the images.

    Raises:
        InputError: If an image has no features, or masks are wanted.
    """

    def __init__(self, store: FeatureStore, rows: NDArray[np.int64], targets: TargetTable) -> None:
        if lacking := int((rows < 0).sum()):
            raise InputError(
                f"{lacking} of {len(rows)} images have no features in {store.folder}: other images "
                "are labelled than when they were made, so call cache_features again"
            )
        if targets.structures:
            raise InputError("masks cannot be learnt from stored features: use no cache")
        self.store = store
        self.rows = rows
        self.targets = targets

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, plan: BatchPlan) -> dict[str, Any]:
        """Return the batch of a plan."""
        rows = self.rows[plan.images]
        readable = self.store.readable[rows]
        batch: dict[str, Any] = {"levels": self.store.read(rows)}
        batch |= self.targets.of(plan.images, readable)
        batch["image_number"] = torch.from_numpy(plan.images.copy())
        batch["readable"] = torch.from_numpy(readable)
        batch["failures"] = []
        return batch


def fingerprint(description: Mapping[str, Any]) -> str:
    """Return a name for what is described, equal on every machine."""
    text = json.dumps(description, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say what to do where a folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"features cannot be written to {folder} ({error.strerror or error}): the cache must "
            "be a folder with room that every process can write to"
        ) from error
