"""The data loader of planned batches."""

from collections.abc import Mapping
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from cxrssl.data.sampler import BatchPlan

__all__ = ["PlanLoader", "plan_loader"]


class PlanLoader(DataLoader[dict[str, Any]]):
    """A loader that a trainer may resume in the middle of an epoch.

    Lightning warns about a loader without a state. This one has none to keep, for a plan says all
    and the sampler's position is part of the data module's state, which must be known before the
    first batch is fetched ahead.
    """

    def __iter__(self) -> Any:
        """Start an epoch, with OpenCV's own threads ended before workers are forked.

        A forked worker inherits OpenCV's thread pool without its threads: the next call that wants
        them, even the one that sets their number, waits for ever. So the pool goes here.
        """
        cv2.setNumThreads(0)
        return super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the position is in `CXRDataModule.state_dict`."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Accept what `state_dict` returned."""


def plan_loader(
    dataset: Dataset[dict[str, Any]],
    sampler: Sampler[BatchPlan],
    *,
    num_workers: int,
    pin_memory: bool | None,
    persistent: bool = False,
) -> PlanLoader:
    """Return a loader that hands whole plans to the data set, which returns whole batches.

    Args:
        dataset: Indexed by `BatchPlan`.
        sampler: Yields the plans.
        num_workers: Worker processes; 0 reads in this one. The batches are the same.
        pin_memory: None pins where a GPU is there.
        persistent: Keep the workers between epochs.
    """
    return PlanLoader(
        dataset,
        sampler=sampler,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
        persistent_workers=persistent and num_workers > 0,
        worker_init_fn=_one_thread,
        # The loader draws a seed for its workers, which nothing here uses. From the global
        # generator the draw would shift the random numbers of the training itself.
        generator=torch.Generator(),
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _one_thread(worker: int) -> None:
    """Leave the cores to the other workers; OpenCV has no threads since before the fork."""
    torch.set_num_threads(1)
