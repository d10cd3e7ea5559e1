"""Frozen features of the probe images of a split, shared among processes."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist

from cxrssl.analysis import embed_loader
from cxrssl.callbacks.contracts import Embeds
from cxrssl.gathering import gather_images

__all__ = ["embed_batches"]


def embed_batches(
    trainer: Trainer,
    objective: Embeds,
    loader: Iterable[Mapping[str, Any]],
    pooling: str = "class",
) -> dict[str, NDArray[Any]]:
    """Return features and labels of the images of all processes, ordered by image number.

    Images without any label, as unreadable ones are, are left out.

    Args:
        trainer: Its precision is used.
        objective: Embeds the images.
        loader: This process's share of the images.
        pooling: What of an image's tokens becomes its features.

    Returns:
        ``features`` (n, D) float32, ``labels`` (n, F), ``image_number`` (n,).
    """
    precision = trainer.precision_plugin

    def model_fn(images: Tensor) -> Tensor:
        with precision.forward_context():
            return objective.embed(precision.convert_input(images), pooling)

    batches = _even(trainer, loader) if trainer.world_size > 1 else loader
    rows = gather_images(embed_loader(model_fn, batches, trainer.strategy.root_device))
    labelled = ~np.isnan(rows["labels"]).all(1)
    return {name: values[labelled] for name, values in rows.items()}


def _even(trainer: Trainer, loader: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield equally many batches on all processes, the last one again where there are too few.

    A sharded encoder communicates in its forward pass and would wait for ever otherwise.
    """
    length = len(loader) if isinstance(loader, Sized) else 0
    most = torch.tensor(length, device=trainer.strategy.root_device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    batches, batch = iter(loader), None
    for _ in range(int(most)):
        batch = next(batches, batch)
        if batch is None:  # a process without any image
            return
        yield batch
