"""Masks of structures, brought to another size by the nearest pixel."""

import numpy as np
from numpy.typing import NDArray

from cxrssl.errors import InputError

__all__ = ["check_masks", "resize_masks"]


def check_masks(masks: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
    """Refuse what are no masks of an image.

    Args:
        masks: Should be (K, H, W) uint8.
        image: (H, W) uint8.

    Raises:
        InputError: The masks have another shape or type.
    """
    if masks.ndim != 3 or masks.dtype != np.uint8 or masks.shape[1:] != image.shape:
        raise InputError(
            f"masks of an image {image.shape} must be (K, {image.shape[0]}, {image.shape[1]}) of "
            f"uint8, got shape {masks.shape} of {masks.dtype}"
        )


def resize_masks(masks: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return masks (K, H, W) uint8 at another size; each new pixel is the old one at its centre.

    No value arises that was not there, so that unknown pixels stay unknown. The grid is that of
    :func:`cxrssl.views.crops.resize`. A centre on the border of two pixels takes the latter.
    """
    # In whole numbers, since OpenCV's nearest neighbours are half a pixel, or rounding, off.
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip((height, width), masks.shape[1:], strict=True)
    )
    resized: NDArray[np.uint8] = masks[:, rows[:, None], columns]
    return resized
