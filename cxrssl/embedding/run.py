"""Embedding the images of an index with a frozen encoder."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import cxrssl
from cxrssl.backbones import Backbone
from cxrssl.data import CXRDataModule
from cxrssl.embedding.options import EmbedOptions
from cxrssl.embedding.parts import Part, PartFolder
from cxrssl.embedding.shares import Share, this_share
from cxrssl.embedding.tables import check_out, read_about, write_table
from cxrssl.errors import InputError
from cxrssl.evaluation.embeddings import evaluation_view, image_batches
from cxrssl.tasks.encoder import fingerprint
from cxrssl.views import EvalView

__all__ = ["Embedding", "embed"]

_PART_BYTES = 64 * 2**20
_FEWEST, _MOST = 16, 4096
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Embedding:
    """What embedding has done.

    Attributes:
        out: The table; it is there if nothing is ``left``.
        images: Images in it.
        shape: Of the embedding of an image: (D,), or (N, D) of patches.
        encoded: Images that this process has encoded.
        failed: Images that could not be read, as far as parts are finished.
        left: Parts that other processes have not finished.
        seconds: Time that it took.
    """

    out: Path
    images: int
    shape: tuple[int, ...]
    encoded: int
    failed: int
    left: int
    seconds: float


def embed(
    encoder: Backbone,
    data: CXRDataModule,
    out: str | Path,
    options: EmbedOptions | None = None,
    *,
    share: Share | None = None,
) -> Embedding:
    """Write a table of the images of an index with the encoder's tokens beside every column.

    Images are encoded in parts, which are kept in ``OUT.parts`` until all are there. A run that was
    stopped goes on where it was, and one that finds the table finished does nothing. Processes that
    were started together (torchrun, srun) do every so many parts each, and the last one makes the
    table. The batches of a part are its own, so that the numbers are the same bit by bit for any
    number of processes and workers; with another batch size they differ by rounding.

    Images that cannot be read have NaN, and stand in ``OUT.failures.csv`` with the reason.

    Args:
        encoder: Left in evaluation mode on the device that was used.
        data: The images, in its batches and workers.
        out: ``.parquet`` or ``.npz``.
        options: What of the tokens is written.
        share: Which process this is; told by the launcher's variables if None.

    Raises:
        InputError: If the file cannot be written, the encoder has no such tokens or level, an
            interrupted run had other settings, or more images are corrupt than ``data`` allows.
    """
    options = EmbedOptions() if options is None else options
    share = this_share() if share is None else share
    out, started = Path(out), time.perf_counter()
    data.setup("predict")
    rows = data.rows(options.split)
    rows = rows.join(data.other_columns().loc[rows.index])
    check_out(out, rows)
    if rows.empty:
        raise InputError(f"the index has no images of the split {options.split!r}")
    view = evaluation_view(encoder, (), options.image_size)
    device = _device(share)
    encode = _encode(encoder.eval().to(device), options, device)
    shape = _shape(encode, encoder, view)
    size = min(_MOST, max(_FEWEST, _PART_BYTES // (4 * math.prod(shape))))
    settings = _settings(encoder, data, rows, view, options) | {"images in a part": size}
    about = settings | {"shape": list(shape), "digest of the index": _digest_of_index(rows)}
    if read_about(out) == about:
        return Embedding(out, len(rows), shape, 0, _count_failures(out), 0, 1e-9)
    ends = [*range(size, len(rows), size), len(rows)]
    numbers = [np.arange(first, end) for first, end in pairwise([0, *ends])]
    folder = PartFolder(out.with_name(f"{out.name}.parts"), settings, len(numbers))
    todo = [number for number in folder.missing() if number % share.world_size == share.rank]
    encoded = sum(len(numbers[number]) for number in todo)
    # One bar for all processes, and none in a log file.
    with tqdm(
        total=encoded, desc="Embedding", unit="image", disable=True if share.rank else None
    ) as bar:
        batches = image_batches(data, rows, view, [numbers[number] for number in todo])
        _fill(folder, todo, numbers, batches, encode, options.dtype, bar)
    left, failed = folder.missing(), 0
    if not left:
        failed = _join(folder, out, rows, shape, about)
    seconds = time.perf_counter() - started
    return Embedding(out, len(rows), shape, encoded, failed, len(left), seconds)


def _device(share: Share) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", share.local_rank % torch.cuda.device_count())


def _encode(
    encoder: Backbone, options: EmbedOptions, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Return what turns images (B, C, H, W) into what is written of them, (B, ...) float32."""
    if options.tokens in ("class", "both") and not encoder.has_class_token:
        raise InputError(
            f"the encoder has no class token, so that tokens cannot be {options.tokens!r}: set "
            "tokens to mean or patches"
        )
    level = -1 if options.layer is None else options.layer
    autocast = _AUTOCAST.get(options.precision)

    @torch.inference_mode()
    def encode(images: Tensor) -> Tensor:
        images = images.to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            [tokens] = encoder.levels(images, [level])
        if options.tokens == "patches":
            return tokens.patches.float().cpu()
        return tokens.pool(options.tokens or encoder.pooling()).float().cpu()

    return encode


