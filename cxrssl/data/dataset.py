"""Data sets that turn a batch plan into a batch, inside the worker.

Three streams of random numbers feed training, all from `numpy.random.default_rng`:

* a sample: (seed, epoch, image number);
* a batch: (seed, epoch, batch number, rank, 1);
* the order of an epoch: (seed, epoch, 0, 0, 2), in `cxrssl.data.sampler`.

The last constant keeps them apart: numpy pads a short seed with zeros, so that (seed, epoch, 5)
and (seed, epoch, 5, 0) would be the same stream.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cxrssl.data.image import ImageReadError
from cxrssl.data.sampler import BatchPlan
from cxrssl.data.sources import ImageSource
from cxrssl.errors import InputError
from cxrssl.views.base import Views
from cxrssl.views.eval_view import EvalView

__all__ = ["EvalDataset", "ViewDataset", "read_or_next"]

T = TypeVar("T")

_BATCH_STREAM = 1
_NEIGHBOURS = 20


class ViewDataset(Dataset[dict[str, Any]]):
    """Batches of an objective's views.

    A batch is what the views collate, and two entries more: `image_number` (B,) int64, the
    images shown, and `failures`, a list of (image number, message) for those that could not be
    read. A corrupt image is replaced by the next readable one, up to 20 further on and past the
    end from the start, with the random numbers of the image it replaces: no other image in the
    batch changes.

    Args:
        source: The images.
        views: Makes samples and collates them.
        seed: Seed of all views, >= 0.
    """

    def __init__(self, source: ImageSource, views: Views, seed: int) -> None:
        self.source = source
        self.views = views
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, plan: BatchPlan) -> dict[str, Any]:
        """Return the batch of a plan.

        Raises:
            InputError: Where neither an image nor the 20 after it can be read.
        """
        failures: list[tuple[int, str]] = []
        samples, shown = [], []
        for number in plan.images.tolist():
            image, actual = read_or_next(self.source.__getitem__, number, self.source, failures)
            rng = np.random.default_rng((self.seed, plan.epoch, number))
            samples.append(self.views(image, rng))
            shown.append(actual)
        rng = np.random.default_rng((self.seed, plan.epoch, plan.number, plan.rank, _BATCH_STREAM))
        batch: dict[str, Any] = dict(self.views.collate(samples, rng))
        batch["image_number"] = torch.tensor(shown)
        batch["failures"] = failures
        return batch


def read_or_next(
    read: Callable[[int], T], number: int, source: ImageSource, failures: list[tuple[int, str]]
) -> tuple[T, int]:
    """Return what is read of an image, or of the next readable one up to 20 further on.

    Args:
        read: Reads an image by its number.
        number: The image that is wanted.
        source: The images; past the end they go on from the start.
        failures: Takes (image number, message) of those that could not be read.

    Returns:
        What was read, and the number of the image.

    Raises:
        InputError: Where none of them can be read.
    """
    for step in range(_NEIGHBOURS + 1):
        candidate = (number + step) % len(source)
        try:
            return read(candidate), candidate
        except ImageReadError as error:
            failures.append((candidate, str(error)))
    raise InputError(
        f"neither {source.name(number)} nor the {_NEIGHBOURS} images after it can be "
        f"read; the last one: {failures[-1][1]}"
    )


class EvalDataset(Dataset[dict[str, Any]]):
    """Batches of the deterministic view and its labels.

    A batch holds `image` (B, C, H, W), `labels` (B, F) float32 with NaN for missing,
    `image_number` (B,) int64, `readable` (B,) bool and `failures` as in `ViewDataset`. Every image
    keeps its place: a corrupt one is all zeros with all labels missing, so that nothing is measured
    on it.

    Args:
        source: The images.
        view: The deterministic view, as `Views.eval_view` gives it.
        labels: Labels (n, F) float32 of all images of the source.
    """

    def __init__(self, source: ImageSource, view: EvalView, labels: NDArray[np.float32]) -> None:
        self.source = source
        self.view = view
        self.labels = labels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, plan: BatchPlan) -> dict[str, Any]:
        """Return the batch of a plan."""
        failures: list[tuple[int, str]] = []
        labels = self.labels[plan.images]
        samples = []
        for place, number in enumerate(plan.images.tolist()):
            try:
                samples.append(self.view(self.source[number]))
            except ImageReadError as error:
                failures.append((number, str(error)))
                labels[place] = np.nan
                samples.append({"image": self._blank()})
        batch: dict[str, Any] = dict(self.view.collate(samples))
        batch["labels"] = torch.from_numpy(labels)
        batch["image_number"] = torch.tensor(plan.images)
        corrupt = torch.tensor([number for number, _ in failures], dtype=torch.int64)
        batch["readable"] = ~torch.isin(batch["image_number"], corrupt)
        batch["failures"] = failures
        return batch

    def _blank(self) -> Tensor:
        side = self.view.image_size
        return torch.zeros(self.view.in_chans, side, side)
