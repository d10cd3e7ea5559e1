"""The data loader of planned batches."""

import signal
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import cv2
import torch
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info
from torch.utils.data.dataloader import _BaseDataLoaderIter

from cxrssl.data.sampler import BatchPlan
from cxrssl.errors import InputError

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
    sampler: Sampler[BatchPlan] | Sequence[BatchPlan],
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
        _Sentences(dataset),
        sampler=sampler,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
        persistent_workers=persistent and num_workers > 0,
        worker_init_fn=_settle,
        # The loader draws a seed for its workers, which nothing here uses. From the global
        # generator the draw would shift the random numbers of the training itself.
        generator=torch.Generator(),
    )


class _Sentences(Dataset[Any]):
    """Batches of a data set, with input errors that leave a worker as they are.

    A loader makes a new error of one raised in a worker, whose message is the whole traceback.

    Args:
        dataset: Indexed by `BatchPlan`.
    """

    def __init__(self, dataset: Dataset[dict[str, Any]]) -> None:
        self.dataset = dataset

    def __getitem__(self, plan: BatchPlan) -> Any:
        try:
            return self.dataset[plan]
        except InputError as error:
            if get_worker_info() is None:
                raise
            return _Sentence(error)


class _Sentence(ExceptionWrapper):
    """An input error on its way out of a worker; loaders ask such a thing to raise itself."""

    def __init__(self, error: InputError) -> None:
        self.error = error

    def reraise(self) -> NoReturn:
        """Raise the error of the worker."""
        raise self.error


def _as_it_is(batch: Any) -> Any:
    return batch


def _settle(worker: int) -> None:
    """Leave the cores to the other workers, as torch does of itself, and signals to the trainer.

    SLURM and terminals send a signal to all processes, and one that ends the workers would end the
    run before it can write a checkpoint. A worker ends with its loader, or when the run is gone.
    """
    cv2.setNumThreads(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