def _shape(
    encode: Callable[[Tensor], Tensor], encoder: Backbone, view: EvalView
) -> tuple[int, ...]:
    """Return the shape of what is written of an image."""
    side = view.image_size
    blank = torch.zeros(1, encoder.in_chans, side, side, dtype=next(encoder.parameters()).dtype)
    return tuple(encode(blank).shape[1:])


def _settings(
    encoder: Backbone,
    data: CXRDataModule,
    rows: pd.DataFrame,
    view: EvalView,
    options: EmbedOptions,
) -> dict[str, Any]:
    """Return what decides the numbers, as plain data without paths."""
    digest = hashlib.blake2b(digest_size=12)
    for key in data.image_keys(rows):
        digest.update(f"{key}\0".encode())
    chosen = asdict(options) | {"tokens": options.tokens or encoder.pooling()}
    return {
        **chosen,
        "encoder": fingerprint(encoder),
        "image_size": view.image_size,
        "resize": view.resize,
        "resampling": view.resampling,
        "mean": view.mean,
        "std": view.std,
        "polarity": data.polarity,
        "images": len(rows),
        "digest of images": digest.hexdigest(),
        "version": cxrssl.__version__,
    }


def _digest_of_index(rows: pd.DataFrame) -> str:
    """Return a hash of all columns, whose numbers are not those of the parts."""
    values = pd.util.hash_pandas_object(rows.astype("string"), index=False).to_numpy()
    return hashlib.blake2b(values.tobytes(), digest_size=12).hexdigest()


def _failures_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.failures.csv")


def _count_failures(out: Path) -> int:
    path = _failures_of(out)
    return len(pd.read_csv(path)) if path.is_file() else 0


def _fill(
    folder: PartFolder,
    todo: Sequence[int],
    numbers: Sequence[NDArray[np.int64]],
    batches: Iterator[dict[str, Any]],
    encode: Callable[[Tensor], Tensor],
    dtype: str,
    bar: "tqdm[Any]",
) -> None:
    """Encode the parts that are to be done."""
    for part in todo:
        features: list[NDArray[np.floating]] = []
        errors: dict[int, str] = {}
        done = 0
        while done < len(numbers[part]):
            batch = next(batches)
            errors |= dict(batch["failures"])
            features.append(_numbers(encode(batch["image"]), batch["readable"], dtype))
            done += len(batch["image"])
            bar.update(len(batch["image"]))
        reasons = [errors.get(number, "") for number in numbers[part].tolist()]
        folder.write(part, Part(np.concatenate(features), reasons))


def _numbers(tokens: Tensor, readable: Tensor, dtype: str) -> NDArray[np.floating]:
    """Return numbers as they are written, NaN for images that could not be read."""
    features: NDArray[np.floating] = tokens.numpy().astype(dtype)
    if not np.isfinite(features[readable.numpy()]).all():
        raise InputError(
            f"the encoder makes NaN or numbers beyond {dtype}: its weights are broken, its images "
            "are normalised differently, or precision and dtype must be wider"
        )
    features[~readable.numpy()] = np.nan
    return features


def _join(
    folder: PartFolder,
    out: Path,
    rows: pd.DataFrame,
    shape: tuple[int, ...],
    about: dict[str, Any],
) -> int:
    """Make the table of all parts, and return how many images could not be read."""
    errors: list[str] = []

    def features() -> Iterator[NDArray[np.floating]]:
        for number in range(folder.parts):
            part = folder.read(number)
            errors.extend(part.errors)
            yield part.features

    write_table(out, rows, features(), shape, about)
    failed = np.flatnonzero([bool(error) for error in errors])
    failures = _failures_of(out)
    failures.unlink(missing_ok=True)
    if len(failed):
        table = pd.DataFrame(
            {"path": rows["path"].iloc[failed], "error": [errors[number] for number in failed]}
        )
        table.to_csv(failures, index=False)
    folder.remove()
    return len(failed)
