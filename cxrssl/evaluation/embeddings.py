"""Features of the images of an evaluation from a frozen encoder."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.backbones import Backbone
from cxrssl.backbones.tokens import Pooling
from cxrssl.data import CXRDataModule, EvalDataset, FixedBatchSampler
from cxrssl.data.caching import Encoding, encode_once
from cxrssl.data.failures import FailureLog
from cxrssl.data.features import FeatureDtype, FeatureStore
from cxrssl.data.loader import plan_loader
from cxrssl.errors import InputError
from cxrssl.tasks.caching import pack_levels, packed_shapes
from cxrssl.tasks.encoder import fingerprint, view_options
from cxrssl.views import EvalView
from cxrssl.views.targets import Targets

__all__ = ["Embedded", "embed_images", "evaluation_view", "image_batches"]

_READ_AT_ONCE = 4096


class Embedded(NamedTuple):
    """Features of n images."""

    features: NDArray[np.float32]
    """(n, D)."""
    readable: NDArray[np.bool_]
    """(n,); features of the others mean nothing."""


def evaluation_view(
    backbone: Backbone, findings: Sequence[str], image_size: int | None = None
) -> EvalView:
    """Return the deterministic view an encoder is evaluated on, normalised as its file says.

    Args:
        backbone: The encoder.
        findings: Labels that are wanted of the images.
        image_size: Side in pixels; the encoder's own if None.

    Raises:
        InputError: If the encoder's patches do not tile the images.
    """
    size = backbone.image_size if image_size is None else image_size
    patch = getattr(backbone, "patch_size", 1)
    if size % patch:
        raise InputError(
            f"images of {size} pixels are not tiled by the encoder's patches of {patch} pixels: "
            "set sizes to multiples of it"
        )
    view = EvalView(**view_options(backbone, size))
    view.targets = Targets(findings=tuple(findings))
    return view


def embed_images(
    backbone: Backbone,
    data: CXRDataModule,
    rows: pd.DataFrame,
    view: EvalView,
    *,
    pooling: Pooling = "both",
    cache: str | None = None,
    cache_dtype: FeatureDtype = "float16",
) -> Embedded:
    """Return the features of images: class token and mean patch token after the last level.

    Args:
        backbone: The encoder; it is moved to the GPU where there is one and back, and is left in
            evaluation mode.
        data: Reads the images, in its batches and workers.
        rows: The n images, rows of its index.
        view: What of an image is shown.
        pooling: Which of the two tokens, or both side by side; the mean alone of an encoder whose
            class token nobody has trained.
        cache: Folder for features; found again where encoder, view and images are the same.
        cache_dtype: How cached numbers are kept.

    Raises:
        TooManyCorruptImagesError: Where more images are corrupt than the data module allows.
        InputError: If the encoder makes NaN.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    home = next(backbone.parameters()).device
    last = [len(backbone.level_dims) - 1]
    backbone.eval().to(device)

    def encode(images: Tensor) -> list[Tensor]:
        return pack_levels(backbone.levels(images, last), patches=False)

    try:
        encoding = Encoding(
            encode,
            packed_shapes(backbone, last, False, view.image_size),
            # The same as that of a task on this encoder, which then finds the same store.
            {
                "encoder": fingerprint(backbone),
                "levels": last,
                "patches": False,
                "precision": "32-true",
            },
            device,
            cache or "",
            cache_dtype,
        )
        batches = image_batches(data, rows, view, [np.arange(len(rows))])
        if cache is None:
            tokens, readable = _encode(encoding, batches)
        else:
            tokens, readable = _read(encode_once(encoding, batches, data.image_keys(rows), view))
    finally:
        backbone.to(home)
    features = _pool(tokens, backbone.pooling(pooling))
    broken = int((~np.isfinite(features[readable]).all(1)).sum())
    if broken:
        raise InputError(
            f"the encoder makes NaN or infinity of {broken} of {len(rows)} images: its weights are "
            "broken, or its images are normalised differently"
        )
    return Embedded(features, readable)


def image_batches(
    data: CXRDataModule,
    rows: pd.DataFrame,
    view: EvalView,
    groups: Sequence[NDArray[np.int64]],
) -> Iterator[dict[str, Any]]:
    """Yield images in the order of groups of their numbers, in batches of one group each.

    Args:
        data: Reads the images, in its batches and workers.
        rows: Rows of its index, of which image i is row i.
        view: What of an image is shown.
        groups: Numbers of images.

    Raises:
        TooManyCorruptImagesError: Where more images are corrupt than the data module allows.
    """
    dataset = EvalDataset(data.shown_source(rows), view, np.zeros((len(rows), 0), np.float32))
    plans = [plan for group in groups for plan in FixedBatchSampler(group, data.batch_size)]
    failures = FailureLog(len(data.index), data.max_corrupt)
    loader = plan_loader(dataset, plans, num_workers=data.num_workers, pin_memory=data.pin_memory)
    for batch in loader:
        for number, message in batch["failures"]:
            failures.record(str(rows["path"].iloc[number]), message)
        yield batch


def _encode(
    encoding: Encoding, batches: Iterable[Mapping[str, Any]]
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Return the tokens (n, T, D) of n images, and which could be read (n,)."""
    started = time.perf_counter()
    tokens, readable = [], []
    with torch.no_grad():
        for batch in batches:
            images = batch["image"].to(encoding.device, non_blocking=True)
            tokens.append(encoding.encode(images)[0].float().cpu())
            readable.append(batch["readable"])
    together = torch.cat(tokens)
    rank_zero_info(f"Encoded {len(together):,} images in {time.perf_counter() - started:.1f} s.")
    return together, torch.cat(readable).numpy()


def _read(store: FeatureStore) -> tuple[Tensor, NDArray[np.bool_]]:
    """Return the tokens (n, T, D) of a store, and which images could be read (n,)."""
    numbers = np.arange(len(store))
    parts = [numbers[start : start + _READ_AT_ONCE] for start in numbers[::_READ_AT_ONCE]]
    return torch.cat([store.read(part)[0] for part in parts]), store.readable


def _pool(tokens: Tensor, pooling: Pooling) -> NDArray[np.float32]:
    """Return features (n, D) of class token, where there is one, and mean patch (n, T, D)."""
    chosen = {"class": tokens[:, 0], "mean": tokens[:, -1], "both": tokens.flatten(1)}[pooling]
    features: NDArray[np.float32] = chosen.numpy()
    return features
