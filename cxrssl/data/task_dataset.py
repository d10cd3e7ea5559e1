"""Data sets of images with what is to be predicted of them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cxrssl.data.dataset import read_or_next
from cxrssl.data.image import ImageReadError
from cxrssl.data.sampler import BatchPlan
from cxrssl.data.sources import ImageSource
from cxrssl.data.targets import TargetTable
from cxrssl.errors import InputError
from cxrssl.views.base import Views, stack_samples

__all__ = ["TaskDataset"]

_UNKNOWN = 255


class TaskDataset(Dataset[dict[str, Any]]):
    """Batches of views and targets.

    A batch holds ``image`` (B, C, H, W) and the targets: ``labels`` (B, F) float32 with NaN for
    missing, ``masks`` (B, K, H, W) uint8 with 255 for not known, ``text``, a list of B reports;
    besides ``image_number`` (B,) int64, ``readable`` (B,) bool and ``failures`` as in
    :class:`ViewDataset`. In training, a corrupt image is replaced by the next readable one, with
    its own targets. Otherwise every image keeps its place: a corrupt one is all zeros and nothing
    is known of it.

    Args:
        source: The images.
        targets: What is to be predicted of them.
        views: Makes the views; random ones are functions of (seed, epoch, image number).
        seed: Seed of all views, >= 0.
        train: Whether corrupt images are replaced.
    """

    def __init__(
        self, source: ImageSource, targets: TargetTable, views: Views, seed: int, *, train: bool
    ) -> None:
        if targets.structures and not hasattr(views, "with_masks"):
            raise InputError(
                f"{type(views).__name__} makes no masks: segmentation needs SupervisedView"
            )
        self.source = source
        self.targets = targets
        self.views = views
        self.seed = seed
        self.train = train

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, plan: BatchPlan) -> dict[str, Any]:
        """Return the batch of a plan.

        Raises:
            InputError: In training, where neither an image nor the 20 after it can be read; and
                where a mask does not fit its image.
        """
        failures: list[tuple[int, str]] = []
        numbers = plan.images.copy()
        samples = []
        for place, number in enumerate(plan.images.tolist()):
            rng = np.random.default_rng((self.seed, plan.epoch, number))
            sample, numbers[place] = self._sample(number, rng, failures)
            samples.append(sample)
        readable = np.array([sample is not None for sample in samples])
        batch: dict[str, Any] = stack_samples([sample or self._blank() for sample in samples])
        batch |= self.targets.of(numbers, readable)
        batch["image_number"] = torch.from_numpy(numbers)
        batch["readable"] = torch.from_numpy(readable)
        batch["failures"] = failures
        return batch

    def _sample(
        self, number: int, rng: np.random.Generator, failures: list[tuple[int, str]]
    ) -> tuple[dict[str, Tensor] | None, int]:
        """Return a view and the number of the image it is of; no view of a corrupt one."""
        if self.train:
            read, number = read_or_next(self._read, number, self.source, failures)
            return self._view(*read, rng), number
        try:
            return self._view(*self._read(number), rng), number
        except ImageReadError as error:
            failures.append((number, str(error)))
            return None, number

    def _read(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        image = self.source[number]
        return image, self.targets.masks(number, (image.shape[0], image.shape[1]))

    def _view(
        self,
        image: NDArray[np.uint8],
        masks: NDArray[np.uint8] | None,
        rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        if masks is None:
            return self.views(image, rng)
        views: Any = self.views
        view: dict[str, Tensor] = views.with_masks(image, masks, rng)
        return view

    def _blank(self) -> dict[str, Tensor]:
        side = self.views.image_size
        blank = {"image": torch.zeros(self.views.in_chans, side, side)}
        if self.targets.structures:
            shape = (len(self.targets.structures), side, side)
            blank["masks"] = torch.full(shape, _UNKNOWN, dtype=torch.uint8)
        return blank
