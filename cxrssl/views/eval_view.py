"""The deterministic view for probing and embedding."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.errors import InputError
from cxrssl.views.base import MIMIC_MEAN, MIMIC_STD, Views, check_image, stack_samples
from cxrssl.views.crops import resize

__all__ = ["EvalView"]


class EvalView(Views):
    """The central square of an image, at one size, normalised; nothing is random.

    A sample is ``image (C, H, W)``, a batch ``image (B, C, H, W)``.

    Args:
        image_size: Side of the view in pixels, H = W.
        resize: Length in pixels the image's shorter side is resized to before the centre crop; at
            least ``image_size``. ``None`` is ``image_size``: the whole shorter side is seen.
        in_chans: Channels C of the tensors; the grey image is repeated C times.
        mean: Mean subtracted after scaling the pixels to [0, 1].
        std: Standard deviation the result is divided by.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        resize: int | None = None,
        in_chans: int = 1,
        mean: float = MIMIC_MEAN,
        std: float = MIMIC_STD,
    ) -> None:
        super().__init__(image_size=image_size, in_chans=in_chans, mean=mean, std=std)
        if resize is not None and resize < image_size:
            raise InputError(
                f"resize must be at least image_size = {image_size}, so that the crop fits, "
                f"got {resize}"
            )
        self.resize = image_size if resize is None else resize

    def __call__(
        self, image: NDArray[np.uint8], rng: np.random.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return ``image (C, H, W)`` of an image (H, W) uint8; the generator is not used."""
        check_image(image)
        shorter = min(image.shape)
        height, width = (side * self.resize // shorter for side in image.shape)
        top, left = (round((side - self.image_size) / 2) for side in (height, width))
        resized = resize(image, height, width)
        square = resized[top : top + self.image_size, left : left + self.image_size]
        return {"image": self.to_tensor(square)}

    def collate(
        self, samples: Sequence[dict[str, Tensor]], rng: np.random.Generator | None = None
    ) -> dict[str, Tensor]:
        """Stack samples into a batch; the generator is not used."""
        return stack_samples(samples)

    def eval_view(self) -> "EvalView":
        """Return this view."""
        return self
