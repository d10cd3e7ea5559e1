"""The data loader of planned batches."""

from collections.abc import Mapping
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

from cxrssl.data.sampler import BatchPlan

__all__ = ["PlanLoader", "plan_loader"]


class PlanLoader(DataLoader[dict[str, Any]]):
    """A loader that a trainer may resume in the middle of an epoch.

    Lightning warns about a loader without a state. This one has none to keep, for a plan says all
    and the sampler's position is part of the data module's state, which must be known before the
    first batch is fetched ahead.
    """

    def __iter__(self) -> _BaseDataLoaderIter:
        """Start an epoch; workers are forked while OpenCV has no threads.

        A forked worker inherits OpenCV's thread pool without its threads: the next call that wants
        them, even the one that sets their number, waits for ever. At 1 thread there is no pool.
        """
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            return super().__iter__()
        finally:
            cv2.setNumThreads(threads)

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
    """Leave the cores to the other workers, as torch does of itself."""
    cv2.setNumThreads(1)
