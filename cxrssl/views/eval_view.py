"""The deterministic view for probing, embedding and evaluation."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.errors import InputError
from cxrssl.views.base import (
    MIMIC_MEAN,
    MIMIC_STD,
    Channels,
    Views,
    check_image,
    stack_samples,
)
from cxrssl.views.crops import Resampling, check_crop, resize
from cxrssl.views.structures import check_masks, resize_masks

__all__ = ["EvalView", "stretched_levels"]


def stretched_levels(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the table (256,) that stretches an image (H, W) to [0, 1], from darkest to brightest.

    An image of a single grey value becomes 0.
    """
    low, high = int(image.min()), int(image.max())
    table: NDArray[np.float64] = ((np.arange(256) - low) / max(high - low, 1)).clip(0, 1)
    return table


class EvalView(Views):
    """The central square of an image, at one size, normalised; nothing is random.

    A sample is ``image (C, H, W)``, a batch ``image (B, C, H, W)``; with masks, a sample has
    ``masks (K, H, W)`` uint8 too.

    Args:
        image_size: Side of the view in pixels, H = W.
        resize: Length in pixels the image's shorter side is resized to before the centre crop; at
            least ``image_size``. ``None`` is ``image_size``: the whole shorter side is seen.
        rescale: Whether the grey values of the view are stretched to the whole range before they
            are normalised, as in CheXFound. A view of a single grey value becomes 0.
        resampling: See :func:`cxrssl.views.resize`.
        in_chans: Channels C of the tensors; the grey image is repeated C times.
        mean: Mean subtracted after scaling the pixels to [0, 1], of all channels or of each.
        std: Standard deviation the result is divided by, of all channels or of each.

    Raises:
        InputError: An option is out of range or unknown.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        resize: int | None = None,
        rescale: bool = False,
        resampling: Resampling = "area",
        in_chans: int = 1,
        mean: Channels = MIMIC_MEAN,
        std: Channels = MIMIC_STD,
    ) -> None:
        super().__init__(image_size=image_size, in_chans=in_chans, mean=mean, std=std)
        if resize is not None and resize < image_size:
            raise InputError(
                f"resize must be at least image_size = {image_size}, so that the crop fits, "
                f"got {resize}"
            )
        check_crop((1.0, 1.0), (1.0, 1.0), resampling=resampling)
        self.resize = image_size if resize is None else resize
        self.rescale = rescale
        self.resampling: Resampling = resampling

    def __call__(
        self, image: NDArray[np.uint8], rng: np.random.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return ``image (C, H, W)`` of an image (H, W) uint8; the generator is not used."""
        check_image(image)
        square = self._central(resize(image, *self._resized(image), self.resampling))
        return {"image": self.to_tensor(square, self.levels(square))}

    def with_masks(
        self,
        image: NDArray[np.uint8],
        masks: NDArray[np.uint8],
        rng: np.random.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return the view of an image with its masks.

        Args:
            image: (H, W) uint8.
            masks: (K, H, W) uint8.
            rng: Not used.

        Returns:
            ``image (C, H, W)``, as without masks, and ``masks (K, H, W)`` uint8, of which each
            pixel is the nearest in the masks given.
        """
        sample = self(image)
        check_masks(masks, image)
        square = self._central(resize_masks(masks, *self._resized(image)))
        return {**sample, "masks": torch.from_numpy(np.ascontiguousarray(square))}

    def collate(
        self, samples: Sequence[dict[str, Tensor]], rng: np.random.Generator | None = None
    ) -> dict[str, Tensor]:
        """Stack samples into a batch; the generator is not used."""
        return stack_samples(samples)

    def eval_view(self) -> "EvalView":
        """Return this view."""
        return self

    def levels(self, view: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the normalised value (256,) of each grey level of a view (H, W).

        Where channels differ, (256, C).
        """
        return self.normalise(stretched_levels(view)) if self.rescale else self.normalised_levels

    def _resized(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        """Return height and width of an image before the centre crop."""
        height, width = (side * self.resize // min(image.shape) for side in image.shape)
        return height, width

    def _central(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the central square of an image (H, W) or of masks (K, H, W)."""
        side = self.image_size
        top, left = (round((length - side) / 2) for length in pixels.shape[-2:])
        return pixels[..., top : top + side, left : left + side]
