"""What every set of views offers: one image to one sample, samples to one batch."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.errors import InputError
from cxrssl.views.targets import Targets

if TYPE_CHECKING:
    from cxrssl.views.eval_view import EvalView

__all__ = [
    "MIMIC_MEAN",
    "MIMIC_STD",
    "Channels",
    "Views",
    "check_image",
    "check_range",
    "patch_grid",
    "stack_samples",
]

MIMIC_MEAN, MIMIC_STD = 0.5307, 0.2583
"""Grey mean and standard deviation of MIMIC-CXR in [0, 1], as published with RAD-DINO."""

Channels = float | tuple[float, ...]
"""A number for all channels of a tensor, or one for each."""


def check_image(image: NDArray[np.uint8]) -> None:
    """Refuse what is not one grey radiograph.

    Raises:
        InputError: The image is not a non-empty (H, W) array of uint8.
    """
    if image.ndim != 2 or image.dtype != np.uint8 or image.size == 0:
        raise InputError(
            f"views take one-channel images (H, W) of uint8, got shape {image.shape} of "
            f"{image.dtype}; read the file as 8-bit grey first"
        )


def check_range(name: str, bounds: tuple[float, float], *, zero: bool = True) -> None:
    """Refuse bounds that no number can be drawn between.

    Args:
        name: What the option is called.
        bounds: Smallest and largest value.
        zero: Whether the smallest value may be 0.

    Raises:
        InputError: A bound is negative or not finite, or the bounds are reversed.
    """
    low, high = bounds
    if not 0 <= low <= high < math.inf or (low == 0 and not zero):
        raise InputError(
            f"{name} must be (low, high) with 0 {'<=' if zero else '<'} low <= high, both finite, "
            f"got {(low, high)}"
        )


def patch_grid(size: int, patch_size: int, name: str = "image_size") -> tuple[int, int]:
    """Return the rows and columns of patches of a square view.

    Args:
        size: Side of the view in pixels.
        patch_size: Side of a patch in pixels.
        name: What the option is called that sets the side of the view.

    Raises:
        InputError: The patches do not tile the view.
    """
    if patch_size < 1:
        raise InputError(f"patch_size must be positive, got {patch_size}")
    if size < patch_size or size % patch_size:
        below = max(size // patch_size, 1) * patch_size
        raise InputError(
            f"{name} must be a multiple of patch_size = {patch_size}, got {size}; "
            f"use {below} or {below + patch_size}"
        )
    side = size // patch_size
    return side, side


def stack_samples(samples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of B samples under the same names, with a leading dimension B."""
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


class Views(ABC):
    """Turns one radiograph into the tensors an objective trains on.

    Every random number comes from the generator handed in; no global state is read or written, so
    that a sample is a function of the image and the generator's seed alone.

    Args:
        image_size: Side in pixels of the square view that represents the whole image, H = W.
        in_chans: Channels C of the tensors; the grey image is repeated C times.
        mean: Mean subtracted after scaling the pixels to [0, 1], of all channels or of each.
        std: Standard deviation the result is divided by, of all channels or of each.

    Attributes:
        targets: What of an image beside its pixels is wanted. By default nothing.

    Raises:
        InputError: A size is not positive, or the mean or the standard deviation is no number to
            normalise with.
    """

    targets: Targets = Targets()

    def __init__(
        self,
        *,
        image_size: int = 224,
        in_chans: int = 1,
        mean: Channels = MIMIC_MEAN,
        std: Channels = MIMIC_STD,
    ) -> None:
        if image_size < 1 or in_chans < 1:
            raise InputError(
                f"image_size and in_chans must be positive, got {image_size} and {in_chans}"
            )
        if not all(map(math.isfinite, _each("mean", mean, in_chans))):
            raise InputError(f"mean must be finite, got {mean}")
        if not all(0 < value < math.inf for value in _each("std", std, in_chans)):
            raise InputError(f"std must be positive and finite, got {std}")
        self.image_size = image_size
        self.in_chans = in_chans
        self.mean = mean
        self.std = std
        # A uint8 pixel has 256 values: normalising is a look-up, not arithmetic on every pixel.
        self.normalised_levels = self.normalise(np.arange(256) / 255)

    @abstractmethod
    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> dict[str, Tensor]:
        """Return one sample of an image (H, W) uint8."""

    def collate(
        self, samples: Sequence[dict[str, Tensor]], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Stack samples into a batch; masks and other draws over the batch are made here."""
        return stack_samples(samples)

    def eval_view(self) -> "EvalView":
        """Return the deterministic view with this size and normalisation."""
        from cxrssl.views.eval_view import EvalView

        return EvalView(
            image_size=self.image_size, in_chans=self.in_chans, mean=self.mean, std=self.std
        )

    def normalise(self, unit: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return grey values (n,) in [0, 1] less the mean, divided by the standard deviation.

        Returns:
            (n,), or (n, C) where channels differ.
        """
        mean, std = np.asarray(self.mean), np.asarray(self.std)
        values = unit if mean.ndim == std.ndim == 0 else unit[:, None]
        normalised: NDArray[np.float32] = ((values - mean) / std).astype(np.float32)
        return normalised

    def grey(self, images: Tensor) -> Tensor:
        """Return the grey values (B, H, W) in [0, 1] of normalised images (B, C, H, W)."""
        mean, std = (
            value if isinstance(value, int | float) else value[0] for value in (self.mean, self.std)
        )
        return (images[:, 0] * std + mean).clamp(0, 1)

    def to_tensor(
        self, image: NDArray[np.uint8], levels: NDArray[np.float32] | None = None
    ) -> Tensor:
        """Return an image as a normalised float32 tensor.

        Args:
            image: (H, W) uint8.
            levels: Value (256,) that each grey level becomes, or (256, C) where channels differ.
                ``None`` only normalises.

        Returns:
            (C, H, W).
        """
        table = self.normalised_levels if levels is None else levels
        if table.ndim == 1:
            grey = torch.from_numpy(cv2.LUT(image, table))
            return grey.expand(self.in_chans, -1, -1)
        planes = [cv2.LUT(image, np.ascontiguousarray(channel)) for channel in table.T]
        return torch.from_numpy(np.stack(planes))


def _each(name: str, value: Channels, channels: int) -> tuple[float, ...]:
    """Return the values of an option for each channel."""
    values = (value,) if isinstance(value, int | float) else tuple(value)
    if not isinstance(value, int | float) and len(values) != channels:
        raise InputError(
            f"{name} must be one number or one for each of {channels} channels, got {value}"
        )
    return values
