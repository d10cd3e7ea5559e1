"""Which images make which batch: planned ahead, as a pure function of seed and epoch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, DistributedSampler

from cxrssl.errors import InputError

__all__ = ["BatchPlan", "FixedBatchSampler", "PlannedBatchSampler"]

_ORDER_STREAM = 2
"""Keeps the order's stream apart from those of samples and batches (see `cxrssl.data.dataset`)."""


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """Everything a worker must know to make one batch of one rank.

    Args:
        epoch: Epoch the batch belongs to, from 0.
        number: Number of the global batch in its epoch, from 0.
        rank: Process the batch is for.
        images: Image numbers (B,) int64.
    """

    epoch: int
    number: int
    rank: int
    images: NDArray[np.int64]


class _PlanSampler(DistributedSampler[BatchPlan]):
    """A sampler of whole batches, each process its own.

    It is a `DistributedSampler` because that is what a trainer leaves alone: any other sampler is
    replaced when several processes run with ``use_distributed_sampler=True``, Lightning's default.
    """

    def __init__(self, n_images: int, seed: int, rank: int, world_size: int) -> None:
        # The base class asks its data set for the length only.
        images = cast("Dataset[Any]", range(n_images))
        super().__init__(images, num_replicas=world_size, rank=rank, seed=seed)


class PlannedBatchSampler(_PlanSampler):
    """Shuffled training batches that can start anywhere.

    The order of an epoch is one permutation of all images, drawn from (seed, epoch) alone. Global
    batch b is ``order[b * G:(b + 1) * G]`` with G = batch_size * world_size, and rank r takes the
    r-th part of it: the global batches do not depend on how many ranks share them. An epoch is made
    of whole optimiser steps, so that these do not depend either on how many batches each of them
    accumulates. What is left waits for another epoch's order.

    Args:
        n_images: Images to draw from.
        batch_size: Images per rank and batch.
        seed: Seed of the order, >= 0.
        rank: This process.
        world_size: Number of processes.
        weights: Sampling weights (n_images,), >= 0: an epoch then draws n_images times with
            replacement. None shows every image once an epoch.
        accumulated: Global batches of an optimiser step.

    Raises:
        InputError: Where the images do not fill one step, or the weights do not fit.
    """

    def __init__(
        self,
        n_images: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        weights: NDArray[np.float64] | None = None,
        accumulated: int = 1,
    ) -> None:
        if n_images < batch_size * world_size * accumulated:
            raise InputError(
                f"{n_images} training images do not fill one global batch of {batch_size} x "
                f"{world_size} x {accumulated} (batch_size x processes x "
                "accumulate_grad_batches): lower one of them"
            )
        super().__init__(n_images, seed, rank, world_size)
        self.n_images = n_images
        self.batch_size = batch_size
        self.accumulated = accumulated
        self._cumulative = None if weights is None else _cumulative(weights, n_images)
        self._start = (0, 0)

    @property
    def global_batch(self) -> int:
        """Images per batch over all processes, G."""
        return self.batch_size * self.num_replicas

    def start_at(self, epoch: int, batch: int) -> None:
        """Go to an epoch, and let its iterations begin at a batch; other epochs begin at 0."""
        self._start = (epoch, batch)
        self.set_epoch(epoch)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the image numbers (n_images,) of an epoch in the order they are shown."""
        rng = np.random.default_rng((self.seed, epoch, 0, 0, _ORDER_STREAM))
        if self._cumulative is None:
            return rng.permutation(self.n_images)
        return np.searchsorted(self._cumulative, rng.random(self.n_images), side="right")

    def __len__(self) -> int:
        """Return the batches of a whole epoch, wherever the iteration starts."""
        return self.n_images // (self.global_batch * self.accumulated) * self.accumulated

    def __iter__(self) -> Iterator[BatchPlan]:
        epoch = self.epoch
        order = self.order(epoch)
        start_epoch, start = self._start
        for number in range(start if epoch == start_epoch else 0, len(self)):
            first = number * self.global_batch + self.rank * self.batch_size
            yield BatchPlan(epoch, number, self.rank, order[first : first + self.batch_size])


class FixedBatchSampler(_PlanSampler):
    """The same batches every time, over all images given; the last batch may be smaller.

    Args:
        images: Image numbers (n,) to go through, in this order.
        batch_size: Images per rank and batch.
        rank: This process, which takes every world_size-th image.
        world_size: Number of processes.
        pad: Repeat the first images until every process has equally many, as validation needs
            whose losses wait for all processes.
    """

    def __init__(
        self,
        images: NDArray[np.int64],
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        pad: bool = False,
    ) -> None:
        super().__init__(len(images), 0, rank, world_size)
        if pad:
            images = np.resize(images, self.total_size)
        self.images = images[rank::world_size]
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[BatchPlan]:
        for number in range(len(self)):
            first = number * self.batch_size
            yield BatchPlan(0, number, self.rank, self.images[first : first + self.batch_size])


def _cumulative(weights: NDArray[np.float64], n_images: int) -> NDArray[np.float64]:
    if weights.shape != (n_images,):
        raise InputError(f"weights must have the shape ({n_images},), got {weights.shape}")
    total = weights.sum()
    if not (np.isfinite(total) and weights.min() >= 0 and total > 0):
        raise InputError("sampling weights must be finite, >= 0 and not all 0")
    cumulative = np.cumsum(weights, dtype=np.float64)
    # Divided by its own last entry the sum ends at exactly 1, above every draw.
    return np.asarray(cumulative / cumulative[-1])
