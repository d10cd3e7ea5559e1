"""What every set of views offers: one image to one sample, samples to one batch."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from cxrssl.views.eval_view import EvalView

__all__ = ["Views"]

MIMIC_MEAN, MIMIC_STD = 0.5307, 0.2583
"""Grey mean and standard deviation of MIMIC-CXR in [0, 1], as published with RAD-DINO."""


class Views(ABC):
    """Turns one radiograph into the tensors an objective trains on.

    Every random number comes from the generator handed in; no global state is read or written, so
    that a sample is a function of the image and the generator's seed alone.

    Args:
        image_size: Side in pixels of the square view that represents the whole image, H = W.
        in_chans: Channels C of the tensors; the grey image is repeated C times.
        mean: Mean subtracted after scaling the pixels to [0, 1].
        std: Standard deviation the result is divided by.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        in_chans: int = 1,
        mean: float = MIMIC_MEAN,
        std: float = MIMIC_STD,
    ) -> None:
        if image_size < 1 or in_chans < 1:
            raise ValueError(
                f"image_size and in_chans must be positive, got {image_size} and {in_chans}"
            )
        if std <= 0:
            raise ValueError(f"std must be positive, got {std}")
        self.image_size = image_size
        self.in_chans = in_chans
        self.mean = mean
        self.std = std

    @abstractmethod
    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> dict[str, Tensor]:
        """Return one sample of an image (H, W) uint8."""

    def collate(
        self, samples: Sequence[dict[str, Tensor]], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Stack samples into a batch; masks and other draws over the batch are made here."""
        return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}

    def eval_view(self) -> "EvalView":
        """Return the deterministic view with this size and normalisation."""
        from cxrssl.views.eval_view import EvalView

        return EvalView(
            image_size=self.image_size, in_chans=self.in_chans, mean=self.mean, std=self.std
        )

    def to_tensor(self, image: NDArray[np.uint8]) -> Tensor:
        """Return an image (H, W) uint8 as a normalised float32 tensor (C, H, W)."""
        table = (np.arange(256, dtype=np.float32) / 255 - self.mean) / self.std
        grey = torch.from_numpy(table.astype(np.float32)[image])
        return grey.expand(self.in_chans, -1, -1)
